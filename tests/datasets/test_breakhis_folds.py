import numpy as np
import pandas as pd
import pytest
from test_breakhis import png, put

from histofeat import DatasetError, GroupLeakageError, PatchDataset, PatientHoldOuts, check_no_shared_patients
from histofeat.datasets import breakhis_hold_outs, load_breakhis, read_breakhis_folds

#: Subtype and slide of each; those that are tested in every fold, unless a test says otherwise.
SLIDES = [("A", "1"), ("A", "2"), ("F", "3"), ("DC", "4"), ("DC", "5"), ("MC", "6")]
TESTED = {"2", "5"}


def name_of(code, slide, magnification=40, sequence=1):
    return f"SOB_{'M' if code in ('DC', 'LC', 'MC', 'PC') else 'B'}_{code}-14-{slide}-{magnification}-{sequence:03}.png"


def line(code, slide, fold, role, magnification=40, sequence=1):
    return f"{name_of(code, slide, magnification, sequence)}|{magnification}|{fold}|{role}"


def write_lists(folder, slides=SLIDES, tested=TESTED, more=()):
    folder.mkdir(parents=True, exist_ok=True)
    for fold in range(1, 6):
        lines = [line(code, slide, fold, "test" if slide in tested else "train") for code, slide in slides]
        lines += [line(code, slide, fold, role) for code, slide, role in more]
        (folder / f"dsfold{fold}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def tree(tmp_path):
    breast = tmp_path / "data/BreaKHis_v1/histology_slides/breast"
    for code, slide in SLIDES:
        put(breast, code, slide)
    return breast


class TestRead:
    def test_rows_of_each_side(self, tree):
        write_lists(tree.parents[2])
        dataset = load_breakhis(tree)
        folds = read_breakhis_folds(dataset)
        assert (folds.published, folds.origin, len(folds)) == (True, "published (dsfold1.txt to dsfold5.txt)", 5)
        [(train, test)] = folds.cv(2)
        assert set(dataset.frame["slide"].iloc[test]) == TESTED
        assert np.array_equal(np.sort(np.r_[train, test]), np.arange(6))
        check_no_shared_patients(train, test, dataset.patients)
        assert (folds.missing, folds.unlisted, folds.leaks) == ((0,) * 5, (0,) * 5, ())

    @pytest.mark.parametrize("above", range(4))
    @pytest.mark.parametrize("within", ["", "mkfold"])
    def test_found_beside_the_tree_whatever_the_root(self, tree, above, within):
        write_lists([tree, *tree.parents][above] / within)
        for root in (tree, tree.parents[2]):
            assert read_breakhis_folds(load_breakhis(root)).published

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_lists_that_an_editor_saved_again(self, tree, encoding):
        write_lists(tree)
        expected = read_breakhis_folds(load_breakhis(tree)).cv(1)
        for path in tree.glob("dsfold*.txt"):
            path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
        found = read_breakhis_folds(load_breakhis(tree)).cv(1)
        assert [side.tolist() for side in found[0]] == [side.tolist() for side in expected[0]]

    def test_not_looked_for_above_the_archive(self, tree):
        write_lists(tree.parents[3])
        with pytest.raises(DatasetError, match=r"folder: expected dsfold1.txt to dsfold5.txt in or beside .*got none"):
            read_breakhis_folds(load_breakhis(tree))

    def test_folder_that_is_given(self, tree, tmp_path):
        write_lists(tmp_path / "lists")
        assert read_breakhis_folds(load_breakhis(tree), tmp_path / "lists").published
        with pytest.raises(DatasetError, match=r"dsfold5.txt in .*/other, got none"):
            read_breakhis_folds(load_breakhis(tree), tmp_path / "other")

    def test_windows_line_ends_and_empty_lines(self, tree):
        write_lists(tree)
        path = tree / "dsfold1.txt"
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n\r\n"))
        assert len(read_breakhis_folds(load_breakhis(tree)).cv(1)[0][1]) == 2

    def test_incomplete_copy_and_rows_without_a_role(self, tree):
        put(tree, "F", "77")
        put(tree, "F", "3", 100)
        more = [("PC", "99", "test")]
        write_lists(tree, more=more)
        folds = read_breakhis_folds(load_breakhis(tree, 40))
        assert (folds.missing[0], folds.unlisted[0]) == (1, 1)
        assert folds.to_dict()["folds"][0] == {"fold": 1, "n_train": 4, "n_test": 2, "missing": 1, "unlisted": 1}

    def test_cv_takes_one_fold_at_a_time(self, tree):
        write_lists(tree)
        folds = read_breakhis_folds(load_breakhis(tree))
        for fold in (0, 6, True, None):
            with pytest.raises(DatasetError, match=f"cv: expected a whole number from 1 to 5, got {fold}"):
                folds.cv(fold)
        folds.cv(1)[0][0][:] = -1
        assert folds.cv(1)[0][0].min() == 0


class TestLeaks:
    @pytest.fixture
    def siblings(self, tree):
        put(tree, "A", "22549AB")
        put(tree, "A", "22549CD")
        write_lists(tree, more=[("A", "22549AB", "train"), ("A", "22549CD", "test")])
        return tree

    @pytest.mark.parametrize("key", ["number", "full"])
    def test_siblings_are_refused(self, siblings, key):
        message = r"dsfold1.txt: expected no patient on both sides, got 22549 \(22549AB, 22549CD\) \(and 4 more\)"
        with pytest.raises(GroupLeakageError, match=message):
            read_breakhis_folds(load_breakhis(siblings, patient_key=key))

    def test_siblings_are_accepted_by_name_and_reported(self, siblings):
        folds = read_breakhis_folds(load_breakhis(siblings), accept=("siblings",))
        assert folds.leaks[0] == ("siblings", 1, "22549 (22549AB, 22549CD)")
        assert len(folds.leaks) == 5
        assert "5 leaks" in repr(folds)
        assert folds.to_dict()["leaks"][4] == {"leak": "siblings", "fold": 5, "what": "22549 (22549AB, 22549CD)"}

    @pytest.fixture
    def twice(self, tree):
        content = png(seed=1)
        put(tree, "DC", "13412", content=content)
        put(tree, "LC", "13412", content=content)
        write_lists(tree, more=[("DC", "13412", "train"), ("LC", "13412", "test")])
        return tree

    def test_slide_under_two_labels_is_refused(self, twice):
        for key in ("number", "full"):
            dataset = load_breakhis(twice, patient_key=key, duplicates="published")
            with pytest.raises(GroupLeakageError, match=r"got 14-13412 \(and 4 more\): one slide, under two subtypes"):
                read_breakhis_folds(dataset)
            with pytest.raises(GroupLeakageError, match=r"accept=\('two labels',\)"):
                read_breakhis_folds(dataset, accept="siblings")

    def test_slide_under_two_labels_is_accepted_by_name(self, twice):
        dataset = load_breakhis(twice, duplicates="published")
        folds = read_breakhis_folds(dataset, accept="two labels")
        assert set(folds.leaks) == {("two labels", fold, "14-13412") for fold in range(1, 6)}
        # The data set's own patients still tell: an evaluation refuses this unless told otherwise.
        with pytest.raises(GroupLeakageError, match="13412"):
            check_no_shared_patients(*folds.cv(1)[0], dataset.patients)

    @pytest.mark.parametrize("target", ["malignant", "subtype"])
    def test_nothing_leaks_once_the_copies_are_dropped(self, twice, target):
        folds = read_breakhis_folds(load_breakhis(twice, target=target, duplicates="drop"))
        assert folds.leaks == ()
        assert folds.missing[0] == (1 if target == "malignant" else 2)

    def test_images_of_one_slide_on_both_sides(self, tree):
        put(tree, "A", "1", 40, 2)
        write_lists(tree)
        with (tree / "dsfold3.txt").open("a") as file:
            file.write(line("A", "1", 3, "test", sequence=2))
        with pytest.raises(GroupLeakageError, match=r"dsfold3.txt: .*got 14-1: images of one slide on both sides"):
            read_breakhis_folds(load_breakhis(tree))

    def test_unknown_leak(self, tree):
        with pytest.raises(
            DatasetError, match=r"accept: expected one of siblings, .*got 'sibling'\. Did you mean 'sib"
        ):
            read_breakhis_folds(load_breakhis(tree), accept=("sibling",))


class TestBrokenLists:
    @pytest.mark.parametrize(
        ("broken", "message"),
        [
            ("nonsense", r"dsfold4.txt, line 7: expected FILE.png\|MAG.*got 'nonsense'"),
            ("a.png|40|4|train", r"line 7: expected FILE.png"),
            (line("A", "9", 4, "validation"), r"line 7: expected FILE.png"),
            (line("A", "9", 5, "train"), "line 7: expected magnification 40 and fold 4, got 40 and 5"),
            (line("A", "9", 4, "train").replace("|40|", "|100|"), "fold 4, got 100 and 4"),
            (line("A", "1", 4, "test"), "line 7: expected each image once, got SOB_B_A-14-1-40-001.png again"),
        ],
    )
    def test_line(self, tree, broken, message):
        write_lists(tree)
        with (tree / "dsfold4.txt").open("a") as file:
            file.write(broken)
        with pytest.raises(DatasetError, match=message):
            read_breakhis_folds(load_breakhis(tree))

    def test_one_list_is_gone(self, tree):
        write_lists(tree)
        (tree / "dsfold3.txt").unlink()
        with pytest.raises(DatasetError, match=r"dsfold1.txt to dsfold5.txt, got none named dsfold3.txt\."):
            read_breakhis_folds(load_breakhis(tree))

    def test_no_text(self, tree):
        write_lists(tree)
        (tree / "dsfold2.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(DatasetError, match=r"dsfold2.txt, line 1: expected text in UTF-8, got"):
            read_breakhis_folds(load_breakhis(tree))

    def test_side_without_an_image(self, tree):
        write_lists(tree, tested=set())
        with pytest.raises(DatasetError, match=r"dsfold1.txt: expected test images that are in the data set, got 0"):
            read_breakhis_folds(load_breakhis(tree))

    def test_data_set_of_something_else(self):
        frame = pd.DataFrame({"path": ["a.png", "b.png"], "label": [0, 1], "patient": ["1", "2"]})
        other = PatchDataset(frame.assign(x=pd.NA, y=pd.NA), ("u", "v"), "mine")
        with pytest.raises(DatasetError, match=r"expected the images of BreakHis, got 'a.png' in row 0"):
            read_breakhis_folds(other)


class TestHoldOuts:
    def test_published_where_they_are(self, tree):
        write_lists(tree)
        assert breakhis_hold_outs(load_breakhis(tree)).published

    def test_ours_are_named_as_ours(self, tree):
        dataset = load_breakhis(tree)
        folds = breakhis_hold_outs(dataset, random_state=3)
        assert not folds.published
        assert folds.origin == "ours: PatientHoldOuts(n_splits=5, test_size=0.3, random_state=3)"
        expected = list(PatientHoldOuts(random_state=3).split(dataset.X, dataset.y, dataset.patients))
        for fold, (train, test) in enumerate(expected, start=1):
            [(our_train, our_test)] = folds.cv(fold)
            assert (our_train.tolist(), our_test.tolist()) == (train.tolist(), test.tolist())

    def test_ours_say_where_full_ids_part_sections(self, tree):
        for letters in ("AB", "CD", "EF", "G"):
            put(tree, "A", f"22549{letters}")
        assert breakhis_hold_outs(load_breakhis(tree)).leaks == ()
        leaks = breakhis_hold_outs(load_breakhis(tree, patient_key="full")).leaks
        assert {name for name, *_ in leaks} == {"siblings"}

    def test_lists_that_are_asked_for_must_be_there(self, tree, tmp_path):
        with pytest.raises(DatasetError, match="got none"):
            breakhis_hold_outs(load_breakhis(tree), tmp_path)
        with pytest.raises(DatasetError, match="accept: expected"):
            breakhis_hold_outs(load_breakhis(tree), accept="everything")
