from ._canvas import draw_intervals as draw_intervals, draw_lines as draw_lines
from ._curves import ranking_data as ranking_data
from ._displays import (
    CalibrationDisplay as CalibrationDisplay,
    ConfusionDisplay as ConfusionDisplay,
    PatientsDisplay as PatientsDisplay,
    PrecisionRecallDisplay as PrecisionRecallDisplay,
    RocDisplay as RocDisplay,
)
from ._folder import check_output as check_output
from ._galleries import check_pictures as check_pictures
from ._html import html_page as html_page
from ._pages import render_markdown as render_markdown, write_page as write_page
from ._payload import (
    dataset_payload as dataset_payload,
    describe_environment as describe_environment,
    metrics_payload as metrics_payload,
)
from ._pseudonyms import read_key as read_key
from ._report import report_context as report_context, write_report as write_report, write_study as write_study
from ._slide_maps import SlideMapDisplay as SlideMapDisplay, write_map as write_map
from ._strict_json import Redactor as Redactor, dump as dump, jsonable as jsonable
from ._tables import (
    Table as Table,
    average_table as average_table,
    by_reason as by_reason,
    class_table as class_table,
    difference_table as difference_table,
    headline_table as headline_table,
)
from ._text import file_words as file_words
