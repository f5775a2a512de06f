import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from PIL import Image

from histofeat.datasets import find_patients, load_image_folder, load_manifest, predefined_split, training_part
from histofeat.datasets._csv_rows import read_csv_rows
from histofeat.datasets._manifest import parse_decimal
from histofeat.evaluation import read_predictions
from histofeat.exceptions import DatasetError
from histofeat.model_selection import canonical_patient

HEADER = "path,label,patient\n"


def put(path, seed=None):
    """Write an image whose content depends on its name, or on the seed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list((path.name if seed is None else str(seed)).encode()))
    Image.fromarray(rng.integers(0, 255, (8, 6, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Four images, of which two are in a folder below."""
    for name in ("a.png", "b.png", "more/c.png", "more/d.png"):
        put(tmp_path / "data" / name)
    return tmp_path / "data"


ROWS = "a.png,benign,7\nb.png,benign,8\nmore/c.png,malignant,9\nmore/d.png,malignant,9\n"


def write(folder, text, name="mine.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return folder / name


class TestWhatIsRead:
    def test_rows_in_their_order(self, folder):
        dataset = load_manifest(write(folder, HEADER + ROWS))
        assert dataset.name == "mine"
        assert dataset.root == folder
        assert dataset.relative_paths.tolist() == ["a.png", "b.png", "more/c.png", "more/d.png"]
        assert dataset.target_names == ("benign", "malignant")
        assert dataset.y.tolist() == [0, 0, 1, 1]
        assert dataset.patients.tolist() == ["7", "8", "9", "9"]
        assert dataset.audit.size_counts == {(8, 6): 4}
        assert dataset.frame["x"].isna().all()
        assert dataset.audit.notes == ()

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text.replace("\n", "\r\n"),
            lambda text: "\ufeff" + text,
            lambda text: text.replace(",", " , ").replace(".png ,", ".png,"),
            lambda text: text.replace("\n", "\n\n , ,\n")[:-5] + "\n",
            lambda text: text.replace("a.png", '"a.png"'),
            lambda text: text.rstrip("\n"),
            lambda text: text.replace("a.png", "./a.png").replace("more/", "more//"),
            lambda text: text.replace(",", ";"),
            lambda text: "sep=;\n" + text.replace(",", ";"),
            lambda text: text.replace("\n", ",,\n"),
            lambda text: "\ufeff" + text.replace(",", "\t").replace("\n", "\r\n"),
        ],
        ids=[
            "windows",
            "bom",
            "blanks",
            "empty lines",
            "quotes",
            "no last newline",
            "paths",
            "semicolons",
            "sep=",
            "empty columns",
            "tabs",
        ],
    )
    def test_the_same_table_in_other_spellings(self, folder, change):
        plain = load_manifest(write(folder, HEADER + ROWS))
        other = load_manifest(write(folder, change(HEADER + ROWS)))
        assert other.frame.equals(plain.frame)

    def test_positions_parts_and_other_columns(self, folder):
        text = "slide,part,y,x,path,label,patient\nS1,Train,51,1.0,a.png,p,7\nS2,test,,,b.png,n,8\n"
        frame = load_manifest(write(folder, text)).frame
        assert frame["x"].tolist()[0] == 1
        assert frame["y"].tolist()[0] == 51
        assert frame[["x", "y"]].iloc[1].isna().all()
        assert frame["part"].tolist() == ["train", "test"]
        assert frame["slide"].tolist() == ["S1", "S2"]

    def test_the_column_of_an_index_without_name_is_dropped(self, folder):
        assert "" not in load_manifest(write(folder, ",path,label,patient\n0,a.png,n,7\n1,b.png,p,8\n")).frame

    def test_root(self, folder, tmp_path):
        table = write(tmp_path, HEADER + ROWS)
        with pytest.raises(DatasetError, match=r"mine.csv, line 2: expected an image file, got no such file: 'a.png'"):
            load_manifest(table)
        assert load_manifest(table, root=folder).root == folder

    def test_absolute_paths_and_those_above(self, folder, tmp_path):
        text = HEADER + f"{folder / 'a.png'},n,7\n../../data/more/c.png,p,8\n"
        (tmp_path / "tables/deep").mkdir(parents=True)
        dataset = load_manifest(write(tmp_path / "tables/deep", text))
        assert dataset.relative_paths.tolist() == ["a.png", "more/c.png"]
        assert dataset.root == folder

    def test_two_dots_lead_where_the_file_system_says(self, folder, tmp_path):
        # Of the text alone, link/../b.png would be tables/b.png.
        (tmp_path / "tables").mkdir()
        (tmp_path / "tables/link").symlink_to(folder / "more")
        text = HEADER + "link/../b.png,n,7\nlink/c.png,p,8\n"
        dataset = load_manifest(write(tmp_path / "tables", text))
        assert dataset.X[0] == str(folder / "b.png")

    def test_classes(self, folder):
        table = write(folder, HEADER + ROWS.replace("b.png,benign", "b.png,normal"))
        assert load_manifest(table).target_names == ("benign", "malignant", "normal")
        chosen = load_manifest(table, classes=("normal", "malignant"))
        assert chosen.y.tolist() == [0, 1, 1]
        assert str(chosen.audit.left_out[0]) == "has a label that is not in classes=: 1 (a.png in line 2)"
        merged = load_manifest(table, classes={"normal": "no", "benign": "no", "malignant": "yes"})
        assert merged.audit.class_counts == {"no": 2, "yes": 2}

    def test_number_labels_and_codes(self, folder):
        numbers = write(folder, HEADER + "a.png,10,1\nb.png,9,2\n")
        assert load_manifest(numbers).target_names == ("9", "10")
        coded = write(folder, "path,label,label_code,patient\na.png,IDC,1,1\nb.png,no IDC,0,2\n")
        assert load_manifest(coded).target_names == ("no IDC", "IDC")

    def test_made_up_images_stay_made_up(self, folder):
        text = "path,label,patient,synthetic\na.png,n,1,{}\nb.png,p,2,no\n"
        assert load_manifest(write(folder, text.format("yes"))).synthetic
        assert not load_manifest(write(folder, text.format("no"))).synthetic
        with pytest.raises(DatasetError, match=r"line 2: expected yes or no in the column 'synthetic', got 'perhaps'"):
            load_manifest(write(folder, text.format("perhaps")))

    def test_each_image_its_own_patient(self, folder):
        table = write(folder, "path,label\na.png,n\nmore/c.png,p\n")
        with pytest.raises(DatasetError, match=r"line 1: expected the column patient.*intervals too narrow.*\"image\""):
            load_manifest(table)
        with pytest.warns(UserWarning, match="own patient") as caught:
            dataset = load_manifest(table, patients="image")
        assert caught[0].filename == __file__
        assert dataset.patients.tolist() == ["a.png", "more/c.png"]
        assert dataset.name == "mine, patients unknown"
        assert "Patients are unknown" in dataset.audit.summary()
        with pytest.raises(DatasetError, match="only for a CSV without the column 'patient'"):
            load_manifest(write(folder, HEADER + ROWS), patients="image")
        with pytest.raises(DatasetError, match=r"patients: expected None, 'image' or 'tcga', got '\^x'"):
            load_manifest(table, patients="^x")

    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1),
                st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_any_text_comes_back(self, tmp_path, cells):
        # An apostrophe before a formula is a guard, which reading takes away.
        assume(not any(cell.startswith("'") for pair in cells for cell in pair))
        with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "patient"), ("x", "y"), *cells])
        rows = read_csv_rows(tmp_path / "t.csv", ("path", "patient"), owner="t")
        kept = [cell for cell in cells if cell[0].strip() or cell[1].strip()]
        expected = [(path, canonical_patient(patient) or patient.strip()) for path, patient in kept]
        assert [(row["path"], row["patient"]) for row in rows.rows[1:]] == expected


