"""Registers of families, heads and normalisers: what a person reads names every record, and the records are right."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from histofeat import IDCPipeline
from histofeat.features import FAMILIES, make_family
from histofeat.images import NORMALIZERS
from histofeat.models import HEADS, ModelFileError, load_model, make_head, save_model

REPOSITORY = Path(__file__).parents[2]


def parameter(function, name):
    """Text of one parameter in a numpydoc docstring."""
    found = re.search(rf"^ +{name} :.*?(?=^ +\w+ :|^ *$)", function.__doc__, re.MULTILINE | re.DOTALL)
    return found.group()


def quoted(text):
    return set(re.findall(r'"(\w+)"', text))


def helped(*command):
    """Help text of a command, without line breaks."""
    found = subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True, check=True)
    return set(re.findall(r"[\w]+", found.stdout))


def test_the_docstring_of_the_pipeline_names_every_family_head_and_normaliser():
    assert quoted(parameter(IDCPipeline, "features")) == {"pixels", *FAMILIES}
    assert quoted(parameter(IDCPipeline, "head")) >= set(HEADS)
    assert quoted(parameter(IDCPipeline, "normalizer")) == set(NORMALIZERS)
    assert quoted(parameter(make_head, "name")) == set(HEADS)


def test_help_texts_name_every_family_head_and_normaliser():
    words = helped("-c", "import sys; from histofeat.cli import main; sys.exit(main(sys.argv[1:]))", "train")
    assert words >= {*FAMILIES, *HEADS, *NORMALIZERS}
    assert helped(REPOSITORY / "benchmarks" / "run_all.py") >= set(HEADS)


def test_the_reference_names_every_family_and_head():
    text = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    assert {record.class_name for record in FAMILIES.values()} <= set(re.findall(r"`(\w+)`", text))
    assert set(HEADS) <= set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_what_its_record_says(name):
    record, family = FAMILIES[name], make_family(name)
    assert (family.family, type(family).__name__) == (name, record.class_name)
    assert type(family).__module__ == f"histofeat.features._{record.module}"
    assert len(family.get_feature_names_out()) == record.n_columns


def test_every_record_has_words_for_a_table():
    for record in (*FAMILIES.values(), *HEADS.values()):
        assert record.words
        assert not record.words.endswith(".")


# ---- families and heads of other packages ------------------------------------------------------------------------

PACKAGE = """
import numpy as np
from sklearn.naive_bayes import GaussianNB
from histofeat.features import PatchFeatures
from histofeat.models import HeadRecord

class Brightness(PatchFeatures):
    \"\"\"Mean of all channels.\"\"\"

    family = "brightness"

    def __init__(self, power=1.0):
        self.power = power

    def _check_params(self):
        pass

    def _feature_names(self):
        return ["brightness_mean"]

    def _compute(self, batch):
        return (batch.rgb.mean(axis=(1, 2, 3)) ** self.power)[:, None]

bayes = HeadRecord(lambda random_state, n_jobs: GaussianNB(), "Gaussian naive Bayes", scale=True)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Give a function that installs a package with these entry points, as pip would, for the time of a test."""

    def install(name, entry_points, code=PACKAGE):
        folder = tmp_path / name
        (folder / f"{name}-1.0.dist-info").mkdir(parents=True)
        (folder / f"{name}.py").write_text(code)
        (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        (folder / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(folder)
        names.append(name)

    names = []
    yield install
    for name in names:
        sys.modules.pop(name, None)


def test_another_package_offers_a_family_and_a_head(installed, patches, tmp_path, monkeypatch):
    installed(
        "other_lab",
        "[histofeat.families]\nbrightness = other_lab:Brightness\n[histofeat.heads]\nbayes = other_lab:bayes\n",
    )
    assert make_family("color").family == "color"
    assert "other_lab" not in sys.modules, "loaded only when a name is asked for"
    assert {"brightness"} == set(FAMILIES) - set(FAMILIES.own)
    assert (len(FAMILIES), len(HEADS)) == (len(FAMILIES.own) + 1, len(HEADS.own) + 1)
    record = FAMILIES["brightness"]
    assert (record.class_name, record.words, record.n_columns) == ("Brightness", "Mean of all channels", 1)
    pipe = IDCPipeline(("color", "brightness"), "bayes").set_params(features__brightness__power=2.0)
    pipe.fit(patches, [0, 1] * 6)
    assert pipe.head_.scaler_ is not None
    np.testing.assert_allclose(pipe.transform(patches)[:, -1], patches.mean(axis=(1, 2, 3)) ** 2, rtol=1e-5)
    file = save_model(pipe, tmp_path / "m.histofeat")
    np.testing.assert_array_equal(load_model(file).predict_proba(patches), pipe.predict_proba(patches))
    with pytest.raises(
        ValueError, match=r"features: expected the name of a .*, got 'brightnes'. Did you mean 'brightness'"
    ):
        make_family("brightnes")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if "other_lab" not in folder])
    with pytest.raises(ModelFileError, match=r"m\.histofeat: expected parts of .*, got 'other_lab\.Brightness'"):
        load_model(file)


@pytest.mark.parametrize(
    ("group", "entry", "code", "message"),
    [
        ("families", "far = other_lab:Far", "import nowhere", r"ModuleNotFoundError \(No module named 'nowhere'\)"),
        (
            "families",
            "far = other_lab:far",
            "far = 3",
            r"TypeError \(3 is no class derived from PatchFeatures with family",
        ),
        ("heads", "far = other_lab:far", "far = 3", r"ValueError \(far: expected a HeadRecord, got int"),
    ],
)
def test_a_package_that_is_broken_is_named(installed, group, entry, code, message):
    installed("other_lab", f"[histofeat.{group}]\n{entry}\n", code)
    ask = make_family if group == "families" else make_head
    with pytest.raises(
        ValueError, match=rf"histofeat\.{group}: expected 'far' of the package 'other_lab' to load, got {message}"
    ):
        ask("far")


@pytest.mark.parametrize("name", ["color", "mine"])
def test_names_that_exist_are_refused_and_ours_stay_ours(installed, name):
    installed("other_lab", f"[histofeat.families]\n{name} = other_lab:Brightness\n")
    installed("third_lab", "[histofeat.families]\nmine = third_lab:Brightness\n")
    assert type(make_family("color")).__module__ == "histofeat.features._color"
    with pytest.raises(ValueError, match=f"histofeat.families: expected names that nothing else has, got '{name}' of"):
        make_family("mine")
