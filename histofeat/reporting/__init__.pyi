from .charts import draw_intervals as draw_intervals, draw_lines as draw_lines
from .folder import check_output as check_output
from .pages import html_page as html_page, render_markdown as render_markdown, write_page as write_page
from .payload import (
    dataset_payload as dataset_payload,
    describe_environment as describe_environment,
    metrics_payload as metrics_payload,
)
from .ranking import ranking_data as ranking_data
from .report import report_context as report_context, write_report as write_report, write_study as write_study
from .strict_json import Redactor as Redactor, dump as dump, jsonable as jsonable
from .tables import (
    Table as Table,
    average_table as average_table,
    class_table as class_table,
    difference_tables as difference_tables,
    headline_table as headline_table,
)