class TestBadTables:
    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("path,label\na.png,n\n", r"line 1: expected the column patient"),
            ("slide,label,patient\na.png,n,1\n", r"line 1: expected the columns path, label, got none named 'path'"),
            ("file,image,label,patient\na.png,b,n,1\n", "line 1: expected one column for path, got 'file' and 'image'"),
            (
                "path,label,case,Patient ID\na.png,n,1,1\n",
                "one column for patient, got 'case' and 'Patient ID'. Rename",
            ),
            ("pth,label,patient\na.png,n,1\n", r"Did you mean 'pth'\?"),
            ("path|label|patient\na.png|n|1\n", r"got none named 'path' \(and 1 more\). The first line must name"),
            ("path;label;patient\na.png;n;1\nb;1.png;p;2\n", "line 3: .* got 4. Put cells that hold semicolons"),
            ('path\tlabel\tpatient\na.png\tn\t1\n"b', "line 3: expected cells divided by tabs"),
            ("path,label,patient,label\na.png,n,1,n\n", "line 1: expected each column once, got 'label' again"),
            ("sep=,\n" + HEADER + "a.png,n,1\nb.png,,2\n", "line 4: expected text in the column 'label'"),
            ("sep=,\n", r"line 1: expected the columns path, label, got none named 'path'"),
            (HEADER, r"expected one row or more below the header, got 0"),
            ("", "expected a header and rows, got an empty file"),
            (HEADER + "a.png,n,1\nb.png,p\n", "line 3: expected 3 cells as in the header, got 2"),
            (HEADER + "a.png,n,1\nb,1.png,p,2\n", "line 3: expected 3 cells as in the header, got 4"),
            (HEADER + 'a.png,n,1\n"b.png,p,2\n', r"line 3: expected cells divided by commas.*unexpected end"),
            (HEADER + 'a.png,"n"x,1\n', "line 2: expected cells divided by commas"),
            (HEADER + "a.png,n,1\nb.png,,2\nmore/c.png,,2\n", r"line 3: .* 'label', got an empty cell \(and 1 more\)"),
            (HEADER + "a.png,n,1\nb.png,p, \n", "line 3: expected text in the column 'patient', got an empty cell"),
            (HEADER + " ,n,1\nb.png,p,2\n", "line 2: expected text in the column 'path'"),
            (HEADER + "a.png,n,1\n\nb.png,p,2\na.png,n,1\n", r"line 5: .* got 'a.png' again in line 2. Remove one"),
            (HEADER + "a.png,n,1\n./a.png,p,1\n", r"line 3: expected one label .*, got 'p' here and 'n' in line 2"),
            (HEADER + "a.png,n,1\nx.png,p,1\ny.png,p,1\n", r"line 3: .* no such file: 'x.png' .*\(and 1 more\)"),
            (HEADER + "a.png,n,1\nmore,p,1\n", "line 3: expected an image file, got a folder"),
            (
                HEADER + "a.png,n,1\nD:\\more\\c.png,p,1\n",
                r"root= .* Paths of another machine .*prefixes=.*--path-prefix",
            ),
            (HEADER + "a.png,Benign,1\nb.png,benign,1\n", "line 3: .* in more than case, got 'benign' .* in line 2"),
            (HEADER + "a.png,n,1\nb.png,n,1\n", "expected rows of two or more classes, got only 'n'"),
            ("path,label,patient,x\na.png,n,1,-5\nb.png,p,2,\n", "line 2: expected a whole number .* 'x', got '-5'"),
            ("path,label,patient,y\na.png,n,1,1e3\nb.png,p,2,\n", "line 2: .* 'y', got '1e3'"),
            ("path,label,patient,x\na.png,n,1," + "9" * 20 + "\nb.png,p,2,\n", "line 2: expected a whole number"),
            ("path,label,patient,part\na.png,n,1,dev\nb.png,p,2,test\n", "line 2: expected train.*got 'dev'"),
            ("path,label,patient,part\na.png,n,1,train\nb.png,p,2,\n", "line 3: .* 'part', got an empty cell"),
            (
                "path,label,label_code,patient\na.png,n,0,1\nb.png,p,0,2\n",
                r"line 3: expected one label for each label_code, got 'p' here and 'n' in line 2",
            ),
            ("path,label,label_code,patient\na.png,n,zero,1\nb.png,p,1,2\n", "line 2: .* got 'zero'"),
        ],
    )
    def test_named_with_its_line(self, folder, text, match):
        with pytest.raises(DatasetError, match=match):
            load_manifest(write(folder, text))

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            ((HEADER + "a.png,gutartig\nb.png,b").encode() + b"\x81\n", "line 3: .* UTF-8, got the byte 0x81"),
            ((HEADER + ROWS).encode("utf-16")[:-1], "line 1: expected text in UTF-8, got the byte"),
            ((HEADER + ROWS).encode("utf-16-le"), "line 1: expected text in UTF-8, got UTF-16"),
            (b"PK\x03\x04rest of a spreadsheet", "got a spreadsheet or an archive"),
        ],
    )
    def test_other_encodings(self, folder, content, match):
        with pytest.raises(DatasetError, match=match):
            load_manifest(write(folder, content))

    def test_a_line_is_counted_as_an_editor_counts(self, folder):
        text = 'path,label,patient,note\na.png,n,1,"two\nlines"\nb.png,,2,x\n'
        with pytest.raises(DatasetError, match="line 4: expected text in the column 'label'"):
            load_manifest(write(folder, text))

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"csv": None}, "load_manifest.csv: expected a path, got None"),
            ({"csv": "gone.csv"}, "load_manifest.csv: expected a CSV file, got a path that does not exist"),
            ({"root": ""}, "load_manifest.root: expected a path, got ''"),
            ({"root": "gone"}, "load_manifest.root: expected an existing folder, got 'gone'"),
            ({"classes": "benign"}, "load_manifest.classes: expected 1 or more labels, or a mapping"),
            (
                {"classes": {"benign": 0, "malignant": 1}},
                "load_manifest.classes: expected 1 or more labels, or a mapping",
            ),
            ({"classes": ("benign", "tumor")}, r"got 'tumor'. Labels there: 'benign', 'malignant'"),
        ],
    )
    def test_arguments(self, folder, arguments, match):
        with pytest.raises(DatasetError, match=match):
            load_manifest(**({"csv": write(folder, HEADER + ROWS)} | arguments))

    def test_a_folder_for_the_csv(self, folder):
        with pytest.raises(DatasetError, match="expected a CSV file, got a folder"):
            load_manifest(folder)

    def test_images_on_two_drives(self, folder, tmp_path, monkeypatch):
        def refuse(paths):
            raise ValueError("Paths don't have the same drive")

        (tmp_path / "tables").mkdir()
        monkeypatch.setattr("os.path.commonpath", refuse)
        with pytest.raises(DatasetError, match="expected images on one drive"):
            load_manifest(write(tmp_path / "tables", HEADER + "../data/a.png,n,1\n../data/b.png,p,2\n"))


