"""The page of the BreakHis protocol: words, tables and figures, from what was measured."""

from breakhis_class_page import class_rows, confusion_of, figure_name, fold_blocks, payload_of
from breakhis_holdouts import NOTHING, compare, summarise

from histofeat.reporting import Details, Facts, Heading, Notice, Picture, Table, Text, number

TITLE = "The protocol of BreakHis"
PUBLISHED = (
    "Published, for comparison: the abstract of Spanhol et al. 2016 (doi:10.1109/TBME.2015.2496264) gives an accuracy "
    "of 80 to 85 %. Nothing else of that paper has been verified here, so nothing else stands here."
)
RATE_WORDS = {
    "patient_rate": "Patient recognition rate",
    "image_rate": "Image rate",
    "balanced_accuracy": "Balanced accuracy of images",
}

__all__ = ["make_study"]


def make_study(found, evaluations, options):
    """Words, tables and figures.

    Parameters
    ----------
    found : list of (HoldOuts, PatchDataset or None)
        One for each magnification.
    evaluations : list of dict
        As `breakhis.folds_of` gives them.
    options : Namespace

    Returns
    -------
    Study
    """
    import pandas as pd
    from study import Study

    rows = [row for hold_outs, _ in found for row in hold_outs.rows]
    n_hold_outs = max((len(hold_outs.folds.get("folds", ())) for hold_outs, _ in found), default=0)
    means = summarise(rows, n_hold_outs)
    differences = compare(rows, n_hold_outs, tuple(options.reference.split("/")))
    scored = [record | {"payload": payload_of(record)} for record in evaluations]
    blocks = [
        *opening(found, options),
        *hold_out_blocks(found, means, differences, options),
        *(block for record in scored for block in fold_blocks(record)),
        *closing(options),
    ]
    tables = {"hold_outs": pd.DataFrame(rows), "means": pd.DataFrame(means), "differences": pd.DataFrame(differences)}
    tables["classes"] = pd.DataFrame([row for record in scored for row in class_rows(record)])
    results = {
        "hold_outs": [hold_outs for hold_outs, _ in found],
        "means": means,
        "differences": differences,
        "evaluations": [
            {key: record[key] for key in ("magnification", "target", "refused", "payload")}
            | {"not_run": record.get("not_run")}
            for record in scored
        ],
    }
    return Study(TITLE, tuple(blocks), results, tables, figures_of(rows, means, scored))


# --- what this is ----------------------------------------------------------------------------------------------------


def opening(found, options):
    """Whose images these are, and what they can show."""
    datasets = [dataset for _, dataset in found if dataset is not None]
    if any(dataset.synthetic for dataset in datasets):
        words = "Every number here comes from generated images. They show that the program works, and say nothing else."
        yield Notice("warning", "Synthetic cohort", (words,))
    yield Text(
        "Benign against malignant, and the subtypes, on images of whole fields of view. Patients are grouped by "
        + ("slide number, so that sections of one patient stay together." if options.patient_key == "number"
           else "full slide id, as published: sections of one patient can stand on both sides.")
    )  # fmt: skip
    if datasets and not any(dataset.synthetic for dataset in datasets):
        limits = tuple(sentence for dataset in datasets for sentence in limits_of(dataset))
        if limits:
            yield Notice("warning", "A sample: what it can show, and what it cannot", (*limits, *SAMPLE_WORDS))
    lines = [line for dataset in datasets for line in dataset.audit.summary().splitlines()]
    yield Details("The images in numbers", (Facts(tuple(("", line.removeprefix("- ")) for line in lines)),))


SAMPLE_WORDS = (
    "It can show that loader, audit, hold-outs, features, heads, tests and tables work on real images of BreakHis, "
    "and what a report on the whole archive will look like.",
    "It cannot rank features or heads, and cannot be compared with published rates: a hold-out of it tests a handful "
    "of patients with a few images each, so that one image more or less moves a rate by several percent. Where a "
    "difference is not significant, that is no sign of equal models; where one is, it holds for patients like these "
    "few.",
)


def limits_of(dataset):
    """Say how little a copy is; nothing where it is whole or large."""
    import numpy as np

    audit = dataset.audit
    if audit.full_set is None or len(dataset) > audit.full_set.n_patches // 2:
        return
    power = dataset.frame["magnification"].iloc[0]
    carriers = [len(np.unique(dataset.patients[dataset.y == code])) for code in range(len(dataset.target_names))]
    classes = ", ".join(f"{n} {name}" for n, name in zip(carriers, dataset.target_names, strict=True))
    images, patients = (
        f"{n:,} {word}{'' if n == 1 else 's'}" for n, word in ((len(dataset), "image"), (audit.n_patients, "patient"))
    )
    yield f"{power}X: {images} of the published {audit.full_set.n_patches:,}, of {patients} ({classes})."


