"""The page of the study on calibration: words, tables and figures, from plain values."""

from histofeat.reporting import number

__all__ = ["figures_of", "flat_rows", "page"]

UNIT_WORDS = {
    "patches": "all patches as strangers",
    "one_per_patient": "one patch per patient",
    "hierarchical": "patients, equal weight",
}
RULE_WORDS = {"0.5": "0.5", "f1": "highest F1", "youden": "Youden"}


def page(found, payload, notices, options):
    """Blocks from top to bottom."""
    from histofeat.reporting import (
        Details,
        Heading,
        Picture,
        Text,
        calibration_key,
        calibration_table,
        decomposition_table,
    )

    data = payload["dataset"]
    yield Text(calibration_sentence(payload["results"]))
    yield Text(threshold_sentence(found["thresholds"]))
    yield Text(conformal_sentence(found["conformal"]))
    yield from notices
    yield Text(
        f"{data['name']}, {data['n_patches']:,} patches of {data['n_patients']:,} patients outside the official test "
        f"set, {options.folds} folds of patients. In each fold a head is fitted on the training patients; three inner "
        "fits score those of them that they had not seen, and on these scores the calibration is fitted, the "
        "thresholds are chosen and the prediction sets are calibrated. All numbers are of the test patients, out of "
        f"fold and pooled. Intervals: whole patients are drawn with replacement, {options.resamples:,} times; fits, "
        "thresholds and calibration stay as they are."
    )
    yield Heading("Calibration")
    yield calibration_table(payload)
    yield Text(calibration_key(payload["results"]), muted=True)
    yield Text(
        "Class weights: each class by the inverse of its frequency. The SVM's raw probabilities are already a "
        "calibration of its decision values on such inner scores, without weights."
    )
    for name in figure_names(payload):
        words = "Reliability curves: share of positives against mean probability, raw and calibrated."
        yield Picture(f"figures/{name}.svg", words, f"{words} Bands: 95 % over patients. Dashed: calibrated.")
    yield Details("The parts of the Brier score", (decomposition_table(payload),))
    yield Heading("Thresholds")
    yield threshold_table([row for row in found["thresholds"] if is_plain(row)], data)
    weighted = [row for row in found["thresholds"] if not is_plain(row)]
    if weighted:
        yield Details("The same with class weights", (threshold_table(weighted, data),))
    yield Picture("figures/sensitivity.svg", "Sensitivity reached less sensitivity asked for, with intervals.",
                  "Sensitivity on test patients less the one asked for on training patients.")  # fmt: skip
    yield Heading("Prediction sets")
    yield from conformal_blocks(found, data)


def is_plain(row):
    """Whether the head has no class weights."""
    return "class weights" not in row["head"]


# --- sentences -------------------------------------------------------------------------------------------------------


def calibration_sentence(results):
    """Say what calibration does to each model's error."""
    parts = []
    for result in results:
        found = result["calibration"]
        raw, calibrated = found["raw"]["ece"], found["calibrated"]["ece"]
        parts.append(
            f"{result['name']}, {result['head']}: {number(raw['value'])} raw, {number(calibrated['value'])} calibrated"
        )
    return f"Expected calibration error. {'; '.join(parts)}."


def threshold_sentence(rows):
    """Say what the models without class weights reach of one sensitivity asked for."""
    asked = shown([row["asked"] for row in rows if row["asked"] is not None], 0.95)
    parts = [
        f"{row['name']}, {row['head']}: {with_interval(row['sensitivity'])} at a specificity of "
        f"{number(row['specificity']['value'])}"
        for row in rows
        if row["asked"] == asked and is_plain(row)
    ]
    return f"Sensitivity of test patients where {asked:g} was asked for on training patients. {'; '.join(parts)}."


def conformal_sentence(rows):
    """Say what coverage patients get at one level, calibrated on patients with equal weight."""
    level = shown([row["level"] for row in rows], 0.9)
    parts = [
        f"{row['name']}, {row['head']}: {with_interval({'value': row['patients'], 'ci95': row['patients_ci95']})}, "
        f"{100 * row['patients_below']:.0f} % of the patients below"
        for row in rows
        if row["level"] == level and is_plain(row) and row["unit"] == "hierarchical"
    ]
    return f"Coverage of prediction sets, mean over patients, where {level:g} was asked for. {'; '.join(parts)}."


def shown(values, usual):
    """The one that stands in a sentence: the usual one where it was asked for, else the highest."""
    return usual if usual in values else max(values)


# --- tables ----------------------------------------------------------------------------------------------------------


def with_interval(score):
    """A value with its interval."""
    low, high = score["ci95"]
    text = number(score["value"])
    return text if low is None or high is None else f"{text} [{number(low)}, {number(high)}]"


def threshold_table(rows, data):
    """One row per model and rule."""
    from histofeat.reporting import Table, data_label

    body = tuple(
        (
            row["name"],
            row["head"],
            RULE_WORDS.get(row["rule"], row["rule"].replace("=", " ")),
            f"{number(row['lowest_threshold'])} – {number(row['highest_threshold'])}",
            *(with_interval(row[name]) for name in ("sensitivity", "specificity", "balanced_accuracy", "f1")),
        )
        for row in rows
    )
    columns = ("Model", "Head", "Rule", "Thresholds", "Sensitivity", "Specificity", "Balanced accuracy", "F1")
    caption = f"{data_label(data)}. Thresholds: the lowest and the highest of the folds. Pooled [95 % interval]."
    return Table(caption, columns, body, n_text=3)


