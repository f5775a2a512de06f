"""Each kind of bad input gets a good sentence at each entry point, and it is the one that is written down."""

import difflib

import pytest
import sentences


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return sentences.sentences(tmp_path_factory.mktemp("grid").resolve())


@pytest.mark.filterwarnings("ignore")
def test_each_is_good(found):
    faults = {cell: (sentences.fault(cell[0], said), said) for cell, said in found.items()}
    assert not {cell: fault for cell, fault in faults.items() if fault[0]}
    assert len(found) > 390


def test_each_is_the_one_that_is_written_down(found):
    written, now = sentences.TEXT.read_text(encoding="utf-8").splitlines(), sentences.as_text(found).splitlines()
    changed = list(difflib.unified_diff(written, now, "sentences.txt", "now", lineterm="", n=0))
    assert not changed, "\n".join([*changed, "If they are better: python tests/robustness/sentences.py"])


@pytest.mark.parametrize(
    ("entry", "said", "fault"),
    [
        ("evaluate", "goes through", ""),
        ("evaluate", "HANGS", "hangs"),
        ("evaluate", "ValueError: cv: expected folds, got 3. Use PatientKFold.", ""),
        ("evaluate", "AttributeError: 'str' object has no attribute 'patients'", "a raw AttributeError"),
        ("evaluate", "ValueError: cv: expected folds, got 3.", "has no remedy"),
        ("evaluate", f"ValueError: cv: expected {'a ' * 70}fold, got 3. Use another.", "is too long"),
        ("histofeat train", "exit 2: histofeat: x: expected a file, got None. Give one.", "speaks Python: None"),
        ("histofeat train", "exit 2: histofeat: x: expected a, got b. Set seed=3.", "speaks Python: seed=3"),
        ("histofeat train", "exit 2: histofeat: x: expected a, got b. Call load_idc.", "speaks Python: load_idc"),
        ("histofeat train", "exit 2: histofeat: one / two", "more than one line"),
        ("histofeat train", "exit 2: histofeat: bad value", "does not say what was expected and what came"),
        ("histofeat train", "exit 2: histofeat: No such option: --x See `histofeat --help`.", ""),
    ],
)
def test_what_a_good_sentence_is(entry, said, fault):
    assert sentences.fault(entry, said) == fault
