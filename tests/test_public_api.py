"""What is public: the top level and the face of each wing, written down in `api.txt`, documented, and lazily loaded."""

import importlib
import inspect
import re
from pathlib import Path

import measure_house as house
import pytest

import histofeat

FACES = [
    "histofeat",
    *(f"histofeat.{wing}" for wing in house.WINGS if (house.PACKAGE / wing / "__init__.pyi").exists()),
]
WRITTEN = Path(__file__).with_name("api.txt")


def public():
    """Every public name as "face.name", sorted."""
    return sorted(f"{face}.{name}" for face in FACES for name in importlib.import_module(face).__all__)


def test_the_public_names_are_those_written_down():
    # After a wanted change: python tests/test_public_api.py
    assert public() == WRITTEN.read_text(encoding="utf-8").split()


@pytest.mark.parametrize("face", FACES)
def test_every_promised_name_exists_is_sorted_and_documented(face):
    module = importlib.import_module(face)
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("face", FACES)
def test_unknown_names_are_attribute_errors(face):
    with pytest.raises(AttributeError, match=r"No .* attribute no_such_name"):
        importlib.import_module(face).no_such_name  # noqa: B018


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert version("histofeat") == histofeat.__version__


def calls():
    """Every public class and function once."""
    values = (getattr(histofeat, name) for name in histofeat.__all__)
    return [value for value in values if inspect.isclass(value) or inspect.isfunction(value)]


@pytest.mark.parametrize("kind", calls(), ids=lambda kind: kind.__name__)
def test_documented_parameters_are_those_of_the_signature(kind):
    if inspect.isclass(kind) and issubclass(kind, Exception):
        return
    doc = inspect.getdoc(kind)
    signature = [name for name in inspect.signature(kind).parameters if name not in ("args", "kwargs", "params")]
    if "Parameters\n----------" not in doc:
        assert not signature or "Attributes\n----------" in doc, f"{kind.__name__} documents no parameters"
        return
    block = re.split(r"\n\n(?=\S)", doc.split("Parameters\n----------\n", 1)[1], maxsplit=1)[0]
    named = {
        name.strip()
        for line in block.splitlines()
        if not line.startswith(" ")
        for name in line.split(":")[0].split(",")
    }
    assert set(signature) <= named, f"{kind.__name__}: {set(signature) - named} is not documented"


if __name__ == "__main__":
    WRITTEN.write_text("\n".join(public()) + "\n", encoding="utf-8")