def conformal_blocks(found, data):
    """What the sets are, their coverage, and what it promises."""
    from histofeat.reporting import Details, Picture, Text

    yield Text(
        "A prediction set holds each class that cannot be ruled out: one, both (undecided) or none (unlike anything "
        "seen). Asked for is the share of sets that hold the true class. Calibrating on all patches as if they were "
        "strangers promises nothing for new patients. The other two promise the share for one random patch of one "
        "random new patient, so for the mean over patients, if a model was fitted on others than it is calibrated on; "
        "here three inner fits stand for the model, which weakens the promise. None promises it for each patient, for "
        "each class, or for another laboratory: the columns show what these get."
    )
    plain = [row for row in found["conformal"] if is_plain(row)]
    yield conformal_table(plain, data)
    weighted = [row for row in found["conformal"] if not is_plain(row)]
    if weighted:
        yield Details("The same with class weights", (conformal_table(weighted, data),))
    yield Picture("figures/coverage.svg", "Mean coverage over patients for each model and unit, with intervals.",
                  "Coverage, mean over patients. Dashed: asked for.")  # fmt: skip


def conformal_table(rows, data):
    """One row per model, unit and level."""
    from histofeat.reporting import Table, data_label

    negative, positive = data["labels"]
    body = tuple(
        (
            row["name"],
            row["head"],
            UNIT_WORDS[row["unit"]],
            f"{row['level']:g}",
            *(with_interval({"value": row[name], "ci95": row[f"{name}_ci95"]}) for name in ("patients", "patches")),
            *(number(row[name]) for name in ("class_0", "class_1", "patients_below", "one_class", "empty")),
        )
        for row in rows
    )
    columns = (
        "Model", "Head", "Calibrated on", "Asked", "Mean over patients", "All patches", negative, positive,
        "Patients below", "Sets of one", "Empty sets",
    )  # fmt: skip
    caption = (
        f"{data_label(data)}. Share of sets that hold the true class, over patients, over patches [95 % interval] and "
        "of each class; share of patients whose own coverage is below the one asked for; share of sets with one class, "
        "and with none."
    )
    return Table(caption, columns, body, n_text=3)


def flat_rows(rows):
    """Rows for a CSV file: nested values get names joined by underscores, tables of bins are left to the JSON."""
    return [dict(flat(row)) for row in rows]


def flat(row, prefix=""):
    """Yield (name, value) pairs of a nested row."""
    for name, value in row.items():
        if name in ("curve", "bins"):
            continue
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}_".replace("calibration_", ""))
        elif name.endswith("ci95"):
            yield from zip((f"{prefix}{name}_low", f"{prefix}{name}_high"), value, strict=True)
        else:
            yield f"{prefix}{name}", value


# --- figures ---------------------------------------------------------------------------------------------------------


def figures_of(found, payload):
    """Every figure by its name: (draw, data)."""
    from histofeat.reporting import draw_lines, reliability_data

    heads = dict.fromkeys(result["head"] for result in payload["results"])
    reliability = {
        name: reliability_data(payload, head) for name, head in zip(figure_names(payload), heads, strict=True)
    }
    return {
        **{name: (draw_lines, data) for name, data in reliability.items()},
        "sensitivity": sensitivity_figure(found["thresholds"]),
        "coverage": coverage_figure(found["conformal"]),
    }


def figure_names(payload):
    """File names of the reliability curves, one per head."""
    heads = dict.fromkeys(result["head"] for result in payload["results"])
    return [f"reliability_{head.replace(', class weights', '_weighted')}" for head in heads]


def sensitivity_figure(rows):
    """Sensitivity reached less asked, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    bars = []
    for row in rows:
        if row["asked"] is not None and is_plain(row):
            low, high = (None if end is None else end - row["asked"] for end in row["sensitivity"]["ci95"])
            name = f"{row['name']}, {row['head']}: {row['asked']:g}"
            value = row["sensitivity"]["value"] - row["asked"]
            bars.append({"name": name, "value": value, "low": low, "high": high, "group": row["head"]})
    return draw_intervals, {
        "title": "Sensitivity on test patients less the one asked for",
        "x_label": "reached less asked, 95 % interval over patients",
        "reference": 0.0,
        "rows": bars,
    }


def coverage_figure(rows):
    """Mean coverage over patients at one level, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    level = shown([row["level"] for row in rows], 0.9)
    bars = []
    for row in rows:
        if row["level"] == level:
            low, high = row["patients_ci95"]
            name = f"{row['name']}, {row['head']}"
            bars.append({"name": name, "value": row["patients"], "low": low, "high": high,
                         "group": UNIT_WORDS[row["unit"]]})  # fmt: skip
    return draw_intervals, {
        "title": f"Coverage of prediction sets, {level:g} asked for",
        "x_label": "mean over patients, 95 % interval",
        "reference": level,
        "rows": bars,
    }
