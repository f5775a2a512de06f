"""The shortcut panel in a report, and the table of the leak."""

from histofeat.reporting import html_page, render_markdown
from histofeat.studies import Identification, Leakage, LeakageRow, Probe, Reference, ShortcutPanel

NAN = float("nan")
PANEL = ShortcutPanel(
    rows=(
        Probe("mean_color", "mean of red, green and blue", 3, 0.8, (0.75, 0.85), 0.85, (0.81, 0.88), 0.55),
        Probe("coordinates", "x and y", 4, 0.45, (0.4, 0.5), 0.9, (0.87, 0.92), 0.49),
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


def section(panel):
    return " ".join(render_markdown("report-shortcuts.md.j2", {"shortcuts": panel}).split())


def rows_of(markdown):
    """Give the cells of all tables, row by row; rows of dashes are left out."""
    lines = [line for line in markdown.splitlines() if line.startswith("|") and "---" not in line]
    return [tuple(cell.strip().replace("\\", "") for cell in line[1:-1].split("|")) for line in lines]


def test_numbers_stand_in_the_tables():
    assert rows_of(render_markdown("report-shortcuts.md.j2", {"shortcuts": panel()})) == [
        ("Shortcut", "What the classifier sees", "Columns", "ROC-AUC", "95 % interval",
         "Model within its strata", "95 % interval", "Shortcut within them"),
        ("mean colour", "mean of red, green and blue", "3", "0.800", "0.750 – 0.850",
         "0.850", "0.810 – 0.880", "0.550"),
        ("coordinates", "x and y", "4", "0.450", "0.400 – 0.500", "0.900", "0.870 – 0.920", "0.490"),
        ("model: handcrafted, xgboost", "its features", "", "0.900", "0.880 – 0.920", "", "", ""),
        ("Features", "Columns", "Right patient", "95 % interval", "Times chance"),
        ("mean colour", "3", "10.0 %", "5.0 % – 15.0 %", "2.0"),
        ("color", "180", "60.0 %", "50.0 % – 70.0 %", "12.0"),
    ]  # fmt: skip
    words = section(panel())
    assert words.startswith("Classifiers that see one shortcut each")
    assert "[!" not in words


def test_words_name_the_strongest_shortcut_and_what_the_model_adds_and_the_best_identifier():
    words = section(panel())
    assert "5 folds as the models: 1,234 tested patches of 25 patients" in words
    assert "The strongest: mean colour, with a ROC-AUC of 0.800. handcrafted, xgboost has 0.900. Among" in words
    assert "it has 0.850 and the shortcut 0.550: what lies between them is what the model adds." in words
    assert "upper bound" not in words
    assert "Guessing is right in 5.00 %. color is right in 60.0 %, 12 times as often" in words


def test_without_a_model_there_are_no_strata():
    rows = (Probe("mean_color", "d", 3, 0.8, (0.75, 0.85)),)
    alone = panel(reference=None, rows=rows)
    assert "| Shortcut | What the classifier sees | Columns | ROC-AUC | 95 % interval | | --- |" in section(alone)
    assert "| mean colour | d | 3 | 0.800 | 0.750 – 0.850 |" in section(alone)
    assert "No model was given to compare them with." in section(alone)


def test_more_than_two_classes_have_no_strata():
    rows = (Probe("mean_color", "d", 3, 0.8, (0.75, 0.85)),)
    several = panel(reference=Reference("lbp, svm", 0.6, (0.45, 0.7)), rows=rows)
    assert "Strata are made of two classes only" in section(several)
    assert "| mean colour | d | 3 | 0.800 | 0.750 – 0.850 |" in section(several)


def test_what_leaks_is_said():
    found = section(panel(patient_overlap=True, identification=()))
    assert "> [!CAUTION] > **These folds share patients**" in found
    assert "Patient identification" not in found
    assert "1 fold as the models" in section(panel(n_folds=1))


def test_it_becomes_a_page(tmp_path):
    page = html_page(render_markdown("report-shortcuts.md.j2", {"shortcuts": panel()}), "t", tmp_path)
    assert '<td class="n">0.550</td>' in page


def test_the_table_of_the_leak_has_signs():
    row = LeakageRow("color", "svm", 180, "f1", 0.7, (0.6, 0.8), 0.75, (0.7, 0.8), 0.05, (-0.01, 0.11))
    bare = LeakageRow("lbp", "svm", 54, "f1", 0.7, (NAN, NAN), NAN, (NAN, NAN), NAN, (NAN, NAN))
    other = LeakageRow("lbp", "svm", 54, "roc_auc", 0.7, (NAN, NAN), 0.7, (NAN, NAN), 0.0, (NAN, NAN))
    leakage = Leakage((row, bare, other), (), 3, 30, 5, NAN, 0, 0, 0.7).to_dict()
    dataset = {"name": "d", "synthetic": True, "n_patches": 30, "n_patients": 5, "full_set": None, "complete": True}
    results = {"real": leakage, "few": [], "draws": 5, "planted_signature": leakage, "dataset": dataset}
    names = {"title": "t", "quick": False, "command": "c", "processor": "p", "results": results}
    page = render_markdown("study-leakage.md.j2", names)
    table = page.split("\nF1 \\[95 % interval\\].\n")[1].split("</details>")[0]
    assert rows_of(table)[1:] == [
        ("color", "svm", "180", "0.700 [0.600, 0.800]", "0.750 [0.700, 0.800]", "+0.050 [-0.010, +0.110]"),
        ("lbp", "svm", "54", "0.700", "–", "–"),
    ]
    assert "| lbp | svm | 54 | 0.700 | 0.700 | +0.000 |" in page