class TestFiles:
    def test_what_is_no_image_is_left_out_with_its_line(self, folder):
        (folder / "b.png").write_bytes(b"no image")
        (folder / "more/c.png").write_bytes(b"")
        dataset = load_manifest(write(folder, HEADER + ROWS))
        assert len(dataset) == 2
        assert [group.examples for group in dataset.audit.left_out] == [("c.png in line 4",), ("b.png in line 3",)]
        (folder / "more/d.png").write_bytes(b"")
        with pytest.raises(DatasetError, match="expected an image of each class, got 0 of 'malignant'"):
            load_manifest(write(folder, HEADER + ROWS))

    def test_one_content_under_two_labels_and_patients_is_noted(self, folder):
        shutil.copy(folder / "a.png", folder / "more/d.png")
        notes = load_manifest(write(folder, HEADER + ROWS)).audit.notes
        assert [note.split(":")[0] for note in notes] == [
            "Files of the same content",
            "Files of the same content under different classes",
            "Files of the same content under different patients",
        ]

    def test_patients_in_two_parts_or_two_spellings_are_noted(self, folder):
        text = (
            "path,label,patient,part\na.png,n,p1,train\nb.png,p,p1,test\nmore/c.png,n,P1,test\nmore/d.png,p,2,train\n"
        )
        dataset = load_manifest(write(folder, text))
        shared, case = dataset.audit.notes
        assert shared.startswith("Patients in more than one part: 1 of 3, the first is 'p1'.")
        assert case.startswith("Patient ids that differ only in case, zeros or dashes: 'P1' and 'p1'.")
        assert predefined_split(dataset).shared_patients == ("p1",)


