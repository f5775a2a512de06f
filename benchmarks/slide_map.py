"""Train a model, map one patient that it has not seen, and keep the picture and the numbers.

    python benchmarks/slide_map.py --output reports/slide-map-synthetic
    python benchmarks/slide_map.py --data /path/to/idc /path/to/idc_second --patient /path/to/idc_slides/8864

Without data, the patient is the one of a synthetic cohort with the largest share of tumour. With data of IDC, the model
is trained on patients outside the official test set, the map of a patient of it is a look and adds to
reports/test_ledger.csv, and no pixel of tissue is drawn.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from study import REPOSITORY, call, run_command

KEPT = ("map.json", "map.png")
FAMILIES = "color,lbp,haralick,pftas,fuzzy_color,glcm,clbp,lpq"


def make_parser():
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="slide_map.py", description="Train a model and map a patient.")
    add = parser.add_argument
    add("--data", nargs="+", type=Path, metavar="DIR", help="IDC (default: a synthetic cohort)")
    add("--patient", type=Path, metavar="DIR", help="folder of the patient; with --data")
    add("--output", type=Path, default=REPOSITORY / "reports/slide-map", metavar="DIR", help="the folder to write")
    add("--quick", action="store_true", help="a small cohort and one family: to see that it runs")
    add("--overwrite", action="store_true", help="replace a finished map")
    return parser


def main(arguments=None):
    """Make the map; returns the exit code."""
    return run_command("slide_map.py", run, make_parser().parse_args(arguments))


def run(options):
    """Train on all but the patient, map it, keep the picture and its numbers."""
    if (options.data is None) != (options.patient is None):
        raise ValueError("--patient: expected it together with --data, got one of them. Give both, or neither.")
    if not options.overwrite and (options.output / KEPT[0]).exists():
        raise ValueError(f"--output: expected a new folder, got {options.output}. Give another one, or --overwrite.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data, patient, training = (real if options.data else synthetic)(options, folder)
        (folder / "training.txt").write_text("\n".join(training) + "\n", encoding="utf-8")
        model, made = str(folder / "model.histofeat"), folder / "map"
        chosen = ["--only", str(folder / "training.txt"), "--threshold", "f1"]
        chosen += ["--features", "color", "--folds", "2"] if options.quick else ["--features", FAMILIES]
        train = [*map(str, data), *chosen, "--output", model]
        draw = [model, str(patient), "--output", str(made), *(["--no-tissue"] if options.data else [])]
        steps = ("train", train, False), ("map", draw, True)
        for command, given, looks in steps:
            if call(command, given, looks=looks, beside=False):
                raise ValueError(f"histofeat {command} failed. Its error stands above.")
        options.output.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copyfile(made / name, options.output / name)


def real(options, folder):
    """Give the data, the patient, and the ids outside the official test set without the patient's."""
    from histofeat.datasets import load_idc
    from histofeat.studies import development_patients

    training = development_patients(load_idc(options.data)).patients
    return options.data, options.patient, sorted({*training} - {options.patient.name})


def synthetic(options, folder):
    """Draw a cohort; give it, the folder of its patient with the largest share of tumour, and the ids of the others."""
    from histofeat.datasets import make_cohort

    cohort = make_cohort(*((8, 40) if options.quick else (40, 900)), root=folder / "cohort", random_state=0)
    shares = cohort.frame.groupby("patient")["label"].mean()
    patient = shares.idxmax()
    return [cohort.root], cohort.root / patient, sorted({*shares.index} - {patient})


if __name__ == "__main__":
    sys.exit(main())
