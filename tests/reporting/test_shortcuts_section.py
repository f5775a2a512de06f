"""The shortcut panel in a report, and the table of the leak."""

from pathlib import Path

import pytest

from histofeat.reporting import Heading, Notice, Table, Text, leakage_table, shortcut_blocks, to_html, to_markdown
from histofeat.studies import Identification, Leakage, LeakageRow, Probe, Reference, ShortcutPanel, Skipped

NAN = float("nan")
PANEL = ShortcutPanel(
    rows=(
        Probe("mean_color", "mean of red, green and blue", 3, 0.8, (0.75, 0.85), 0.75, (0.6, 0.9)),
        Probe("coordinates", "x and y", 4, 0.45, (0.4, 0.5), -0.125, (-0.3, 0.0)),
    ),
    identification=(
        Identification("mean_color", 3, 0.1, (0.05, 0.15), 0.05, 20, 10),
        Identification("color", 180, 0.6, (0.5, 0.7), 0.05, 20, 10),
    ),
    reference=Reference("handcrafted, xgboost", 0.9, (0.88, 0.92)),
    not_run=(),
    n_patients=25,
    n_patches=1234,
    n_folds=5,
    n_resamples=2000,
    random_state=0,
    patient_overlap=False,
)


def panel(**changes):
    from dataclasses import replace

    return replace(PANEL, **changes).to_dict()


def tables(blocks):
    return [block for block in blocks if isinstance(block, Table)]


def words(blocks):
    return " ".join(block.text for block in blocks if isinstance(block, Text))


def test_no_panel_no_section():
    assert shortcut_blocks(None) == []


def test_numbers_stand_in_the_tables():
    blocks = shortcut_blocks(panel())
    assert blocks[0] == Heading("Shortcuts")
    probes, identification = tables(blocks)
    assert probes.rows == (
        ("mean colour", "mean of red, green and blue", "3", "0.800", "0.750 – 0.850", "75.0 %", "60.0 % – 90.0 %"),
        ("coordinates", "x and y", "4", "0.450", "0.400 – 0.500", "-12.5 %", "-30.0 % – 0.0 %"),
        ("model: handcrafted, xgboost", "its features", "", "0.900", "0.880 – 0.920", "100 %", ""),
    )
    assert identification.rows == (
        ("mean colour", "3", "10.0 %", "5.0 % – 15.0 %", "2.0"),
        ("color", "180", "60.0 %", "50.0 % – 70.0 %", "12.0"),
    )
    assert not [block for block in blocks if isinstance(block, Notice)]
    assert len(probes.columns) == len(probes.rows[0])


def test_words_name_the_largest_share_and_the_best_identifier_and_bound_what_is_said():
    text = words(shortcut_blocks(panel()))
    assert "1,234 tested patches of 25 patients" in text
    assert "The largest: mean colour, with 75.0 % of what handcrafted, xgboost scores above 0.5" in text
    assert "upper bound" in text
    assert "not what the model uses" in text
    assert "Guessing is right in 5.00 %. color is right in 60.0 %, 12 times as often" in text


def test_without_a_model_there_is_no_share():
    rows = (Probe("mean_color", "d", 3, 0.8, (0.75, 0.85)),)
    blocks = shortcut_blocks(panel(reference=None, rows=rows))
    (probes, _) = tables(blocks)
    assert probes.columns == ("Shortcut", "What the classifier sees", "Columns", "ROC-AUC", "95 % interval")
    assert "No model was given to hold them against." in words(blocks)


def test_a_model_at_chance_explains_nothing():
    rows = (Probe("mean_color", "d", 3, 0.8, (0.75, 0.85)),)
    chance = Reference("lbp, svm", 0.51, (0.45, 0.57))
    blocks = shortcut_blocks(panel(reference=chance, rows=rows))
    assert "lbp, svm cannot be told from chance here" in words(blocks)
    assert tables(blocks)[0].rows[0][-2:] == ("–", "–")


def test_what_did_not_run_and_what_leaks_is_said():
    blocks = shortcut_blocks(
        panel(not_run=(Skipped("coordinates", "there are none"),), patient_overlap=True, identification=())
    )
    leak, missing = (block for block in blocks if isinstance(block, Notice))
    assert (leak.level, leak.title) == ("danger", "These folds share patients")
    assert missing.items == ("coordinates: there are none",)
    assert len(tables(blocks)) == 1
    assert "1 fold as the models" in words(shortcut_blocks(panel(n_folds=1)))


@pytest.mark.parametrize("render", [to_markdown, lambda blocks: to_html(blocks, "t", Path())])
def test_it_can_be_rendered(render):
    assert "75.0 %" in render(shortcut_blocks(panel()))


def test_the_table_of_the_leak_has_signs():
    row = LeakageRow("color", "svm", 180, "f1", 0.7, (0.6, 0.8), 0.75, (0.7, 0.8), 0.05, (-0.01, 0.11))
    bare = LeakageRow("lbp", "svm", 54, "f1", 0.7, (NAN, NAN), NAN, (NAN, NAN), NAN, (NAN, NAN))
    other = LeakageRow("lbp", "svm", 54, "roc_auc", 0.7, (NAN, NAN), 0.7, (NAN, NAN), 0.0, (NAN, NAN))
    payload = Leakage((row, bare, other), (), 3, 30, 5, NAN, 0, 0).to_dict()
    table = leakage_table(payload, "f1")
    assert table.rows == (
        ("color", "svm", "180", "0.700 [0.600, 0.800]", "0.750 [0.700, 0.800]", "+0.050 [-0.010, +0.110]"),
        ("lbp", "svm", "54", "0.700", "–", "–"),
    )
    assert table.caption == "F1, pooled [95 % interval]."
    assert leakage_table(payload, "roc_auc").rows[0][-1] == "+0.000"