# --- hold-outs -------------------------------------------------------------------------------------------------------


def hold_out_blocks(found, means, differences, options):
    """The five hold-outs: where they come from, rates, differences."""
    yield Heading("Patient hold-outs")
    for hold_outs, dataset in found:
        if hold_outs.folds:
            yield Text(fold_words(hold_outs, dataset))
    yield from leak_notices(found)
    not_run = not_run_lines([sentence for hold_outs, _ in found for sentence in hold_outs.not_run])
    if not_run:
        yield Notice("warning", "Not run", not_run)
    if not means:
        yield Text("No magnification has patients enough for hold-outs.")
        return
    yield Text(
        "Patient recognition rate: the share of a patient's images that are judged right, averaged over the tested "
        "patients. Image rate: the share of all tested images judged right. Mean and standard deviation over the "
        "hold-outs, percent. The rates know nothing of classes: the first row calls every image by the class that most "
        "training images have."
    )
    for rate in ("patient_rate", "image_rate"):
        yield rate_table(means, rate)
    yield Details("Balanced accuracy of the images", (rate_table(means, "balanced_accuracy"),))
    for power in dict.fromkeys(entry["magnification"] for entry in means):
        yield Picture(f"figures/rates_{power}X.svg", f"Patient recognition rate of each model at {power}X.",
                      f"{power}X: mean over the hold-outs; the line runs from the lowest to the highest.")  # fmt: skip
    yield Text(PUBLISHED)
    yield Text(comparable(found))
    yield from difference_blocks(differences, options)


def fold_words(hold_outs, dataset):
    """Where the hold-outs of a magnification come from, and their sizes."""
    sizes = [(fold["n_train"], fold["n_test"]) for fold in hold_outs.folds["folds"]]
    trained, tested = (span(side) for side in zip(*sizes, strict=True))
    kind = (
        "the published lists"
        if hold_outs.folds["published"]
        else f"not the published lists, {hold_outs.folds['origin']}"
    )
    return (
        f"{hold_outs.magnification}X: {len(dataset):,} images of {dataset.audit.n_patients:,} patients. Hold-outs: "
        f"{kind}; {trained} images to train on and {tested} to test on."
    )


