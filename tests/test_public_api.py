"""What `import histofeat` promises: names that exist, are sorted, documented, and unknown ones refused."""

import inspect

import pytest

import histofeat
import histofeat.features


@pytest.mark.parametrize("module", [histofeat, histofeat.features])
def test_every_promised_name_exists_is_sorted_and_documented(module):
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("module", [histofeat, histofeat.features])
def test_unknown_names_are_attribute_errors(module):
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        module.no_such_name  # noqa: B018


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert version("histofeat") == histofeat.__version__


@pytest.mark.parametrize(
    "kind",
    [
        value
        for module in (histofeat, histofeat.features)
        for value in (getattr(module, name) for name in module.__all__)
        if inspect.isclass(value) or inspect.isfunction(value)
    ],
    ids=lambda kind: kind.__name__,
)
def test_documented_parameters_are_those_of_the_signature(kind):
    if inspect.isclass(kind) and issubclass(kind, Exception):
        return
    doc = inspect.getdoc(kind)
    signature = [name for name in inspect.signature(kind).parameters if name not in ("args", "kwargs", "params")]
    if "Parameters\n----------" not in doc:
        assert not signature or "Attributes\n----------" in doc, f"{kind.__name__} documents no parameters"
        return
    block = doc.split("Parameters\n----------\n", 1)[1].split("\n\n", 1)[0]
    named = {
        name.strip()
        for line in block.splitlines()
        if not line.startswith(" ")
        for name in line.split(":")[0].split(",")
    }
    assert set(signature) <= named, f"{kind.__name__}: {set(signature) - named} is not documented"
