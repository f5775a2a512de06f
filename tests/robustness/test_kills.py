"""Kill extraction, fits, predictions and reports at random moments: nothing that was written is lost or half there.

``python tests/robustness/test_kills.py KILLS SEED`` prints what was found as JSON. One process loads everything once
and forks the runs that are killed, so that each of them starts at once.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

#: Kills of each stage, out of ten.
SHARES = {"extraction": 3, "fits": 3, "predictions": 2, "report": 2}
ATTEMPT = re.compile(rb"Attempt[ -]\d+[ -]of[ -]many", re.IGNORECASE)
TIME = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


class Stage:
    """Work that is killed and goes on: `run` does it in a folder, `check` looks at the folder after each kill."""

    resumes = True

    def __init__(self, folder):
        self.folder, self.attempt, self.tell = folder, 0, lambda: None

    def start(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.kept = 0

    def check(self):
        """Give how much is kept: it never shrinks."""
        kept = self.count()
        assert kept >= self.kept, f"{self.kept} were kept, {kept} are left"
        self.kept = kept


class Extraction(Stage):
    def __init__(self, folder, cohort):
        super().__init__(folder)
        self.images = cohort.X

    def run(self):
        from histofeat.features import ColorHistogram, LBPHistogram, extract

        told = {"progress": lambda *_: self.tell(), "store": self.folder / "s.sqlite", "n_jobs": 2}
        found = extract([ColorHistogram(), LBPHistogram()], self.images, **told)
        measured = sum(found.computed.values())
        assert measured == 2 * len(self.images) - self.kept, "what is stored is not measured again"
        return [block.tobytes() for block in found.features]

    def count(self):
        from histofeat.features import FeatureStore

        path = self.folder / "s.sqlite"
        return sum(entry.n_images for entry in FeatureStore(path).entries()) if path.exists() else 0


class Fits(Stage):
    def __init__(self, folder, cohort, store):
        super().__init__(folder)
        self.cohort, self.store = cohort, store

    def run(self):
        from sklearn.ensemble import RandomForestClassifier

        from histofeat.evaluation import evaluate, save_evaluation
        from histofeat.features import Runtime
        from histofeat.model_selection import PatientKFold
        from histofeat.models import FeatureHead, IDCPipeline

        forest = FeatureHead(RandomForestClassifier(10, random_state=0))
        pipelines = {"both": IDCPipeline(("lbp", "color"), forest)}
        told = Runtime(2, self.store, lambda stage, *_: self.tell() if stage == "fit" else None, fits=self.folder)
        folds = {"cv": PatientKFold(5), "inner_cv": PatientKFold(2), "n_resamples": 0}
        found = evaluate(self.cohort, pipelines, runtime=told, **folds)
        save_evaluation(found, self.folder.with_suffix(".evaluation"), overwrite=True)
        return [block.tobytes() for model in found.models for block in (model.proba, model.calibrated)] + [
            repr((model.scores, model.thresholds, model.notes)) for model in found.models
        ]

    def count(self):
        return len(list(self.folder.glob("*.fit")))


class Predictions(Stage):
    def __init__(self, folder, cohort, model):
        super().__init__(folder)
        self.n_rows = len(cohort)
        self.words = ["predict", str(model), str(cohort.root), "-o", str(folder / "scores.csv"), "--quiet"]

    def run(self):
        from histofeat import cli, evaluation
        from histofeat.cli import _prediction as prediction

        take_up = evaluation.take_up
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prediction, "_SHARD", 20)
            patch.setattr(evaluation, "take_up", lambda *given: self.tell() or take_up(*given))
            assert cli.main(self.words) == 0
        assert not (self.folder / "scores.csv.partial").exists()
        return [(self.folder / "scores.csv").read_bytes()]

    def check(self):
        table = self.folder / "scores.csv"
        if table.exists():  # killed after the table was complete: the next run begins anew
            assert len(table.read_text(encoding="utf-8").splitlines()) == self.n_rows + 1
            self.start()
        else:
            super().check()

    def count(self):
        return len(list(self.folder.glob("scores.csv.partial/*.part")))


class Report(Stage):
    resumes = False  # it is written again

    def __init__(self, folder, evaluation):
        super().__init__(folder)
        self.evaluation = evaluation

    def run(self):
        from histofeat.evaluation import load_evaluation
        from histofeat.reporting import write_report

        title = f"Attempt {self.attempt} of many"
        write_report(load_evaluation(self.evaluation), self.folder / "out", overwrite=True, title=title, environment={})
        files = sorted(path for path in (self.folder / "out").rglob("*") if path.is_file())
        # The title, and the id that the page makes of it.
        return [ATTEMPT.sub(b"", TIME.sub(b"", path.read_bytes())) for path in files]

    def count(self):
        out = self.folder / "out"
        if not out.exists():
            return 0
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        assert all((out / name).is_file() for name in metrics["files"]), "a file of the report is missing"
        assert len([path for path in out.rglob("*") if path.is_file()]) == len(metrics["files"])
        for name in ("report.md", "report.html"):
            text = (out / name).read_text(encoding="utf-8")
            assert set(re.findall(r"Attempt \d+ of many", text)) == {metrics["title"]}, "two reports in one folder"
        return 1


def fork(stage):
    """Start a run in a child; give its number and the pipe on which it writes the moment of each step."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    stage.tell = lambda: os.write(writer, f"{time.monotonic()}\n".encode()) and None
    status = 1
    try:
        stage.run()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def kill_once(stage, after_s):
    """Run a stage, kill it; give the seconds that it ran and those since its last step, None where it ended before."""
    stage.attempt += 1
    began = time.monotonic()
    child, reader = fork(stage)
    steps, ended = [], False
    while not ended and time.monotonic() < began + after_s:
        if select.select([reader], [], [], max(0.0, began + after_s - time.monotonic()))[0]:
            part = os.read(reader, 1 << 16)
            steps += [float(moment) for moment in part.split()]
            ended = not part
    if not ended:
        os.kill(child, signal.SIGKILL)
    killed = time.monotonic()
    _, status = os.waitpid(child, 0)
    os.close(reader)
    stage.check()
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "a run that was not killed failed"
        return None
    return killed - began, killed - max([began, *steps])