def span(numbers):
    """The smallest and the largest, or the one that they all are."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def leak_notices(found):
    """Leaks of the lists that were accepted by name, and what the audit found."""
    leaks = [
        f"{hold_outs.magnification}X, hold-out {leak['fold']}: {leak['leak']}, {leak['what']}"
        for hold_outs, _ in found
        for leak in hold_outs.folds.get("leaks", ())
    ]
    if leaks:
        yield Notice("danger", "Patients on both sides", tuple(leaks))
    lines = {}
    for hold_outs, _ in found:
        for finding in hold_outs.findings:
            key = (finding["code"], finding["title"], finding["severity"])
            lines.setdefault(key, []).append(
                f"{hold_outs.magnification}X hold-out {finding['fold']}: {finding['detail']}"
            )
    if lines:
        items = tuple(
            (f"{code} {title} ({severity})", " ".join(where)) for (code, title, severity), where in lines.items()
        )
        yield Details("What the audit of the hold-outs found", (Facts(items),))


def not_run_lines(sentences):
    """Sentences that differ only in the hold-out become one."""
    lines = {}
    for sentence in sentences:
        who, _, why = sentence.partition(": ")
        model, _, fold = who.partition(", hold-out ")
        lines.setdefault((model, why), []).append(fold)
    return tuple(
        f"{model}{', hold-out ' + ', '.join(folds) if any(folds) else ''}: {why}"
        for (model, why), folds in lines.items()
    )


def rate_table(means, rate):
    """One row per model, one column per magnification: mean and standard deviation in percent."""
    powers = sorted({entry["magnification"] for entry in means})
    models = list(dict.fromkeys((entry["features"], entry["head"]) for entry in means))
    cells, best = [], set()
    for column, power in enumerate(powers):
        at = {(entry["features"], entry["head"]): entry for entry in means if entry["magnification"] == power}
        texts = [mean_and_sd(at.get(model), rate) for model in models]
        ranked = [(at[model][rate], row) for row, model in enumerate(models) if model in at and model != NOTHING]
        if len(ranked) > 1:
            best.add((max(ranked)[1], column + 3))
        cells.append(texts)
    widths = {(entry["features"], entry["head"]): f"{entry['n_features']:,}" for entry in means}
    rows = tuple((*model, widths[model], *texts) for model, *texts in zip(models, *cells, strict=True))
    columns = ("Features", "Head", "Columns", *(f"{power}X" for power in powers))
    caption = f"{RATE_WORDS[rate]}, percent, mean ± standard deviation over the hold-outs."
    return Table(caption, columns, rows, n_text=2, best=frozenset(best))


def mean_and_sd(entry, rate):
    """One cell."""
    if entry is None:
        return number(None)
    return f"{100 * entry[rate]:.1f} ± {100 * entry[f'{rate}_sd']:.1f}"


def comparable(found):
    """Whether these rates may be held against the published ones."""
    datasets = [dataset for _, dataset in found if dataset is not None]
    whole = all(dataset.audit.is_complete for dataset in datasets if not dataset.synthetic)
    published = all(hold_outs.folds["published"] for hold_outs, _ in found if hold_outs.folds)
    if any(dataset.synthetic for dataset in datasets) or not whole:
        return "The rates above are not comparable with it: these are not the images of that paper, or not all of them."
    if not published:
        return (
            "The rates above are of hold-outs of the same kind, but of our own: other patients are tested than in that "
            "paper."
        )
    return "The rates above are of the published hold-outs."


def difference_blocks(differences, options):
    """The table of corrected tests."""
    if not differences:
        return
    yield Heading("Differences between models")
    yield Text(
        f"Patient recognition rate less that of {options.reference}, on the same hold-outs. Hold-outs of the same "
        "patients overlap, so their differences are no independent sample: variance and t-test are corrected after "
        f"Nadeau and Bengio (doi:10.1023/A:1024068626366). Holm: adjusted for all {len(differences)} comparisons of "
        "the table. A dash: the difference is the same on every hold-out, which tells no uncertainty."
    )
    rows = tuple(
        (
            f"{entry['magnification']}X",
            entry["features"],
            entry["head"],
            f"{100 * entry['difference']:+.1f}",
            interval(entry["low"], entry["high"]),
            number(entry["p"], 4),
            number(entry["p_holm"], 4),
        )
        for entry in differences
    )
    columns = ("Magnification", "Features", "Head", "Difference", "95 % interval", "p", "p, Holm")
    yield Details("Every difference", (Table("Difference in percent points.", columns, rows, n_text=3),))
    small = [entry for entry in differences if entry["p_holm"] is not None and entry["p_holm"] < 0.05]
    yield Text(f"Below 0.05 after the adjustment: {len(small)} of {len(differences)}.")


def interval(low, high):
    """An interval of percent points."""
    return number(None) if low is None else f"{100 * low:+.1f} to {100 * high:+.1f}"


# --- what is ours ----------------------------------------------------------------------------------------------------


def closing(options):
    """What the protocol is, and what is ours."""
    yield Heading("What is the protocol, and what is ours")
    yield Text(
        "Of the protocol: five hold-outs of 70 % and 30 % of the patients, each magnification by itself, the patient "
        "recognition rate, completed LBP, LPQ, LBP, grey-level co-occurrence and PFTAS features, and the heads knn "
        "(one neighbour), qda, random_forest and svm. Ours: the parameters of features and heads, which are the "
        "library's defaults and were not tuned on these images; the other features and "
        "heads; who a patient is, where that is the slide number; the images of slide 13412, which lies under two "
        "subtypes "
        + {"drop": "(left out).", "published": "(kept, as published).", "refuse": "(refused)."}[options.duplicates]
        + " Keypoint features (ORB) are not covered. Intervals under folds of patients: whole patients are drawn with "
        f"replacement, {options.resamples:,} times."
    )


# --- figures ---------------------------------------------------------------------------------------------------------


def figures_of(rows, means, scored):
    """Rates of each magnification, and a confusion matrix for each evaluation."""
    from histofeat.reporting import draw_confusion, draw_intervals

    figures = {}
    for power in dict.fromkeys(entry["magnification"] for entry in means):
        bars = [rate_bar(entry, rows) for entry in means if entry["magnification"] == power]
        figures[f"rates_{power}X"] = (
            draw_intervals,
            {
                "title": f"Patient recognition rate, {power}X",
                "x_label": "patient recognition rate: mean, lowest and highest of the hold-outs",
                "reference": None,
                "rows": bars,
            },
        )
    for record in scored:
        if record["payload"] and record["payload"]["results"]:
            figures[figure_name(record)] = draw_confusion, confusion_of(record["payload"])
    return figures


def rate_bar(entry, rows):
    """One model at one magnification."""
    key = ("magnification", "features", "head")
    values = [row["patient_rate"] for row in rows if all(row[name] == entry[name] for name in key)]
    name = f"{entry['features']}, {entry['head']}"
    return {
        "name": name,
        "value": entry["patient_rate"],
        "low": min(values),
        "high": max(values),
        "group": entry["head"],
    }
