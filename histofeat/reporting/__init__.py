"""Results -> a folder that a person can read and a program can parse: JSON, CSV, Parquet, figures, Markdown, HTML."""

from histofeat.reporting.files.environment import describe_environment
from histofeat.reporting.files.folder import check_output
from histofeat.reporting.write import write_report

__all__ = ["check_output", "describe_environment", "write_report"]
