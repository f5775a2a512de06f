"""What a user of the five systems gets here: every call of the table in docs/coming-from-other-systems.md, run."""

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

import histofeat
from histofeat import (
    CNNClassifier,
    IDCPipeline,
    PatientKFold,
    evaluate,
    load_breakhis,
    load_idc,
    load_image_folder,
    load_model,
    make_breakhis_cohort,
    make_cohort,
    predict_images,
    save_model,
    split_dataset,
    write_report,
)
from histofeat.cli import main
from histofeat.metrics import class_scores
from histofeat.networks import ARCHITECTURES

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from-other-systems.md").read_text()
TABLE = re.search(r"<!-- parity:begin -->\n(.*?)<!-- parity:end -->", PAGE, flags=re.DOTALL)[1]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE.splitlines()[2:]]
#: What the functions below run, filled by `shows`.
SHOWN: set[str] = set()
TINY = {"epochs": 2, "recipe": {"batch_size": 8}, "validation_fraction": 0.3}


def shows(*got):
    """Say which cells of the table's middle column a test stands for."""
    SHOWN.update(got)
    return lambda test: test


def test_every_row_is_tested_and_names_what_exists():
    assert len(ROWS) > 20
    assert {got for _, got, _ in ROWS} == SHOWN
    for _, _, call in ROWS:
        for name in re.findall(r"\b([a-zA-Z_]+)\(", call):
            assert hasattr(histofeat, name) or name in ("fit", "class_scores"), name


@pytest.fixture(scope="module")
def idc(tmp_path_factory):
    return make_cohort(n_patients=12, patches_per_patient=8, root=tmp_path_factory.mktemp("idc"))


@pytest.fixture(scope="module")
def breakhis(tmp_path_factory):
    root = tmp_path_factory.mktemp("breakhis")
    return make_breakhis_cohort(3, images_per_slide=1, magnifications=(100,), root=root)


@pytest.fixture(scope="module")
def evaluation(idc):
    pytest.importorskip("keras", reason="keras is not installed")
    pipelines = {
        "cancernet": IDCPipeline(features="pixels", head=CNNClassifier("cancernet", class_weight="balanced", **TINY)),
        "color": IDCPipeline(features="color", head="logistic"),
    }
    return evaluate(idc, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=50)


@pytest.fixture(scope="module")
def report(evaluation, tmp_path_factory):
    output = tmp_path_factory.mktemp("report") / "out"
    write_report(evaluation, output, gallery=4)
    return output


@shows("the folder of patches")
def test_idc_folder(idc):
    assert len(load_idc(idc.root)) == len(idc)


@shows("class weights", "augmentation", "the network and its training: Adagrad, 40 epochs, class weights")
def test_parameters_of_training():
    network = CNNClassifier("cancernet", recipe="published", class_weight="balanced")
    published = ARCHITECTURES["cancernet"].recipes[network.recipe]
    assert (published.optimizer, published.learning_rate, published.batch_size) == ("adagrad", 1e-2, 32)
    assert published.epochs == 40
    assert network.get_params()["class_weight"] == "balanced"


@shows("an ImageNet ResNet, fine-tuned with one-cycle", "DenseNet201, fine-tuned", "a frozen ResNet and a head")
@pytest.mark.long
def test_pretrained_networks_are_fine_tuned(idc, tmp_path):
    keras = pytest.importorskip("keras", reason="keras is not installed")
    base = keras.applications.MobileNet(include_top=False, weights=None, alpha=0.25, input_shape=(64, 64, 3))
    base.save_weights(tmp_path / "base.weights.h5")
    assert {"resnet50", "densenet201"} <= set(ARCHITECTURES)
    for fine_tune in ("last_blocks", "head"):
        network = CNNClassifier(
            "mobilenet_0.25",
            weights=tmp_path / "base.weights.h5",
            input_size=64,
            **TINY | {"recipe": {"batch_size": 8, "schedule": "one_cycle", "fine_tune": fine_tune}},
        )
        assert network.fit(idc.X, idc.y, groups=idc.patients).predict_proba(idc.X[:3]).shape == (3, 2)
        frozen = [np.array_equal(was, now) for was, now in zip(base.get_weights(), network.weights_, strict=False)]
        assert all(frozen) == (fine_tune == "head")


@shows("report and confusion matrix", "ROC curve")
@pytest.mark.slow
def test_report_has_confusion_and_roc(report):
    figures = {path.stem for path in (report / "figures").glob("*.svg")}
    assert any("confusion" in name for name in figures)
    assert any("roc" in name for name in figures)
    assert "cancernet" in (report / "report.md").read_text()


@shows("top losses", "gallery of right and wrong images")
@pytest.mark.slow
def test_galleries(report):
    page = (report / "galleries" / "gallery.md").read_text()
    assert "right" in page
    assert "most confident" in page
    assert list((report / "galleries" / "images").glob("*.png"))


@shows(
    "train, validation and test folders, 80/20 with 10 % of train for validation",
    "`train/{benign,malignant}`, `validation/...`",
)
@pytest.mark.filterwarnings("error")
def test_split_into_folders_and_back(breakhis, tmp_path):
    split = split_dataset(breakhis, test_size=0.2, validation_size=0.2, write_to=tmp_path / "split", mode="copy")
    back = load_image_folder(tmp_path / "split", patients=r"^([^/]+)/")
    assert len(back) == len(breakhis)
    assert set(back.frame["part"]) == {"train", "validation", "test"}
    assert not split.shared_patients


@shows("loss and accuracy per epoch")
@pytest.mark.slow
def test_history(evaluation):
    for history in evaluation.models[0].histories:
        assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(history)
        assert len(history["loss"]) == TINY["epochs"]