def kill_stage(stage, n_kills, rng):
    """Kill a stage a number of times; give the share of its seconds that was lost."""
    stage.start()
    expected = stage.run()  # not killed: what is right
    stage.start()
    began = time.monotonic()
    assert stage.run() == expected, "two runs without a kill differ"
    whole_s, ran, lost, n_done = time.monotonic() - began, 0.0, 0.0, 0
    stage.start()
    while n_done < n_kills:
        times = kill_once(stage, rng.uniform(0, whole_s))
        if times is None:
            assert not stage.resumes or stage.run() == expected, "what was resumed differs"
            stage.start()
            continue
        ran, lost, n_done = ran + times[0], lost + times[1], n_done + 1
    assert stage.run() == expected, "what was resumed differs"
    stage.check()
    per_kill = {"ran_s": ran / n_done, "lost_s": lost / n_done, "whole_s": whole_s}
    return {"kills": n_done, "lost": round(lost / ran, 3), **{name: round(s, 3) for name, s in per_kill.items()}}


def main(n_kills, seed):
    from histofeat import IDCPipeline, make_cohort
    from histofeat.models import save_model

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="histofeat-kills-") as scratch:
        folder = Path(scratch)
        cohort = make_cohort(10, 20 if n_kills < 100 else 150, root=folder / "tree")
        fits = Fits(folder / "fits", cohort, folder / "store.sqlite")
        stages = {"extraction": Extraction(folder / "extraction", cohort), "fits": fits}
        save_model(IDCPipeline("color", "qda").fit(cohort.X, cohort.y), folder / "model.histofeat")
        stages["predictions"] = Predictions(folder / "predictions", cohort, folder / "model.histofeat")
        stages["report"] = Report(folder / "report", folder / "fits.evaluation")
        found = {name: kill_stage(stages[name], n_kills * share // 10, rng) for name, share in SHARES.items()}
        left = [path.name for path in folder.rglob("*") if path.name.endswith(".partial")]
        assert not left, f"left behind: {left}"
    return found


def run(n_kills, seed, timeout_s):
    command = [sys.executable, __file__, str(n_kills), str(seed)]
    # One thread each: a pool of OpenMP does not survive a fork.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.mark.long
def test_two_hundred_kills_lose_nothing_that_was_written(capsys):
    """Long: minutes. The suite kills extraction and prediction in their wings, and the writer of fits and reports."""
    found = run(200, 1, timeout_s=1800)
    with capsys.disabled():
        for name, stage in found.items():
            sys.stdout.write(
                f"\n{name}: {stage['kills']} kills; of {stage['ran_s']} s that a run had, {stage['lost_s']} s are lost "
                f"({100 * stage['lost']:.0f} %); without a kill it takes {stage['whole_s']} s"
            )
    assert sum(stage["kills"] for stage in found.values()) == 200


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))) + "\n")
