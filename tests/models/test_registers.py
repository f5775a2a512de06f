"""Registers of families, heads and normalisers: what a person reads names every record, and the records are right."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from histofeat import IDCPipeline
from histofeat.features import FAMILIES, make_family
from histofeat.images import NORMALIZERS
from histofeat.models import HEADS, make_head

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