def test_real_patches_by_a_table(real_data, tmp_path):
    files = sorted((real_data / "breakhis").rglob("*.png"))
    rows = [("path", "label", "patient", "slide")]
    for path in files:
        _, tumour, rest = path.name.split("_")
        rows.append((path.relative_to(real_data), rest.split("-")[0], rest.split("-")[2], tumour))
    with (tmp_path / "breakhis.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    dataset = load_manifest(tmp_path / "breakhis.csv", root=real_data)
    assert len(dataset) == len(files)
    assert len(dataset.target_names) == 8
    assert dataset.audit.left_out == ()


class TestOneReader:
    """The same table is read, or refused, in the same way wherever a table is read."""

    DOORS = (
        lambda path: load_manifest(path).patients.tolist(),
        lambda path: load_image_folder(path.parent, patients=path).patients.tolist(),
        lambda path: find_patients(path, [str(path.parent / name) for name in ("n/a.png", "p/b.png")]).tolist(),
        lambda path: ["7", "8"] if read_predictions(path)["score"].tolist() == [0.25, 0.5] else [],
    )
    TEXT = "path,label,patient,patch,score\nn/a.png,n,7,n/a.png,0.25\np/b.png,p,8,p/b.png,0.5\n"

    @pytest.fixture
    def place(self, tmp_path):
        put(tmp_path / "n/a.png")
        put(tmp_path / "p/b.png")
        return tmp_path

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_dialects(self, place, door, delimiter, mark):
        assert door(write(place, mark + self.TEXT.replace(",", delimiter))) == ["7", "8"]
        assert door(write(place, f'{mark}"sep={delimiter}"\r\n' + self.TEXT.replace(",", delimiter))) == ["7", "8"]
        quoted = self.TEXT.replace("0.25\n", '"0.25"\r\n')
        assert door(write(place, mark + quoted.replace(",", delimiter))) == ["7", "8"]

    @pytest.mark.parametrize("door", DOORS)
    def test_other_spellings_of_columns_and_encodings(self, place, door):
        text = self.TEXT.replace("path,label,patient,patch,score", "File Name,Class,Case ID,Image.Path,Probability")
        other = self.TEXT.replace("path,label,patient,patch,score", "PATH,LABEL,PATIENT,PATCH,SCORE")
        for encoding in ("utf-16", "utf-32"):
            assert door(write(place, other, encoding=encoding)) == ["7", "8"]
        with pytest.raises(DatasetError, match=r"one column for pa.*, got 'File Name' and 'Image.Path'"):
            door(write(place, text))
        assert door(write(place, text.replace("Image.Path", "Further"))) == ["7", "8"]

    @pytest.mark.parametrize("whole", ["8", "8.0", "8,0", " 8.00"])
    def test_whole_numbers_in_any_form_are_one_patient_and_one_class(self, place, whole):
        put(place / "p/c.png")
        text = f"path;label;patient\nn/a.png;{whole};7\np/b.png;8;{whole}\np/c.png;9;8\n"
        found = load_manifest(write(place, text))
        assert (found.patients.tolist(), found.target_names) == (["7", "8", "8"], ("8", "9"))

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize(
        ("text", "match"),
        [
            (TEXT.replace("path,", "path;"), "line 1: expected the columns|line 2: expected 4 cells"),
            (TEXT.replace("0.5\n", "0,5\n"), "line 3: expected 5 cells as in the header, got 6"),
            (TEXT + '"', "line 4: expected cells divided by commas, got text that is not CSV"),
            (
                "a" * 200_000,
                r"line \d: expected cells of at most 131,072 characters, got a longer one. Close the double",
            ),
            (
                TEXT.replace("7,n/", "1.03E+04,n/"),
                r"line 2: expected a whole id in the column 'patient', got '1.03E\+04'",
            ),
            (
                TEXT.replace(",", ";").replace("8;p/", "1,03E+04;p/"),
                r"line 3: expected a whole id .* A spreadsheet has",
            ),
            ("PK\x03\x04" + TEXT, "expected a CSV file, got a spreadsheet or an archive"),
            (TEXT.encode("utf-16-le"), "expected text in UTF-8, got UTF-16"),
            ("", "expected a header and rows, got an empty file"),
        ],
    )
    def test_damage(self, place, door, text, match):
        with pytest.raises(DatasetError, match=match):
            door(write(place, text))


#: What Excel, LibreOffice, R and pandas write of one table: name, content, and what is special about it.
FOURTEEN = {
    "Excel, German": "\ufeffpath;label;patient;x;y\r\na.png;gutartig;7;1;51\r\nb.png;bösartig;8;;\r\n",
    "Excel without a mark": "path;label;patient;x;y\na.png;gutartig;7;1;51\nb.png;bösartig;8;;\n".encode("cp1252"),
    "Excel, Unicode text": "path\tlabel\tpatient\tx\ty\na.png\tgutartig\t7\t1\t51\nb.png\tbösartig\t8\t\t\n".encode(
        "utf-16"
    ),
    "Excel, empty columns": "path,label,patient,x,y,,\na.png,gutartig,7,1,51,,\nb.png,bösartig,8,,,,\n",
    "Excel, empty cells beyond the header": "path,label,patient,x,y\na.png,gutartig,7,1,51,,\nb.png,bösartig,8,,,\n",
    "Excel, sep=": "sep=;\r\npath;label;patient;x;y\r\na.png;gutartig;7;1;51\r\nb.png;bösartig;8;;\r\n",
    "decimal commas": "path;label;patient;x;y\na.png;gutartig;7;1,00;51,0\nb.png;bösartig;8;;\n",
    "pandas with gaps": ",path,label,patient,x,y\n0,a.png,gutartig,7.0,1.0,51.0\n1,b.png,bösartig,8.0,,\n",
    "pandas, na_rep": "path,label,patient,x,y\na.png,gutartig,7,1.00,51.00\nb.png,bösartig,8,nan,nan\n",
    "R, write.csv": "'','path','label','patient','x','y'\n"
    "'1','a.png','gutartig',7,1,51\n'2','b.png','bösartig',8,NA,NA\n",
    "R, write.table": "'path','label','patient','x','y'\n"
    "'1','a.png','gutartig',7,1,51\n'2','b.png','bösartig',8,NA,NA\n",
    "R, write.csv2": "'';'path';'label';'patient';'x';'y'\n"
    "'1';'a.png';'gutartig';7;1,0;51\n'2';'b.png';'bösartig';8;NA;NA\n",
    "capitals and synonyms": "Filename,Class,Case ID,X,Y\na.png,gutartig,7,1,51\nb.png,bösartig,8,,\n",
    "Windows": "Image Path,Label,Subject_ID,x,y\nD:\\scans\\a.png,gutartig,7,1,51\nd:\\Scans\\b.png,bösartig,8,,\n",
}
FOURTEEN |= {name: FOURTEEN[name].replace("'", '"') for name in FOURTEEN if name.startswith("R,")}


class TestRealLife:
    @pytest.mark.filterwarnings("ignore:.*Windows-1252")
    @pytest.mark.parametrize("name", FOURTEEN)
    def test_fourteen_files_of_one_table(self, folder, name):
        plain = HEADER.strip() + ",x,y\na.png,gutartig,7,1,51\nb.png,bösartig,8,,\n"
        expected = load_manifest(write(folder, plain)).frame
        found = load_manifest(write(folder, FOURTEEN[name]), prefixes={"D:\\scans": str(folder)})
        assert found.frame.equals(expected)
        assert found.target_names == ("bösartig", "gutartig")

    def test_what_was_guessed_is_noted(self, folder):
        table = write(folder, FOURTEEN["Excel without a mark"])
        with pytest.warns(UserWarning, match=r"mine.csv: expected text in UTF-8.* 0xf6 in line 3.* Windows-1252"):
            assert "it was read as Windows-1252 (Latin-1)" in load_manifest(table).audit.summary()
        notes = load_manifest(write(folder, FOURTEEN["capitals and synonyms"])).audit.notes
        assert notes == (
            "Columns of mine.csv that were read under other names: 'Filename' as path, 'Class' as label, "
            "'Case ID' as patient, 'X' as x, 'Y' as y.",
        )

    def test_a_column_is_called_as_in_the_file(self, folder):
        with pytest.raises(DatasetError, match=r"line 3: expected text in the column 'Class', got an empty cell"):
            load_manifest(write(folder, "file,Class,case\na.png,n,7\nb.png,,8\n"))

    def test_the_exact_name_goes_first(self, folder):
        table = write(folder, "path,image,label,class,patient,case\na.png,q,n,r,7,s\nb.png,q,p,r,8,s\n")
        dataset = load_manifest(table)
        assert dataset.patients.tolist() == ["7", "8"]
        assert dataset.frame["case"].tolist() == ["s", "s"]
        assert dataset.audit.notes == ()

    @pytest.mark.parametrize("cell", ["1.000", "1,000", "1.5", "1,234.0", "x", "1e3"])
    def test_positions_that_may_mean_something_else(self, folder, cell):
        table = write(folder, f"path;label;patient;x\na.png;n;1;{cell}\nb.png;p;2;\n")
        with pytest.raises(DatasetError, match=f"expected a whole number of pixels in the column 'x', got '{cell}'"):
            load_manifest(table)

    def test_backslashes_and_prefixes(self, folder, tmp_path):
        rows = "a.png,n,7\nmore\\c.png,p,9\n"
        assert load_manifest(write(folder, HEADER + rows)).X[1] == str(folder / "more/c.png")
        put(folder / "back\\slash.png")
        odd = load_manifest(write(folder, HEADER + "a.png,n,7\nback\\slash.png,p,9\n"))
        assert odd.X[1] == str(folder / "back\\slash.png")
        mapped = {r"\\server\share": str(tmp_path), r"\\server\share\old": str(folder), "/old": str(folder)}
        text = HEADER + "\\\\server\\share\\old\\a.png,n,7\n//server/share/data/b.png,p,8\n/old/more/c.png,p,9\n"
        names = load_manifest(write(folder, text), prefixes=mapped).relative_paths.tolist()
        assert names == ["a.png", "b.png", "more/c.png"]
        with pytest.raises(DatasetError, match=r"no such file: '/older/a.png'"):
            load_manifest(write(folder, HEADER + "/older/a.png,n,7\n/old/b.png,p,8\n"), prefixes=mapped)
        with pytest.raises(DatasetError, match=r"load_manifest.prefixes: expected a mapping of text to text, got"):
            load_manifest(write(folder, HEADER + ROWS), prefixes={"": "x"})

    def test_tables_of_patients(self, folder):
        table = write(folder, "File;Case_ID\r\nmore\\c.png;9\r\nmore\\d.png;9\r\na.png;7\r\n", name="p.csv")
        assert find_patients(table, ["x/more/c.png", "a.png"]).tolist() == ["9", "7"]
        for name in ("n/a.png", "p/b.png"):
            put(folder / "t" / name)
        table = write(folder / "t", "Image;Patient ID\nn\\a.png;7\np\\b.png;8\n", name="p.csv")
        assert load_image_folder(folder / "t", patients=table).patients.tolist() == ["7", "8"]

    def test_predictions(self, tmp_path):
        text = "Filename;Probability\r\nd\\1_idx5_x1_y1_class0.png;0,25\r\ne.png;\r\n"
        found = read_predictions(write(tmp_path, text, encoding="utf-16"))
        assert found["score"].tolist()[0] == 0.25
        assert np.isnan(found["score"][1])
        with pytest.raises(ValueError, match=r"expected a number in the column 'score', got '1.234,5'"):
            read_predictions(write(tmp_path, "patch;score\na;1.234,5\n"))

    @pytest.mark.parametrize(
        "content",
        ["7\n8.0\n", "\ufeff7\r\n\r\n8\r\n", "Patient ID\n7\n8\n", "case;site\n7;x\n8;y\n", '"7"\n"8"\n', "7;;\n8;;\n"],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_lists_of_patients(self, folder, content, encoding):
        dataset = load_manifest(write(folder, HEADER + ROWS))
        path = write(folder, content, name="ids.txt", encoding=encoding)
        assert sorted(training_part(dataset, only=path).patients) == ["7", "8"]

    @pytest.mark.parametrize("content", ["", " \n", ";;\n"])
    def test_empty_lists_of_patients(self, folder, content):
        with pytest.raises(DatasetError, match="got an empty file"):
            training_part(load_manifest(write(folder, HEADER + ROWS)), only=write(folder, content, name="ids.txt"))


class TestOnError:
    @pytest.fixture
    def many(self, tmp_path):
        rows = [f"{n}.png,{'np'[n % 2]},{n // 2}" for n in range(20)]
        for n in range(20):
            put(tmp_path / f"{n}.png")
        return write(tmp_path, HEADER + "\n".join(rows))

    def test_files_that_are_gone_or_no_files(self, many):
        folder = many.parent
        (folder / "3.png").unlink()
        (folder / "4.png").unlink()
        os.mkfifo(folder / "4.png")
        dataset = load_manifest(many)
        assert len(dataset) == 18
        assert dataset.audit.failures == (("3.png", "cannot be read (FileNotFoundError)"), ("4.png", "is a named pipe"))
        assert [group.examples for group in dataset.audit.left_out] == [("3.png in line 5",), ("4.png in line 6",)]
        with pytest.raises(DatasetError, match=r"line 5: expected an image file, got no such file: '3.png'"):
            load_manifest(many, on_error="raise")
        put(folder / "3.png")
        with pytest.raises(
            DatasetError, match=r"4.png: expected an image that can be read, got one that is a named pipe"
        ):
            load_manifest(many, on_error="raise")
        with pytest.raises(ValueError, match="on_error: expected one of raise, skip, got 'drop'"):
            load_manifest(many, on_error="drop")

    def test_too_many_that_are_gone(self, many):
        for n in (3, 4, 5):
            (many.parent / f"{n}.png").unlink()
        with pytest.raises(DatasetError, match=r"expected an image file, got no such file: '3.png' .*\(and 2 more\)"):
            load_manifest(many)


class TestFoundByFuzzing:
    def test_a_name_of_several_lines_is_one_of_several_words(self, tmp_path):
        (tmp_path / "t.csv").write_text('"p\na",b\n1,2\n')
        with pytest.raises(DatasetError, match=r"Known names: b, p a\.") as refused:
            read_csv_rows(tmp_path / "t.csv", ("score",), owner="here")
        assert "\n" not in str(refused.value)

    def test_a_guarded_blank_before_a_name_is_none_of_it(self, tmp_path):
        (tmp_path / "t.csv").write_text("'\tpath,label\na.png,b\n")
        rows = read_csv_rows(tmp_path / "t.csv", ("path", "label"), owner="here")
        assert rows.rows == [{"path": "a.png", "label": "b"}]

    @pytest.mark.parametrize("text", ["0_1", "1_000", "a"])
    def test_what_python_alone_takes_for_a_number_is_none(self, text):
        assert parse_decimal(text) is None
