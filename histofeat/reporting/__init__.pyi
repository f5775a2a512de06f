from .blocks import (
    Addition as Addition,
    Details as Details,
    Facts as Facts,
    Heading as Heading,
    Markdown as Markdown,
    Notice as Notice,
    Picture as Picture,
    Table as Table,
    Text as Text,
    to_html as to_html,
    to_markdown as to_markdown,
)
from .figures.canvas import (
    GRID as GRID,
    INK as INK,
    line_of as line_of,
    new_figure as new_figure,
    plain_axes as plain_axes,
    save_figure as save_figure,
    short as short,
)
from .figures.charts import draw_costs as draw_costs, draw_intervals as draw_intervals, draw_lines as draw_lines
from .figures.confusion_and_forest import draw_confusion as draw_confusion
from .figures.curves import confusion_data as confusion_data
from .files.environment import describe_environment as describe_environment
from .files.folder import check_output as check_output, finish as finish, new_folder as new_folder
from .files.payload import (
    data_label as data_label,
    dataset_payload as dataset_payload,
    metrics_payload as metrics_payload,
    model_key as model_key,
    score_payload as score_payload,
)
from .files.privacy import Redactor as Redactor
from .files.strict_json import dump as dump, jsonable as jsonable
from .pages import html_page as html_page, render_markdown as render_markdown, write_page as write_page
from .sections.calibration import (
    calibration_key as calibration_key,
    calibration_table as calibration_table,
    decomposition_table as decomposition_table,
    reliability_data as reliability_data,
)
from .sections.classes import class_blocks as class_blocks
from .sections.shortcut import (
    LEAKAGE_WORDS as LEAKAGE_WORDS,
    leakage_table as leakage_table,
    shortcut_blocks as shortcut_blocks,
)
from .sections.tables import (
    METRIC_WORDS as METRIC_WORDS,
    headline_key as headline_key,
    headline_table as headline_table,
    number as number,
    score_with_interval as score_with_interval,
)
from .study_page import write_study as write_study
from .text import interval as interval, percent as percent, signed as signed, with_interval as with_interval
from .write import write_report as write_report
