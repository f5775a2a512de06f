import shutil
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, strategies as st

from histofeat import DatasetError, GroupLeakageError, PatientKFold, audit_split, check_no_shared_patients
from histofeat.datasets import load_breakhis
from histofeat.datasets.breakhis._loading import full_set
from histofeat.datasets.breakhis._tree import (
    MAGNIFICATIONS,
    SUBTYPES,
    parse_image,
    parse_magnification,
    parse_slide,
)
from histofeat.evaluation import cheap_findings

CLASS = {subtype.code: ("benign", "malignant")[subtype.malignant] for subtype in SUBTYPES}
FOLDER = {subtype.code: subtype.folder for subtype in SUBTYPES}


def png(height=46, width=70, seed=0) -> bytes:
    """A whole PNG, made by hand so that these tests need no image library."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    # Noise, not compressed: pictures of another seed are as long, and only their bytes tell them apart.
    noise = np.random.default_rng(seed).bytes(3 * width * height)
    rows = b"".join(b"\0" + noise[3 * width * row :][: 3 * width] for row in range(height))
    pixels = zlib.compress(rows, 0)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def put(breast, code, slide, magnification=40, sequence=1, *, folder=None, name=None, content=None, year="14"):
    """Write one image where the archive would have it; `folder` and `name` say something else on purpose."""
    what = f"SOB_{CLASS[code][0].upper()}_{code}"
    below = f"{CLASS[code]}/SOB/{FOLDER[code]}/{what}_{year}-{slide}/{magnification}X"
    path = breast / (folder or below) / (name or f"{what}-{year}-{slide}-{magnification}-{sequence:03}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(seed=zlib.crc32(path.name.encode())) if content is None else content)
    return path


@pytest.fixture
def top(tmp_path):
    return tmp_path / "data/BreaKHis_v1/histology_slides/breast"


@pytest.fixture
def tree(top):
    """Three sections of one number, a number with two benign subtypes, and two malignant patients."""
    for slide in ("22549AB", "22549CD", "22549G"):
        put(top, "A", slide)
    put(top, "F", "21998CD")
    put(top, "PT", "21998AB")
    put(top, "DC", "2523", 40, 10)
    put(top, "DC", "2523", 100, 2)
    put(top, "MC", "18842")
    put(top, "MC", "18842D")
    return top


@pytest.fixture
def twice(tree):
    """The tree with slide 13412 under two labels, the same images, and one image that only one copy has."""
    for sequence in (1, 2):
        content = png(seed=9_000 + sequence)
        put(tree, "DC", "13412", 40, sequence, content=content)
        put(tree, "LC", "13412", 40, sequence, content=content)
    put(tree, "LC", "13412", 40, 3)
    return tree


class TestNames:
    @given(
        st.sampled_from(SUBTYPES),
        st.integers(0, 99),
        st.integers(1, 10**9 - 1),
        st.text("ABCDEFG", max_size=3),
        st.sampled_from(MAGNIFICATIONS),
        st.integers(1, 999),
    )
    def test_round_trip(self, subtype, year, number, letters, magnification, sequence):
        what = f"SOB_{'BM'[subtype.malignant]}_{subtype.code}"
        name = parse_image(f"{what}-{year:02}-{number}{letters}-{magnification}-{sequence:03}.png")
        assert name.slide_name == parse_slide(f"{what}_{year:02}-{number}{letters}")
        assert (name.slide_name.number, name.slide_name.letters) == (str(number), letters)
        assert SUBTYPES[name.slide_name.subtype] == subtype
        assert name[1:] == (magnification, sequence)

    @pytest.mark.parametrize(
        "name",
        [
            "SOB_B_A-14-22549AB-40-001.jpg",
            "SOB_B_A-14-22549AB-50-001.png",
            "SOB_B_A-14-22549AB-40-001.png.part",
            "SOB_B_A-14-AB-40-001.png",
            "CNB_B_A-14-22549AB-40-001.png",
            "SOB_B_A-14-٢٢-40-001.png",
            "",
        ],
    )
    def test_foreign_names(self, name):
        assert parse_image(name) is None

    @pytest.mark.parametrize(("value", "power"), [(40, 40), ("40X", 40), ("100", 100), (" 200x ", 200), (None, None)])
    def test_magnification(self, value, power):
        assert parse_magnification(value) == power

    @pytest.mark.parametrize("value", [50, "4X", "X", "", True, 40.5, [40]])
    def test_no_magnification(self, value):
        with pytest.raises(DatasetError, match=r"magnification: expected 40, 100, 200, 400 .* got .*has these four"):
            parse_magnification(value)


class TestRows:
    def test_columns_and_order(self, tree):
        dataset = load_breakhis(tree, target="subtype")
        assert (dataset.name, dataset.synthetic) == ("BreakHis", False)
        assert dataset.frame["slide"].tolist() == [
            "22549AB", "22549CD", "22549G", "21998CD", "21998AB", "2523", "2523", "18842", "18842D",
        ]  # fmt: skip
        assert dataset.y.tolist() == [0, 0, 0, 1, 2, 4, 4, 6, 6]
        assert dataset.target_names == tuple(subtype.word for subtype in SUBTYPES)
        assert dataset.frame.loc[5, ["magnification", "subtype", "sequence"]].tolist() == [40, "ductal carcinoma", 10]
        assert dataset.frame["x"].isna().all()

    def test_binary_labels(self, tree):
        dataset = load_breakhis(tree)
        assert dataset.target_names == ("benign", "malignant")
        assert dataset.y.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
        assert dataset.labels_per == "patient"

    def test_patient_is_the_number(self, tree):
        assert load_breakhis(tree).patients.tolist() == ["22549"] * 3 + ["21998"] * 2 + ["2523"] * 2 + ["18842"] * 2

    def test_patient_is_the_full_id(self, tree):
        dataset = load_breakhis(tree, patient_key="full")
        assert dataset.patients.tolist() == dataset.frame["slide"].tolist()
        assert len(set(dataset.patients)) == 8

    def test_sections_of_one_number_never_part_by_number(self, tree):
        by_number, by_id = load_breakhis(tree), load_breakhis(tree, patient_key="full")
        sides = [0, 3, 4, 5, 6], [1, 2, 7, 8]
        with pytest.raises(GroupLeakageError, match="expected no patient on both sides, got 1: '22549'"):
            check_no_shared_patients(*sides, by_number.patients)
        # With full ids the same split looks sound, and the audit of the split says that it is not.
        assert cheap_findings(by_id, [sides]).finding("HF005").status == "issue"

    @pytest.mark.parametrize(("target", "key", "per"), [("subtype", "number", "patch"), ("subtype", "full", "patient")])
    def test_labels_per_where_one_number_has_two_subtypes(self, tree, target, key, per):
        dataset = load_breakhis(tree, target=target, patient_key=key)
        assert dataset.labels_per == per
        assert dataset.audit.mixed_patients == {"21998": ("fibroadenoma", "phyllodes tumor")}

    @pytest.mark.parametrize("magnification", [100, "100X", "100x"])
    def test_one_magnification(self, tree, magnification):
        put(tree, "A", "22549AB", 100)
        dataset = load_breakhis(tree, magnification)
        assert dataset.relative_paths.tolist() == [
            "benign/SOB/adenosis/SOB_B_A_14-22549AB/100X/SOB_B_A-14-22549AB-100-001.png",
            "malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523/100X/SOB_M_DC-14-2523-100-002.png",
        ]

    def test_magnification_that_is_not_there(self, tree):
        with pytest.raises(DatasetError, match=r"expected images at 400X .*got none. Choose one .*: 40X, 100X\."):
            load_breakhis(tree, 400)

    def test_nothing_is_written(self, tree):
        before = {path: path.stat().st_mtime_ns for path in [tree, *tree.rglob("*")]}
        load_breakhis(tree)
        assert {path: path.stat().st_mtime_ns for path in [tree, *tree.rglob("*")]} == before


class TestRoots:
    def test_every_level_gives_the_same_rows(self, tree):
        expected = load_breakhis(tree).X.tolist()
        for root in list(tree.parents)[:3]:
            dataset = load_breakhis(root)
            assert dataset.X.tolist() == expected
            assert all(not path.startswith("/") for path in dataset.relative_paths)

    def test_archive_unpacked_twice(self, tree):
        once = load_breakhis(tree)
        outer = tree.parents[2]
        shutil.copytree(tree.parents[1], outer / "copy")
        shutil.move(outer / "copy", tree.parents[1] / "BreaKHis_v1")
        twice = load_breakhis(outer)
        assert len(twice) == len(once)
        assert (once.audit.duplicates, twice.audit.duplicates) == (0, 9)

    @pytest.mark.parametrize(
        "below", ["malignant", "benign/SOB/adenosis", "malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523/40X"]
    )
    def test_one_level_too_low(self, tree, below):
        with pytest.raises(DatasetError, match=r"Did you mean '.*/histology_slides/breast'\?"):
            load_breakhis(tree / below)

    def test_one_level_too_high(self, tree):
        with pytest.raises(DatasetError, match=r"got other files and folders. Did you mean '.*/data'\?"):
            load_breakhis(tree.parents[3])

    def test_no_folder(self, tmp_path):
        with pytest.raises(DatasetError, match=r"gone: expected a folder .*got a path that does not exist"):
            load_breakhis(tmp_path / "gone")
        (tmp_path / "BreaKHis_v1.tar.gz").write_bytes(b"\x1f\x8b")
        with pytest.raises(DatasetError, match=r"tar.gz: expected a folder .*got a file.*unpack it"):
            load_breakhis(tmp_path / "BreaKHis_v1.tar.gz")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DatasetError, match=r"empty: expected a folder .*got an empty folder. Give the folder"):
            load_breakhis(tmp_path / "empty")

    @pytest.mark.parametrize("root", [None, 5, ""])
    def test_no_path(self, root):
        with pytest.raises(DatasetError, match=f"load_breakhis: expected the path of a folder, got {root!r}"):
            load_breakhis(root)

    def test_folder_that_cannot_be_listed(self, tree, monkeypatch):
        # The test may run as root, whom no permission stops.
        def refuse(folder):
            raise PermissionError(folder)

        monkeypatch.setattr("os.scandir", refuse)
        with pytest.raises(DatasetError, match="expected a folder that can be listed, got PermissionError"):
            load_breakhis(tree)


class TestBrokenTrees:
    @pytest.mark.parametrize(("gone", "left"), [("malignant", "benign"), ("benign", "malignant")])
    def test_class_is_missing(self, tree, gone, left):
        shutil.rmtree(tree / gone)
        with pytest.raises(DatasetError, match=f"breast/{gone}: expected a folder beside '{left}', got none"):
            load_breakhis(tree)

    def test_class_is_a_file(self, tree):
        shutil.rmtree(tree / "malignant")
        (tree / "malignant").write_text("")
        with pytest.raises(DatasetError, match="breast/malignant: expected a folder beside 'benign', got a file"):
            load_breakhis(tree)

    def test_class_is_empty(self, tree):
        shutil.rmtree(tree / "malignant/SOB")
        with pytest.raises(
            DatasetError, match=r"expected images of both classes .*got 0 malignant\. The copy is broken"
        ):
            load_breakhis(tree)

    def test_class_of_unusable_files(self, tree):
        for path in (tree / "benign").rglob("*.png"):
            path.write_bytes(b"")
        with pytest.raises(DatasetError, match=r"got 0 benign \(left out, is empty \(0 bytes\): 5 "):
            load_breakhis(tree)


class TestContradictions:
    @pytest.mark.parametrize(
        ("folder", "name", "message"),
        [
            (
                "benign/SOB/adenosis/SOB_B_A_14-22549AB/40X",
                "SOB_M_DC-14-2523-40-001.png",
                "expected the class benign as its folder says, got malignant in its name",
            ),
            (
                "benign/SOB/adenosis/SOB_B_A_14-22549AB/40X",
                "SOB_B_F-14-22549AB-40-009.png",
                "expected the subtype adenosis as its folder says, got fibroadenoma in its name",
            ),
            (
                "benign/SOB/adenosis/SOB_B_A_14-22549AB/40X",
                "SOB_B_XY-14-22549AB-40-009.png",
                "expected the subtype adenosis as its folder says, got an unknown code in its name",
            ),
            (
                "benign/SOB/adenosis/SOB_B_A_14-22549AB/40X",
                "SOB_M_A-14-22549AB-40-009.png",
                "expected the class benign as its folder says, got malignant in its name",
            ),
            (
                "benign/SOB/adenosis/SOB_B_A_14-22549AB/40X",
                "SOB_B_A-14-22549CD-40-009.png",
                "expected slide 14-22549AB as its folder says, got slide 14-22549CD in its name",
            ),
            (
                "benign/SOB/adenosis/SOB_B_A_14-22549AB/40X",
                "SOB_B_A-14-22549AB-100-009.png",
                "expected magnification 40X as its folder says, got 100X in its name",
            ),
            (
                "benign/SOB/adenosis/SOB_B_F_14-21998CD/40X",
                "SOB_B_F-14-21998CD-40-001.png",
                "expected the subtype adenosis as its folder says, got fibroadenoma in its name",
            ),
            (
                "benign/SOB/ductal_carcinoma/SOB_M_DC_14-2523/40X",
                "SOB_M_DC-14-2523-40-001.png",
                "ductal_carcinoma: expected a benign subtype as its folder says, got a malignant one in its name",
            ),
        ],
    )
    def test_name_against_folder(self, tree, folder, name, message):
        put(tree, "A", "1", folder=folder, name=name)
        with pytest.raises(DatasetError, match=message) as caught:
            load_breakhis(tree)
        assert str(caught.value).startswith(folder[:20])

    def test_first_is_named_and_the_rest_counted(self, tree):
        for sequence in (7, 8, 9):
            put(tree, "F", "22549AB", 40, sequence, folder="benign/SOB/adenosis/SOB_B_A_14-22549AB/40X")
        with pytest.raises(DatasetError, match=r"^benign/.*/SOB_B_F-14-22549AB-40-007.png: .*\(and 2 more\)"):
            load_breakhis(tree)


class TestLeftOut:
    def test_files_and_folders_with_reasons(self, tree):
        whole = png()
        bad = {21: b"", 22: b"GIF89a" + bytes(40), 23: whole[:20], 24: whole[:-40]}
        for sequence, content in bad.items():
            put(tree, "A", "22549AB", 40, sequence, content=content)
        slide = tree / "benign/SOB/adenosis/SOB_B_A_14-22549AB"
        (slide / "40X/SOB_B_A-14-22549AB-40-025.png").mkdir()
        (slide / "40X/Thumbs.db").write_text("x")
        (slide / "50X").mkdir()
        (slide / "40").mkdir()
        (slide / "notes.txt").write_text("x")
        (slide.parent / "more").mkdir()
        (tree / "benign/SOB/sarcoma").mkdir()
        (tree / "benign/CNB").mkdir()
        (tree / "normal").mkdir()
        audit = load_breakhis(tree).audit
        assert audit.n_patches == 9
        assert {group.reason: group.count for group in audit.left_out} == {
            "is empty (0 bytes)": 1,
            "is no PNG (wrong first bytes)": 1,
            "has a broken PNG header": 1,
            "is cut off (a PNG without its end)": 1,
            "is a folder": 1,
            "has a name that is no BreakHis image name": 1,
            "is a folder named after no magnification (not searched)": 2,
            "is a file outside the magnification folders": 1,
            "is a folder whose name is no slide (not searched)": 1,
            "is a folder named after no subtype (not searched)": 1,
            "is a folder other than SOB in that of a class (not searched)": 1,
            "is neither benign nor malignant (not searched)": 1,
        }
        assert "SOB_B_A-14-22549AB-40-024.png" in audit.summary()

    def test_sound_copy_stands_in_for_a_bad_one(self, tree):
        shutil.copytree(tree, tree.parents[1] / "breast")
        bad = tree.parents[1] / "breast/benign/SOB/fibroadenoma/SOB_B_F_14-21998CD/40X/SOB_B_F-14-21998CD-40-001.png"
        bad.write_bytes(b"")
        dataset = load_breakhis(tree.parents[2])
        assert (len(dataset), dataset.audit.duplicates, dataset.audit.left_out[0].count) == (9, 8, 1)


class TestCopies:
    @pytest.mark.parametrize("target", ["malignant", "subtype"])
    def test_refused_by_default(self, twice, target):
        message = (
            r"LC-14-13412-40-001.png: expected each image once, got the image of .*DC-14-13412-40-001.png again "
            r"\(and 1 more\). Slide 14-13412 lies under ductal carcinoma and lobular carcinoma. Choose dup"
        )
        with pytest.raises(DatasetError, match=message):
            load_breakhis(twice, target=target)

    def test_only_what_was_chosen_counts(self, twice):
        put(twice, "A", "22549AB", 100)
        assert load_breakhis(twice, 100).audit.two_labels == {}

    def test_drop_keeps_one_where_labels_agree(self, twice):
        dataset = load_breakhis(twice, duplicates="drop")
        frame = dataset.frame[dataset.frame["slide"] == "13412"]
        assert frame[["subtype", "sequence"]].to_numpy().tolist() == [
            ["ductal carcinoma", 1], ["ductal carcinoma", 2], ["lobular carcinoma", 3],
        ]  # fmt: skip
        assert dataset.audit.duplicates == 2
        assert set(frame["patient"]) == {"13412"}
        assert dataset.audit.two_labels == {"14-13412": ("ductal carcinoma", "lobular carcinoma")}

    def test_drop_keeps_none_where_labels_differ(self, twice):
        dataset = load_breakhis(twice, target="subtype", duplicates="drop")
        assert "13412" not in set(dataset.frame["slide"])
        [group] = dataset.audit.left_out
        assert (group.reason, group.count) == ("is of a slide under two labels, one of which must be wrong", 5)
        assert dataset.audit.class_counts["lobular carcinoma"] == 0

    def test_published_keeps_everything(self, twice):
        by_number = load_breakhis(twice, target="subtype", duplicates="published")
        rows = by_number.frame["slide"] == "13412"
        assert rows.sum() == 5
        assert set(by_number.patients[rows]) == {"13412"}
        as_published = load_breakhis(twice, patient_key="full", duplicates="published")
        assert {"DC-14-13412", "LC-14-13412"} <= set(as_published.patients)
        assert as_published.audit.patient_counts == {"number": 5, "full id": 9, "as published": 10}

    def test_published_with_full_ids_is_seen_by_the_audit_of_a_split(self, twice):
        dataset = load_breakhis(twice, patient_key="full", duplicates="published")
        train = np.flatnonzero(dataset.frame["subtype"] != "lobular carcinoma")
        test = np.flatnonzero(dataset.frame["subtype"] == "lobular carcinoma")
        report = audit_split(dataset, [(train, test)])
        assert report.finding("HF001").status == "passed"
        assert report.finding("HF002").status == report.finding("HF005").status == "issue"

    def test_copies_of_other_bytes_are_known_by_their_sequence(self, tree):
        put(tree, "DC", "13412", 40, 1)
        put(tree, "LC", "13412", 40, 1)
        assert load_breakhis(tree, duplicates="drop").audit.duplicates == 1

    def test_equal_bytes_outweigh_the_sequence(self, tree):
        # The copies are shifted by one: by sequence number, different images would pass for the same.
        for sequence in (1, 2):
            content = png(seed=9_000 + sequence)
            put(tree, "DC", "13412", 40, sequence, content=content)
            put(tree, "LC", "13412", 40, sequence + 1, content=content)
        dataset = load_breakhis(tree, duplicates="drop")
        assert dataset.frame.loc[dataset.frame["slide"] == "13412", "subtype"].tolist() == ["ductal carcinoma"] * 2

    def test_equal_files_of_two_patients(self, tree):
        content = png(seed=77)
        put(tree, "A", "1", content=content)
        put(tree, "A", "2", content=content)
        put(tree, "DC", "3", content=png(seed=78))
        with pytest.raises(DatasetError, match=r"SOB_B_A-14-2-40-001.png: expected each image once, got the image of"):
            load_breakhis(tree)
        assert load_breakhis(tree, duplicates="drop").audit.duplicates == 1

    def test_equal_files_under_two_labels_all_go(self, tree):
        content = png(seed=77)
        put(tree, "A", "1", content=content)
        put(tree, "DC", "2", content=content)
        audit = load_breakhis(tree, duplicates="drop").audit
        assert [str(group).split(":")[0] for group in audit.left_out] == [
            "is one image under two labels, one of which must be wrong"
        ]
        assert audit.left_out[0].count == 2

    def test_slide_under_two_labels_without_one_image_in_common(self, tree):
        put(tree, "DC", "13412", 40, 1)
        put(tree, "LC", "13412", 40, 2)
        with pytest.raises(DatasetError, match=r"expected one subtype for each slide, got two. Slide 14-13412 lies"):
            load_breakhis(tree)


class TestArguments:
    @pytest.mark.parametrize(
        ("name", "value", "hint"),
        [
            ("target", "malign", "Did you mean 'malignant'"),
            ("patient_key", "slide", "number, full"),
            ("duplicates", True, "refuse, drop, published"),
        ],
    )
    def test_unknown_choice(self, tree, name, value, hint):
        with pytest.raises(DatasetError, match=rf"load_breakhis.{name}: expected one of .*got {value!r}.*") as caught:
            load_breakhis(tree, **{name: value})
        assert hint in str(caught.value)


class TestAudit:
    def test_counts(self, tree):
        audit = load_breakhis(tree).audit
        assert audit.magnification_counts == {"40X": 8, "100X": 1, "200X": 0, "400X": 0}
        assert audit.patient_counts == {"number": 4, "full id": 8, "as published": 8}
        assert audit.n_patients == 4
        assert audit.completeness == "incomplete: 9 of 7,909 patches (0.1 %), 8 of 82 patients"
        assert "patients: 4 by number, 8 by full id, 8 as published" in audit.summary()

    def test_what_was_dropped_is_not_missing(self, twice):
        audit = load_breakhis(twice, duplicates="drop").audit
        assert audit.n_patches == 12
        assert audit.completeness == "incomplete: 14 of 7,909 patches (0.2 %), 10 of 82 patients"

    def test_subset_counts_again(self, tree):
        part = load_breakhis(tree).subset([0, 1, 5]).audit
        assert part.patient_counts == {"number": 2, "full id": 3, "as published": 3}
        assert part.magnification_counts["100X"] == 0
        assert part.mixed_patients == {}
        assert part.to_dict()["patient_counts"]["number"] == 2
        assert "found" not in part.to_dict()
        assert part.completeness.startswith("incomplete: 3 of 7,909")

    def test_sizes(self, tree):
        put(tree, "A", "22549AB", 40, 2, content=png(456, 700))
        put(tree, "A", "22549AB", 40, 3, content=png(460, 700))
        audit = load_breakhis(tree).audit
        assert audit.size_counts[(456, 700)] == audit.n_nominal_size == 1

    def test_published_totals(self):
        # The authors' page: images at each magnification, and of each class over all of them.
        totals = {40: 1_995, 100: 2_081, 200: 2_013, 400: 1_820, None: 7_909}
        for magnification, n in totals.items():
            for target in ("malignant", "subtype"):
                assert full_set(magnification, target).n_patches == n
        assert full_set(None, "malignant").class_counts == {"benign": 2_480, "malignant": 5_429}
        malignant = [full_set(power, "malignant").class_counts["malignant"] for power in MAGNIFICATIONS]
        assert malignant == [1_370, 1_437, 1_390, 1_232]


@pytest.fixture(scope="module")
def sample(real_data):
    return real_data / "breakhis"


class TestRealSample:
    def test_counts(self, sample):
        dataset = load_breakhis(sample)
        assert (len(dataset), dataset.audit.n_patients) == (78, 23)
        assert dataset.audit.patient_counts == {"number": 23, "full id": 26, "as published": 26}
        assert dataset.audit.magnification_counts == {"40X": 9, "100X": 67, "200X": 1, "400X": 1}
        assert (dataset.audit.duplicates, dataset.audit.left_out, dataset.labels_per) == (0, (), "patient")
        assert dataset.audit.completeness == "incomplete: 78 of 7,909 patches (1.0 %), 26 of 82 patients"
        assert dataset.audit.size_counts == {(460, 700): 75, (456, 700): 3}

    def test_sections_are_one_patient(self, sample):
        dataset = load_breakhis(sample, "100X")
        sections = dataset.frame.loc[dataset.patients == "22549", "slide"]
        assert sorted(set(sections)) == ["22549AB", "22549CD", "22549G"]

    def test_subtypes_and_folds(self, sample):
        dataset = load_breakhis(sample, 100, target="subtype")
        assert all(dataset.audit.class_counts.values())
        assert dataset.labels_per == "patch"
        with pytest.raises(ValueError, match="got class 0 in only 1 of 20 patients"):
            next(PatientKFold(2).split(dataset.X, dataset.y, dataset.patients))

    def test_malignant_folds_part_no_patient(self, sample):
        dataset = load_breakhis(sample, 100)
        report = cheap_findings(dataset, PatientKFold(3).split(dataset.X, dataset.y, dataset.patients))
        assert report.finding("HF001").status == report.finding("HF005").status == "passed"
