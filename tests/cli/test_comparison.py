"""`histofeat compare` and `histofeat report`: a run on other formats, its page again, refusals before any image."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from test_known_patients import Memory

from histofeat import FeatureStore, IDCPipeline, cli, make_breakhis_cohort
from histofeat.cli import _comparison as comparison
from histofeat.metrics import rule_examples
from histofeat.models import HEADS
from histofeat.studies import FEATURE_SETS

QUICK = ["--quick", "--heads", "logistic", "--folds", "3", "--resamples", "50", "--no-store", "--features", "color"]


@pytest.fixture
def main(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *words: cli.main(list(map(str, words)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quick run on the synthetic cohort, with its panel of shortcuts."""
    folder = tmp_path_factory.mktemp("finished")
    assert cli.main(["compare", *QUICK, "--output", str(folder / "mine")]) == 0
    return folder / "mine"


def read(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_the_help_names_every_set_head_and_rule(capsys):
    assert cli.main(["compare", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert set(FEATURE_SETS) <= set(shown.replace(",", "").replace("(", "").replace(")", "").split())
    assert ", ".join(HEADS) == comparison._HEADS
    assert rule_examples() in shown
    assert "its X is an array of paths of images, of embeddings a DataFrame." in shown


def test_inner_fits_on_few_patches_are_named_in_the_record_and_on_the_page(main, finished):
    assert main("compare", *QUICK, "--no-shortcuts", "--inner-patches", "3", "--output", "few") == 0
    words = "Inner fits are on at most 3 patches of a patient."
    assert words in Path("few/report.md").read_text(encoding="utf-8").replace("\n", " ")
    assert read(Path("few"))["protocol"]["inner_patches"] == 3
    # By default nobody here has more patches than the limit, and nothing is said.
    assert words[:13] not in (finished / "report.md").read_text(encoding="utf-8")
    assert read(finished)["protocol"].keys() == read(Path("few"))["protocol"].keys() - {"inner_patches"}


def test_without_an_output_the_report_lies_below_the_current_folder(main, tmp_path, capsys):
    assert main("compare", *QUICK, "--no-shortcuts", "--json") == 0
    (folder,) = (path for path in (tmp_path / "histofeat-reports").iterdir() if path.is_dir())
    assert folder.name.startswith("synthetic-20")
    assert (folder / "report.html").is_file()
    assert folder.with_name(f"{folder.name}.evaluation").is_file()
    printed = json.loads(capsys.readouterr().out)
    assert printed["report"] == str(folder.relative_to(tmp_path) / "report.html")
    assert printed["results"][0]["name"] == "color"
    before = (folder / "predictions.parquet").read_bytes()
    assert main("compare", "--config", folder / "run.toml", "--output", "again") == 0
    assert Path("again/predictions.parquet").read_bytes() == before


@pytest.mark.parametrize("kind", ["breakhis", "folder"])
def test_the_report_of_other_formats_has_no_words_of_idc(kind, main, cohort, tmp_path, capsys):
    data, options = tmp_path / "data", ["--patients", "(?:^|/)([0-9]+)_idx5"]
    if kind == "breakhis":
        made = {"patients_per_subtype": 3, "images_per_slide": 2, "magnifications": (40, 100)}
        data, options = make_breakhis_cohort(root=data, **made).root, ["--magnification", 100]
    else:
        for path, label in zip(cohort.X, cohort.y, strict=True):
            place = data / ("normal", "tumour")[label] / Path(path).name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(path)
    assert main("compare", data, *options, *QUICK, "--no-shortcuts", "--output", "out") == 0
    assert " ".join(map(str, ["histofeat compare data", *options])) in read(tmp_path / "out")["command"]
    assert "IDC" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    dataset = read(tmp_path / "out")["dataset"]
    assert capsys.readouterr().out.startswith(f"{dataset['name']}: ")
    assert dataset["n_patches"] < 200


def test_a_page_again_from_the_folder_or_the_kept_evaluation(finished, main, capsys):
    kept, before = finished.with_name("mine.evaluation"), read(finished)
    assert main("report", finished, "--output", "again", "--gallery", 1) == 0
    assert (Path("again") / "galleries" / "gallery.html").is_file()
    again = read(Path("again"))
    for part in ("results", "comparison", "folds", "protocol", "dataset", "command", "environment", "audit"):
        assert again[part] == before[part]
    shortcuts = [folder / "shortcuts.json" for folder in (finished, Path("again"))]
    assert shortcuts[0].read_bytes() == shortcuts[1].read_bytes()
    assert main("report", kept) == 2
    assert "holds a finished report. Choose another name, or pass --overwrite" in capsys.readouterr().err
    assert main("report", kept, "--overwrite", "--no-shortcuts") == 0
    assert not shortcuts[0].exists()


def test_a_page_with_pseudonyms_keeps_them_when_it_is_written_again(main, tmp_path):
    """Who repeats a report may have passed the folder on as one without ids."""
    assert main("compare", *QUICK, "--no-shortcuts", "--output", "out", "--pseudonyms") == 0
    assert main("report", "out", "--overwrite", "--no-shortcuts") == 0
    ids = set(pd.read_csv(tmp_path / "out" / "patients.csv", dtype=str)["patient"])
    assert ids
    assert all(name.startswith("patient ") for name in ids)
    assert read(tmp_path / "out")["pseudonyms"] is True
    assert main("report", "out", "--output", "own", "--no-shortcuts") == 0  # another folder, as it was asked for
    assert read(tmp_path / "own")["pseudonyms"] is False
    for more in (["--pseudonyms"], []):
        assert main("report", "out", "--output", "own", "--overwrite", "--no-shortcuts", *more) == 0
        assert read(tmp_path / "own")["pseudonyms"] is True


def test_a_page_with_pseudonyms_is_not_replaced_by_one_with_ids(main, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text('{"pseudonyms": true}')
    assert main("compare", *QUICK, "--output", "out", "--overwrite") == 2
    said = "--pseudonyms: expected some, as the report in 'out' that is replaced has them, got none. Ask for them, or"
    assert said in capsys.readouterr().err
    monkeypatch.setattr(comparison, "open_runtime", lambda *_: 1 / 0)  # what follows the checks
    for more in ("--pseudonyms", "--output=other"):
        with pytest.raises(ZeroDivisionError):
            main("compare", *QUICK, "--output", "out", "--overwrite", more)


def test_a_run_that_ended_before_its_page_gets_one(finished, main, tmp_path, capsys):
    kept = tmp_path / "ended.evaluation"
    kept.write_bytes(finished.with_name("mine.evaluation").read_bytes())
    assert main("report", kept) == 2  # the cohort of that run is gone
    assert ".png" in capsys.readouterr().err
    assert main("report", kept, "--no-shortcuts") == 0
    assert (tmp_path / "ended" / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere.evaluation: expected the file of a saved evaluation, got no such file"),
        (["nowhere", "--gallery", 0], "--gallery: expected a whole number of at least 1, got 0"),
    ],
)
def test_no_report_without_a_run(main, tmp_path, capsys, words, message):
    assert main("report", *words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_network(tmp_path):
    """Options of a network whose file of weights holds none."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mobilenet_2_5_224_tf_no_top.h5").write_bytes(b"no weights")
    return ["--encoder", "mobilenet_0.25", "--weights", "weights"]


def test_one_table_holds_ours_a_pipeline_embeddings_and_predictions(main, no_network, tmp_path, cohort, capsys):
    (tmp_path / "my_models.py").write_text('from histofeat import IDCPipeline\ngood = IDCPipeline("lbp", "logistic")')
    (tmp_path / "broken_models.py").write_text("1 / 0")
    (tmp_path / "quit_models.py").write_text("raise SystemExit(0)")
    words = ["compare", cohort.root, *QUICK[:-1], "color,cnn", *no_network, "--no-shortcuts", "--output", "out"]
    words += ["--pipeline"]
    for given, message in {
        "good": "--pipeline: expected NAME=MODULE:OBJECT, got 'good'. Write MINE=my_models:pipeline.",
        "mine=nowhere_models:good": "expected an object good in the module nowhere_models, got ModuleNotFoundError",
        "mine=my_models:bad": "expected an object bad in the module my_models, got AttributeError",
        "mine=broken_models:good": "got ZeroDivisionError: division by zero. Try python -c 'import broken_models'",
        "mine=quit_models:good": "an object good in the module quit_models, got SystemExit: 0",
        "mine=my_models:IDCPipeline": ">. Give one; its X is an array of paths of images",
    }.items():
        assert main(*words, given) == 2
        assert message in capsys.readouterr().err
        assert not Path("out").exists()
    table = pd.DataFrame({"path": cohort.relative_paths, "f0": cohort.y + 0.5, "f1": 1.0})
    table.to_csv("embeddings.csv", index=False)
    table.assign(score=0.25 + 0.5 * cohort.y).to_parquet("scores.parquet")
    given = ["mine=my_models:good", "--embeddings", "uni=embeddings.csv", "--predictions"]
    table[1:].assign(score=0.5).to_csv("short.csv", index=False)
    for wrong, message in {
        "net": "--predictions: expected NAME=FILE that exists, got 'net'. Write MINE=my_file.csv.",
        "net=nowhere.csv": "--predictions: expected NAME=FILE that exists, got 'net=nowhere.csv'",
        "net=short.csv": "expected probabilities from 0 to 1 of each tested patch, got others or none for",
    }.items():
        assert main(*words, *given, wrong) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert "extract" not in printed.err
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(*words, *given, "net=scores.parquet") == 0
    printed = capsys.readouterr()
    assert "histofeat: warning: not run: cnn, logistic: weights/mobilenet" in printed.err
    assert "not run: cnn, logistic: " in printed.out
    metrics = read(Path("out"))
    models = {(result["name"], result["head"]): result for result in metrics["results"]}
    assert list(models) == [("color", "logistic"), ("mine", "logistic"), ("uni", "logistic"), ("net", "predictions")]
    assert models["uni", "logistic"]["roc_auc"]["value"] == models["net", "predictions"]["roc_auc"]["value"] == 1.0
    assert len(metrics["comparison"]["rows"]) == 3
    assert "--pipeline mine=my_models:good --embeddings uni=embeddings.csv" in metrics["command"]


@pytest.fixture(scope="module")
def extracted(cohort, tmp_path_factory):
    """A table of `histofeat extract`, which is embeddings as any other."""
    file = tmp_path_factory.mktemp("extracted") / "uni.parquet"
    assert cli.main(["extract", str(cohort.root), "--features", "color", "--quiet", "-o", str(file)]) == 0
    return file


def test_embeddings_alone_are_data(extracted, main, capsys):
    words = ["--heads", "logistic", "--folds", 2, "--resamples", 20, "--no-store"]
    assert main("compare", extracted, *words, "--output", "out") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("uni: 180 patches of ")
    assert "not applicable without images: shortcuts, gallery" in printed.out
    assert "not run" not in printed.out + printed.err
    assert [result["name"] for result in read(Path("out"))["results"]] == ["uni"]
    assert main("report", "out", "--overwrite", "--gallery", 2) == 0
    assert "not applicable without images: shortcuts, gallery" in capsys.readouterr().out
    assert not Path("out/shortcuts.json").exists()
    assert main("audit", extracted) == 0
    assert "uni: 180 patches of " in capsys.readouterr().out


def test_labels_and_patients_of_embeddings_come_from_options(extracted, main, capsys):
    table = pd.read_parquet(extracted)
    table.drop(columns=["label", "patient"]).to_csv("bare.csv", index=False)
    table[["path", "label"]].to_csv("labels.csv", index=False)
    words = ["audit", "bare.csv", "--format", "embeddings"]
    assert main(*words) == 2
    assert "--patients: expected a rule, since" in capsys.readouterr().err
    assert main(*words, "--patients", "folder") == 2
    assert 'Add a column label, or a table of them, --labels "labels.csv".' in capsys.readouterr().err
    assert main(*words, "--patients", r"/(\d+)_", "--labels", "labels.csv") == 0
    assert "bare: 180 patches of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "-o", "m"], "train: expected images, got 'uni', which has columns instead, so that this is not app"),
        (["study", "explanation"], "so that this is not applicable. Give the images, or leave out what needs them."),
        (["extract", "-o", "m.csv"], "extract: expected images, got 'uni', which has columns instead"),
        (["study", "shortcuts"], "study shortcuts of handcrafted, everything: expected images, got 'uni', which"),
        (["study", "leakage", "--features", "lbp"], "study leakage of lbp: expected images, got 'uni', which has"),
        (["compare", "--encoder", "resnet50"], "--encoder: expected the family cnn among the features, got none. Add"),
        (["audit", "--magnification", "40"], "--magnification: expected none for data of the format 'embeddings'"),
    ],
)
def test_what_needs_images_refuses_embeddings_by_name(words, message, extracted, main, tmp_path, capsys):
    assert main(*words, extracted) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_of_nothing_is_an_error(main, no_network, capsys):
    assert main("compare", *QUICK[:-1], "cnn", *no_network, "--no-shortcuts", "--output", "out") == 2
    assert "expected one that can run here, got none. cnn, logistic: weights/mobilenet" in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_store_is_in_the_user_s_cache_unless_another_or_none_is_asked_for(tmp_path, monkeypatch, capsys):
    from histofeat.cli._options import RunOptions

    ctx = SimpleNamespace(command_path="histofeat compare", command=SimpleNamespace(params=[]), params={}, obj={})

    def opened(**options):
        return comparison.open_runtime(ctx, RunOptions(**options), None).store

    monkeypatch.setenv("OMP_WAIT_POLICY", "x")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert opened() == FeatureStore(tmp_path / "cache" / "histofeat" / "features.sqlite")
    assert opened(store=tmp_path / "here.sqlite") == FeatureStore(tmp_path / "here.sqlite")
    assert opened(no_store=True) is None
    assert capsys.readouterr().err == ""
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))
    assert opened() is None
    assert "no feature store, everything is measured again: FeatureStore(" in capsys.readouterr().err


def test_the_report_names_every_network_that_ran_and_where():
    class Network(Memory):
        engine_note_ = "Some engine on the CPU, as asked for."

    class Other(Network):
        family, encoder = "cnn", "resnet50"

    pipelines = [("a", IDCPipeline((Network(),), "svm")), ("b", IDCPipeline(("color", Other()), "svm"))]
    pipelines.append(("c", IDCPipeline("color", "svm")))

    def words(*names):
        models = [SimpleNamespace(name=name) for name in names]
        return comparison.device_words(SimpleNamespace(models=models), pipelines)

    assert words("a", "b", "c") == "memory, cnn (resnet50): Some engine on the CPU, as asked for."
    assert words("b") == "cnn (resnet50): Some engine on the CPU, as asked for."
    assert words("c") == words() == "CPU"


@pytest.mark.parametrize(("counts", "rest"), [({"color": 4}, False), ({"color": 4, "lbp": 0}, True), ({}, False)])
def test_a_rest_in_the_store_is_said_where_there_is_one(counts, rest, capsys):
    frame = pd.DataFrame({"name": ["a"]})
    dataset = SimpleNamespace(synthetic=True, lacks_images=False)
    gone = [{"name": name, "head": "svm", "reason": "Why." if name == "b" else "No."} for name in "abc"]
    device = "cnn (resnet50): OpenVINO." if rest else "CPU"
    record = {"not_run": gone, "answer": {"sentences": ["Recommended: a."]}, "environment": {"device": device}}
    found = SimpleNamespace(dataset=Four(**vars(dataset)), to_frame=lambda: frame, planned=None)
    found.__dict__.update(computed=counts, seconds={"extraction": 0.0}, protocol={"registered": None})
    comparison._print(found, record, Path("page"), stored=True)
    printed = capsys.readouterr().out
    assert printed.startswith("not run: a, svm; c, svm: No.\nnot run: b, svm: Why.\nSYNTHETIC")
    assert "\nRecommended: a.\n" in printed
    assert ("(the rest came from the store)" in printed) == rest
    assert f"\nnetworks: {device}\n" in printed


class Four(SimpleNamespace):
    """Something of four rows."""

    def __len__(self):
        return 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train-patches", 0], "--train-patches: expected a whole number of at least 1, got 0. Use 500."),
        (["--train-patches", 9, "--repeats", 2], "--repeats: expected a whole number from 1 to 1, got 2. Leave it out"),
    ],
)
def test_limits_that_do_not_fit_are_refused_before_data_are_read(main, capsys, words, said):
    assert main("compare", "nowhere", *words) == 2
    assert said in capsys.readouterr().err
