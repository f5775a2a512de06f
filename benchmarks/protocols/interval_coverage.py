"""How often the 95 % intervals contain the truth: patients resampled, and patches resampled, on simulated patients.

    python benchmarks/protocols/interval_coverage.py --overwrite

Fixed scores, as of a model that is not fitted again. Patients are drawn from a population that is written down here;
the true value of every metric comes from 100,000 of its patients. Each repetition draws new patients, makes the
interval with `histofeat.metrics.bootstrap_scores`, once with patients as units and once with patches, and looks
whether the true value lies inside. Writes reports/interval-coverage.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import Study, command_line, run_command, study_parser, write_study

PROGRAM = "interval_coverage.py"
METRICS = ("roc_auc", "f1", "balanced_accuracy", "brier")
PATCHES_PER_PATIENT = (5, 35)
PREVALENCE_LOGIT, SCORE_INTERCEPT, SCORE_DISTANCE = -0.85, -1.0, 2.0
TARGET = (0.92, 0.98)
#: What is resampled, and what is scored with it; the average over patients has patients as units only.
KINDS = {
    "patient": "pooled score, patients resampled",
    "patient_mean": "average over patients, patients resampled",
    "patch": "pooled score, patches resampled",
}
GROUPS = {"patient": "patients resampled", "patient_mean": "average over patients", "patch": "patches resampled"}


@dataclass(frozen=True)
class Setting:
    """How much patients differ, and how many there are.

    Parameters
    ----------
    name : str
    prevalence_sd : float
        Of the logit of a patient's share of positive patches.
    level_sd : float
        Of the logit of all scores of a patient: stain, scanner, tissue.
    distance_sd : float
        Of the distance between the two classes within a patient: easy and hard cases.
    n_patients : int
    """

    name: str
    prevalence_sd: float
    level_sd: float
    distance_sd: float
    n_patients: int

    def draw(self, n_patients, rng):
        """Labels, class probabilities and patient numbers of new patients."""
        import numpy as np
        from scipy.special import expit

        n_patches = rng.integers(PATCHES_PER_PATIENT[0], PATCHES_PER_PATIENT[1] + 1, n_patients)
        patients = np.repeat(np.arange(n_patients), n_patches)
        prevalence = expit(PREVALENCE_LOGIT + self.prevalence_sd * rng.normal(size=n_patients))
        level = SCORE_INTERCEPT + self.level_sd * rng.normal(size=n_patients)
        distance = SCORE_DISTANCE + self.distance_sd * rng.normal(size=n_patients)
        y = (rng.random(len(patients)) < prevalence[patients]).astype(np.int64)
        positive = expit(level[patients] + distance[patients] * y + rng.normal(size=len(patients)))
        return y, np.column_stack([1 - positive, positive]), patients


DIFFERENCES = {"none": (0.0, 0.0, 0.0), "medium": (1.0, 0.5, 0.5), "large": (2.0, 1.0, 1.0)}


def settings(n_patients):
    """Every amount of difference with every number of patients."""
    return [Setting(name, *sd, n) for name, sd in DIFFERENCES.items() for n in n_patients]


# --- the truth, and one repetition -----------------------------------------------------------------------------------


def truth(setting, n_patients, rng):
    """Score so many patients that chance no longer matters: {kind: {metric: value}}."""
    import numpy as np

    from histofeat.metrics import patient_averages, scores

    y, proba, patients = setting.draw(n_patients, rng)
    pooled = scores(y, proba)
    total, counted = dict.fromkeys(METRICS, 0.0), 0
    for start in range(0, n_patients, 500):  # patients are scored one by one, so that they can be taken in parts
        rows = slice(*np.searchsorted(patients, [start, start + 500]))
        part = patient_averages(y[rows], proba[rows], patients[rows], metrics=METRICS, n_resamples=0)
        counted += len(part.patients)
        for metric in METRICS:
            total[metric] += part.values[metric].sum()
    means = {metric: total[metric] / counted for metric in METRICS}
    return {"patient": pooled, "patch": pooled, "patient_mean": means}


def repetition(setting, number, options):
    """Draw patients once; {kind: {metric: (estimate, low, high)}}."""
    import numpy as np

    from histofeat.metrics import bootstrap_scores, patient_averages, scores

    place = list(DIFFERENCES).index(setting.name)
    y, proba, patients = setting.draw(
        setting.n_patients, np.random.default_rng([options.seed, place, setting.n_patients, number])
    )
    pooled = scores(y, proba)
    resampling = {"metrics": METRICS, "n_resamples": options.resamples, "random_state": number}
    found = {"patient": bootstrap_scores(y, proba, patients, **resampling)}
    if number < options.patch_repetitions:
        found["patch"] = bootstrap_scores(y, proba, np.arange(len(y)), **resampling)
    averages = patient_averages(y, proba, patients, **resampling)
    intervals = {
        kind: {metric: (pooled[metric], *resamples.interval(metric)) for metric in METRICS}
        for kind, resamples in found.items()
    }
    intervals["patient_mean"] = {metric: (averages.mean(metric), *averages.interval(metric)) for metric in METRICS}
    return intervals


def cover(setting, options):
    """Repeat; one row per kind and metric."""
    import numpy as np
    from joblib import Parallel, delayed

    place = list(DIFFERENCES).index(setting.name)
    true = truth(setting, options.population, np.random.default_rng([options.seed, place]))
    # Threads, as the loop over the patches lets go of the interpreter.
    runs = Parallel(n_jobs=options.n_jobs, prefer="threads")(
        delayed(repetition)(setting, number, options) for number in range(options.repetitions)
    )
    rows = []
    for kind in KINDS:
        for metric in METRICS:
            found = np.array([run[kind][metric] for run in runs if kind in run])
            rows.append(summary(setting, kind, metric, true[kind][metric], found))
    return rows


def summary(setting, kind, metric, true, found):
    """Share of intervals that contain the truth, with its Monte Carlo error, and on which side the others lie."""
    import numpy as np

    estimate, low, high = found.T
    n = len(found)
    coverage = float(np.mean((low <= true) & (true <= high)))
    return {
        "patients_differ": setting.name,
        "n_patients": setting.n_patients,
        "metric": metric,
        "kind": kind,
        "n_repetitions": n,
        "truth": float(true),
        "coverage": coverage,
        "mc_error": float(np.sqrt(coverage * (1 - coverage) / n)),
        "truth_below": float(np.mean(true < low)),
        "truth_above": float(np.mean(true > high)),
        "bias": float(estimate.mean() - true),
        "mean_width": float(np.mean(high - low)),
        "needed_width": float(2 * 1.96 * estimate.std(ddof=1)),
    }


# --- the page --------------------------------------------------------------------------------------------------------


def percent(row):
    """Coverage and its Monte Carlo error, in percent."""
    return f"{100 * row['coverage']:.1f} ± {100 * row['mc_error']:.1f}"


def find(rows, **wanted):
    """The row with these values."""
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def coverage_table(rows, kind, caption):
    """One row per setting, one column per metric."""
    from histofeat.reporting import METRIC_WORDS, Table

    chosen = [row for row in rows if row["kind"] == kind]
    pairs = list(dict.fromkeys((row["patients_differ"], row["n_patients"]) for row in chosen))
    cells = [
        (name, str(n), *(percent(find(chosen, patients_differ=name, n_patients=n, metric=m)) for m in METRICS))
        for name, n in pairs
    ]
    columns = ("Patients differ", "Patients", *(f"{METRIC_WORDS[metric]}, %" for metric in METRICS))
    return Table(caption, columns, tuple(cells))


def shape_table(rows):
    """Where the truth lies when it is missed, and how wide intervals are beside what estimates really vary."""
    from histofeat.reporting import METRIC_WORDS, Table

    cells = [
        (
            KINDS[row["kind"]],
            METRIC_WORDS[row["metric"]],
            row["patients_differ"],
            str(row["n_patients"]),
            f"{row['truth']:.4f}",
            f"{row['bias']:+.4f}",
            f"{row['mean_width']:.4f}",
            f"{row['needed_width']:.4f}",
            f"{100 * row['truth_below']:.1f}",
            f"{100 * row['truth_above']:.1f}",
        )
        for row in rows
    ]
    columns = ("Interval", "Metric", "Patients differ", "Patients", "Truth", "Bias of the estimate", "Mean width",
               "Width that 95 % needs", "Truth below, %", "Truth above, %")  # fmt: skip
    caption = "Needed width: 3.92 standard deviations of the estimates over the repetitions."
    return Table(caption, columns, tuple(cells), n_text=3)


def verdict(rows):
    """Say how often coverage is within the target, where it is not, and how the misses come about."""
    return tuple(_sentences(kind, [row for row in rows if row["kind"] == kind]) for kind in KINDS)


def _sentences(kind, rows):
    inside = [row for row in rows if TARGET[0] <= row["coverage"] <= TARGET[1]]
    words = (
        f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}: coverage between 92 and 98 % in {len(inside)} of {len(rows)} "
        f"cases; {_range([row for row in rows if row['patients_differ'] != 'none'])} where patients differ, "
        f"{_range([row for row in rows if row['patients_differ'] == 'none'])} where they are all alike."
    )
    widths = [row["mean_width"] / row["needed_width"] for row in rows]
    below, above = (sum(row[side] for row in rows) / len(rows) for side in ("truth_below", "truth_above"))
    words += (
        f" Intervals are {sum(widths) / len(widths):.2f} times as wide as 95 % needs ({min(widths):.2f} to "
        f"{max(widths):.2f}); the truth lies below in {100 * below:.1f} %, above in {100 * above:.1f} %."
    )
    outside = [row for row in rows if row not in inside]
    if not outside or kind == "patch":
        return words
    farthest = sorted(outside, key=lambda row: -abs(row["coverage"] - 0.95))[:4]
    return f"{words} Farthest outside: {'; '.join(map(_case, farthest))}."


def _range(rows):
    if not rows:
        return "not simulated"
    low, high = (100 * end(row["coverage"] for row in rows) for end in (min, max))
    return f"{low:.1f} to {high:.1f} %"


def _case(row):
    from histofeat.reporting import METRIC_WORDS

    words = f"{METRIC_WORDS[row['metric']]}, differences {row['patients_differ']}, {row['n_patients']} patients"
    return f"{words} ({percent(row)} %)"


def figure(rows, metric):
    """Coverage of one metric in all settings, for `draw_intervals`."""
    from histofeat.reporting import METRIC_WORDS

    shown = [row for row in rows if row["metric"] == metric]
    return {
        "title": f"{METRIC_WORDS[metric]}: how often the 95 % interval contains the truth",
        "x_label": "coverage, with the interval of the simulation's own error",
        "reference": 0.95,
        "rows": [
            {
                "name": f"differences {row['patients_differ']}, {row['n_patients']} patients",
                "value": row["coverage"],
                "low": row["coverage"] - 1.96 * row["mc_error"],
                "high": row["coverage"] + 1.96 * row["mc_error"],
                "group": GROUPS[row["kind"]],
            }
            for row in shown
        ],
    }


def method(options):
    """The paragraphs that say what was simulated."""
    low, high = PATCHES_PER_PATIENT
    levels = "; ".join(f"{name} {sd[0]:g}, {sd[1]:g}, {sd[2]:g}" for name, sd in DIFFERENCES.items())
    return (
        f"A patient has {low} to {high} patches. The logit of the share of positive ones is {PREVALENCE_LOGIT:g} plus "
        f"a normal effect of the patient. The logit of a patch's score is {SCORE_INTERCEPT:g} plus an effect of the "
        f"patient plus, where the patch is positive, {SCORE_DISTANCE:g} plus another effect of the patient, plus "
        f"standard normal noise. Standard deviations of the three effects: {levels}.",
        f"True values: {options.population:,} patients of the same population. {options.repetitions:,} repetitions "
        f"with {options.resamples:,} resamples each (the library's default is 2,000); patches are resampled in the "
        f"first {options.patch_repetitions:,} of them, as that takes far longer. ± is the Monte Carlo standard error "
        "of a coverage.",
    )


def page(rows, options):
    """The study from top to bottom."""
    from histofeat.reporting import METRIC_WORDS, Details, Heading, Notice, Picture, Text, draw_intervals

    pictures = {
        metric: Picture(
            f"figures/coverage_{metric}.svg",
            f"Coverage of the 95 % intervals of {METRIC_WORDS[metric]} in every setting.",
            f"{METRIC_WORDS[metric]}. The line is at 95 %.",
        )
        for metric in METRICS
    }
    rest = tuple(pictures[metric] for metric in METRICS[1:])
    blocks = (
        Text(
            "Fixed scores of simulated patients, so that the true values are known. The intervals say where the score "
            "of these fitted models lies for all patients of the kind; fitting again is not part of it."
        ),
        Notice("info", "Found", verdict(rows)),
        coverage_table(rows, "patient", "Pooled score, patients resampled: the intervals of every report."),
        coverage_table(rows, "patch", "Pooled score, patches resampled: what a bootstrap of rows gives."),
        coverage_table(rows, "patient_mean", "Average over the patients who have both classes, patients resampled."),
        pictures[METRICS[0]],
        Details("Figures of the other metrics", rest),
        Details("Bias, width and the side of the misses", (shape_table(rows),)),
        Heading("The simulation"),
        *map(Text, method(options)),
    )
    figures = {f"coverage_{metric}": (draw_intervals, figure(rows, metric)) for metric in METRICS}
    return blocks, figures


def run(options, command):
    """Simulate every setting and write the study."""
    import pandas as pd

    check(options)
    rows = []
    for setting in settings(options.patients):
        rows += cover(setting, options)
        seen = percent(find(rows, kind="patient", metric="roc_auc", **setting_key(setting)))
        print(f"differences {setting.name}, {setting.n_patients} patients: ROC-AUC covered {seen} %", flush=True)
    blocks, figures = page(rows, options)
    study = Study(
        title="Do the intervals cover? A simulation",
        blocks=blocks,
        results={"target": TARGET, "coverage": rows, "repetitions": options.repetitions,
                 "resamples": options.resamples, "population": options.population},
        tables={"coverage": pd.DataFrame(rows)},
        figures=figures,
    )  # fmt: skip
    print(write_study(study, options, command=command))


def check(options):
    """Refuse numbers that give no result."""
    least = {"repetitions": 2, "patch_repetitions": 2, "resamples": 1, "population": 500}
    given = [(name, getattr(options, name), low) for name, low in least.items()]
    given += [("patients", n_patients, 2) for n_patients in options.patients]
    for name, value, low in given:
        if value < low:
            raise ValueError(
                f"--{name.replace('_', '-')}: expected at least {low}, got {value}. Leave it out for the study."
            )


def setting_key(setting):
    """The columns that name a setting."""
    return {"patients_differ": setting.name, "n_patients": setting.n_patients}


def parser():
    """The options."""
    found = study_parser(PROGRAM, __doc__.splitlines()[0], "interval-coverage", data=False)
    add = found.add_argument
    add("--repetitions", type=int, default=1000, metavar="N", help="cohorts drawn in each setting (default: 1000)")
    add("--patch-repetitions", type=int, default=250, metavar="N", help="of which with patches resampled, too "
        "(default: 250)")  # fmt: skip
    add("--resamples", type=int, default=1000, metavar="N", help="resamples behind each interval (default: 1000)")
    add("--population", type=int, default=100_000, metavar="N", help="patients behind the true values "
        "(default: 100000)")  # fmt: skip
    add("--patients", type=int, nargs="+", default=[100, 200], metavar="N", help="patients of a cohort "
        "(default: 100 200)")  # fmt: skip
    return found


def main(arguments=None):
    """Run the study; returns the exit code."""
    options = parser().parse_args(arguments)
    command = command_line(f"protocols/{PROGRAM}", parser(), options)
    if options.quick:
        options.repetitions, options.patch_repetitions, options.resamples = 6, 3, 100
        options.population, options.patients = 1000, [100]
    return run_command(PROGRAM, lambda given: run(given, command), options)


if __name__ == "__main__":
    sys.exit(main())