@shows("sensitivity and specificity")
@pytest.mark.slow
def test_sensitivity_is_of_the_positive_class(idc, evaluation):
    model = evaluation.models[1]
    positive, right = idc.y == 1, model.predicted == idc.y
    assert model.scores["sensitivity"].pooled == pytest.approx(right[positive].mean())
    assert model.scores["specificity"].pooled == pytest.approx(right[~positive].mean())


@shows("load and preprocess", "benign or malignant", "eight subtypes", "metrics, of which it published none")
def test_breakhis(breakhis):
    binary = load_breakhis(breakhis.root, magnification=100)
    assert len(binary.target_names) == 2
    assert binary.target_names[1].startswith("malignant")
    subtypes = load_breakhis(breakhis.root, target="subtype")
    assert len(subtypes.target_names) == 8
    pipeline = IDCPipeline(features="color", head="logistic")
    found = evaluate(subtypes, {"color": pipeline}, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=20)
    table = class_scores(subtypes.y, found.models[0].proba, target_names=subtypes.target_names, n_resamples=0)
    assert len(table.target_names) == 8


@shows("AlexNet from scratch")
@pytest.mark.long
def test_alexnet(idc):
    """Long: it is built and counted in tests/networks, where smaller networks are trained by the same code."""
    network = CNNClassifier("alexnet", input_size=64, **{**TINY, "epochs": 1}).fit(idc.X, idc.y, groups=idc.patients)
    assert np.isfinite(network.history_["loss"]).all()


@shows("a checkpoint to go on from")
@pytest.mark.long
def test_checkpoint(idc, tmp_path):
    """Long: tests/networks/test_checkpoint.py does the same with a smaller network."""
    network = CNNClassifier("cancernet", checkpoint=tmp_path / "state", **TINY)
    first = network.fit(idc.X, idc.y, groups=idc.patients).predict_proba(idc.X[:4])
    again = network.fit(idc.X, idc.y, groups=idc.patients)  # finds itself finished, and trains nothing
    np.testing.assert_allclose(again.predict_proba(idc.X[:4]), first, rtol=1e-5)


@shows("load a model, predict one image with class probabilities")
@pytest.mark.slow
def test_one_image(idc, tmp_path, capsys):
    pipeline = IDCPipeline(features="color", head="logistic").fit(idc.X, idc.y)
    save_model(pipeline, tmp_path / "model.histofeat", about={"patch_size": [50, 50]})
    found = predict_images(load_model(tmp_path / "model.histofeat"), [idc.X[0]])
    np.testing.assert_allclose(found.proba, pipeline.predict_proba(idc.X[:1]))
    large = np.tile(cv2.imread(idc.X[0]), (4, 5, 1))
    cv2.imwrite(str(tmp_path / "large.png"), large)
    code = main(["predict", str(tmp_path / "model.histofeat"), str(tmp_path / "large.png"), "--policy", "resize"])
    assert code == 0
    assert "large.png" in capsys.readouterr().out


# --- the same as commands

COMMANDS = re.findall(
    r"^\*\*(.+?)\*\*.*?```console\n(.*?)```", PAGE.partition("## As commands")[2], re.DOTALL | re.MULTILINE
)
#: Smaller networks and fewer epochs than on the page; their weights are random, and no downloads.
SMALLER = {"resnet50": "mobilenet_0.25", "densenet201": "mobilenet_0.25"}
QUICKLY = ["--epochs", "1", "--folds", "2", "--input-size", "64"]


@pytest.fixture
def places(idc, breakhis, tmp_path, monkeypatch):
    """What the words in capitals of the page stand for; the current folder is an empty one."""
    keras = pytest.importorskip("keras", reason="keras is not installed")
    weights = tmp_path / "base.weights.h5"
    keras.applications.MobileNet(include_top=False, weights=None, alpha=0.25, input_shape=(64, 64, 3)).save_weights(
        weights
    )
    split_dataset(idc, write_to=tmp_path / "folders", mode="copy")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    found = {"WEIGHTS": weights, "IDC": idc.root, "BREAKHIS": breakhis.root, "FOLDERS": tmp_path / "folders"}
    return {**found, "IMAGE": breakhis.X[0]}


def test_each_system_has_its_commands():
    systems = {name for name, _, _ in ROWS if name}
    assert len(COMMANDS) == len(systems) == 5
    assert all(1 <= len(lines.splitlines()) <= 3 for _, lines in COMMANDS)


@pytest.mark.long
@pytest.mark.parametrize(("system", "lines"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_the_commands_of_a_system(system, lines, places, capsys):
    for line in lines.splitlines():
        words = [SMALLER.get(word, str(places.get(word, word))) for word in shlex.split(line)]
        if words[0] == "python":
            exec(words[2].replace("'IDC'", repr(str(places["IDC"]))), {})
            continue
        network = words[1] == "train" and "--head" in words
        assert main(words[1:] + (QUICKLY if network else [])) == 0, (line, capsys.readouterr().err)
    found = capsys.readouterr()
    assert ("p_malignant" in found.out) == ("PyTorch" in system)
    if Path("gallery").exists():
        assert "most confidently wrong" in Path("gallery/report.html").read_text()
        assert any(path.stem.startswith("training") for path in Path("gallery/figures").iterdir())
    if Path("state").exists():  # the same command goes on where it was: at the end
        assert "epoch 1 of 1" in found.err
        first = shlex.split(lines.splitlines()[0])
        again = [str(places.get(word, word)) for word in first[1:]]
        assert main([*again, *QUICKLY, "--overwrite"]) == 0
        assert "epoch 1 of 1:" not in capsys.readouterr().err
