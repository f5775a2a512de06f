from .calibration import (
    calibration_key as calibration_key,
    calibration_table as calibration_table,
    decomposition_table as decomposition_table,
    reliability_data as reliability_data,
    reliability_line as reliability_line,
)
from .canvas import (
    GRID as GRID,
    INK as INK,
    line_of as line_of,
    new_figure as new_figure,
    plain_axes as plain_axes,
    save_figure as save_figure,
    short as short,
)
from .charts import draw_costs as draw_costs, draw_intervals as draw_intervals, draw_lines as draw_lines
from .folder import check_output as check_output, finish as finish, new_folder as new_folder
from .pages import html_page as html_page, render_markdown as render_markdown, write_page as write_page
from .payload import (
    data_label as data_label,
    dataset_payload as dataset_payload,
    describe_environment as describe_environment,
    metrics_payload as metrics_payload,
    model_key as model_key,
    score_payload as score_payload,
)
from .ranking import ranking_data as ranking_data
from .report import report_context as report_context, write_report as write_report
from .score_figures import confusion_data as confusion_data, draw_confusion as draw_confusion
from .shortcuts import LEAKAGE_WORDS as LEAKAGE_WORDS, leakage_table as leakage_table
from .strict_json import Redactor as Redactor, dump as dump, jsonable as jsonable
from .study_page import write_study as write_study
from .tables import (
    METRIC_WORDS as METRIC_WORDS,
    Table as Table,
    average_table as average_table,
    class_table as class_table,
    difference_tables as difference_tables,
    headline_key as headline_key,
    headline_table as headline_table,
    score_with_interval as score_with_interval,
)
from .text import (
    interval as interval,
    number as number,
    percent as percent,
    signed as signed,
    with_interval as with_interval,
)
