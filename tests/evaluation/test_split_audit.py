"""The audit of a split: what the table alone gives away, how errors are refused, and what the report says."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest

from histofeat.datasets import PatchDataset
from histofeat.evaluation import CODES, AuditReport, Finding, audit_split, cheap_findings
from histofeat.evaluation.audit._findings import check_audit
from histofeat.evaluation.audit._table_checks import case_number, section_letters
from histofeat.exceptions import DatasetError, GroupLeakageError
from histofeat.features import Runtime
from histofeat.model_selection import PatchKFold, PatientKFold
from histofeat.reporting import html_page, render_markdown

NAMES = ("benign", "malignant")


def dataset_of(patients, y=None, *, slides=None, **more):
    """A data set of one patch for each entry of `patients`; nobody opens its images."""
    y = [k % 2 for k in range(len(patients))] if y is None else y
    frame = pd.DataFrame(
        {"path": [f"/data/{k}.png" for k in range(len(patients))], "label": y, "patient": list(map(str, patients))}
    ).assign(x=pd.NA, y=pd.NA)
    if slides is not None:
        frame["slide"] = slides
    return PatchDataset(frame, more.pop("target_names", NAMES), "mine", root="/data", **more)


def finding_of(code, patients, splits, y=None, **more):
    return cheap_findings(dataset_of(patients, y, **more), splits).finding(code)


def made(code, status="issue", severity="error", offenders=("a", "b")):
    return Finding(code, CODES[code], severity, status, "Something.", offenders=offenders if status == "issue" else ())


HALVES = [([0, 1, 2, 3], [4, 5, 6, 7])]


class TestSharedPatients:
    def test_caught_with_its_folds(self):
        splits = [([0, 1, 2], [3, 4, 5]), ([3, 4, 5], [0, 1, 2]), ([0, 1, 4, 5], [2, 3])]
        found = finding_of("HF001", ["a", "a", "b", "b", "c", "c"], splits)
        assert (found.status, found.severity) == ("issue", "error")
        assert found.offenders == ("patient b in fold 1, 2",)
        assert found.numbers == {"patients": 3, "shared": 1}
        assert found.detail == "Patients on both sides of a fold: 1 of 3."

    def test_passed(self):
        found = finding_of("HF001", list("aabbccdd"), HALVES)
        assert (found.status, found.offenders) == ("passed", ())
        assert "1 fold, 4 patients" in found.detail

    def test_one_id_in_two_types_is_one_patient(self):
        frame = dataset_of(list("aabb")).frame
        dataset = PatchDataset(frame.assign(patient=["8863", "1", "8863", "2"]), NAMES, "mine")
        assert cheap_findings(dataset, [([0, 1], [2, 3])]).finding("HF001").numbers["shared"] == 1

    @pytest.mark.parametrize("seed", range(5))
    def test_agrees_with_sets(self, seed):
        rng = np.random.default_rng(seed)
        patients = rng.integers(0, 12, 40).astype(str)
        order = rng.permutation(40)
        splits = [(order[:25], order[25:]), (order[30:], order[:20])]
        found = finding_of("HF001", patients, splits)
        shared = [set(patients[train]) & set(patients[test]) for train, test in splits]
        assert found.numbers["shared"] == len(shared[0] | shared[1])
        assert {words.split()[1] for words in found.offenders} == shared[0] | shared[1]


class TestLostClasses:
    def test_caught_on_either_side(self):
        splits = [([0, 1, 2, 3], [4, 6]), ([1, 3], [4, 5])]
        found = finding_of("HF004", list("aabbccdd"), splits)
        assert found.is_error
        assert found.offenders == (
            "the test side of fold 1 has no 'malignant'",
            "the training side of fold 2 has no 'benign'",
        )

    def test_passed_and_a_class_that_the_data_lack_does_not_count(self):
        found = finding_of("HF004", list("aabbccdd"), HALVES, target_names=("benign", "malignant", "unsure"))
        assert found.status == "passed"
        assert found.numbers == {"classes": 2}


class TestSiblings:
    @pytest.mark.parametrize(
        ("name", "number", "letters"),
        [
            ("22549AB", "22549", "AB"),
            ("14-22549CD", "14-22549", "CD"),
            ("SOB_B_A-14-22549G", "14-22549", "G"),
            ("SOB_M_DC-14-13412", "14-13412", ""),
            ("lc-14-13412", "14-13412", ""),
            ("18842D", "18842", "D"),
            ("8863", "8863", ""),
            ("TCGA-A1-A0SB", "TCGA-A1-A0SB", ""),
            ("patient7b", "patient7b", ""),
            ("A-1", "A-1", ""),
            ("123ABCD", "123ABCD", ""),
        ],
    )
    def test_ids(self, name, number, letters):
        assert (case_number(name), section_letters(name)) == (number, letters)

    def test_caught(self):
        patients = ["22549AB", "22549CD", "18842", "7", "22549G", "18842D", "9", "8"]
        found = finding_of("HF005", patients, HALVES)
        assert found.is_error
        assert found.offenders == (
            "patients 18842 and 18842D in fold 1",
            "patients 22549AB and 22549G in fold 1",
            "patients 22549CD and 22549G in fold 1",
        )

    def test_one_case_under_two_tumour_types(self):
        patients = ["DC-14-13412", "1", "2", "3", "LC-14-13412", "4", "5", "6"]
        assert finding_of("HF005", patients, HALVES).offenders == ("patients DC-14-13412 and LC-14-13412 in fold 1",)

    def test_passed_where_the_sections_stand_together(self):
        found = finding_of("HF005", ["22549AB", "22549CD", "1", "2", "3", "4", "5", "6"], HALVES)
        assert found.status == "passed"
        assert found.numbers == {"sections": 2, "pairs": 0}

    @pytest.mark.parametrize("patients", [range(8), ["TCGA-A1-A0SB", "TCGA-A1-A0SD"] * 4])
    def test_not_applicable(self, patients):
        assert finding_of("HF005", patients, [([0, 2], [1, 3])]).status == "not applicable"

    def test_slides_of_different_patients(self):
        slides = ["22549AB", "1", "2", "3", "22549CD", "4", "5", None]
        found = finding_of("HF005", range(8), HALVES, slides=slides)
        assert found.offenders == ("slides 22549AB and 22549CD in fold 1",)

    def test_slides_of_one_patient_are_the_business_of_hf001(self):
        slides = ["22549AB", "1", "2", "3", "22549CD", "4", "5", "6"]
        report = cheap_findings(dataset_of([*"pabcpdef"], slides=slides), HALVES)
        assert report.finding("HF005").status == "passed"
        assert report.finding("HF001").status == "issue"

    def test_slides_that_are_counted_within_a_patient(self):
        found = finding_of("HF005", range(8), HALVES, slides=["1A", "1B"] * 4)
        assert found.status == "not applicable"
        assert "counts slides within a patient" in found.detail


class TestContradictingPatients:
    def test_caught(self):
        patients, y = ["13412", "13412", "1", "2", "3", "3", "4", "4"], [0, 1, 0, 1, 1, 1, 0, 0]
        found = finding_of("HF006", patients, HALVES, y, labels_per="patient")
        assert found.is_error
        assert found.offenders == ("13412: benign and malignant",)
        assert "not compared" in found.unseen

    def test_caught_by_the_number_of_the_case(self):
        patients = ["SOB_M_DC-14-13412", "SOB_M_LC-14-13412", "22549AB", "22549CD", "5", "6", "7", "8"]
        found = finding_of("HF006", patients, HALVES, [0, 1, 0, 0, 0, 0, 1, 1], labels_per="patient")
        assert found.offenders == ("SOB_M_DC-14-13412 and SOB_M_LC-14-13412: benign and malignant",)

    def test_passed(self):
        found = finding_of("HF006", list("aabbccdd"), HALVES, [0, 0, 1, 1] * 2, labels_per="patient")
        assert found.status == "passed"

    def test_left_open_where_labels_are_those_of_patches(self):
        report = cheap_findings(dataset_of(list("aabbccdd")), HALVES)
        with pytest.raises(ValueError, match="expected a code of this report, got 'HF006'"):
            report.finding("HF006")


class TestFilesByClass:
    """Thirty patients with three patches each, half of them of each class."""

    PATIENTS = np.repeat(np.arange(30), 3)
    Y = (PATIENTS % 2).astype(int)

    def finding(self, paths=None, y=None, **columns):
        dataset = dataset_of(self.PATIENTS, self.Y if y is None else y)
        frame = dataset.frame.assign(**columns)
        if paths is not None:
            frame["path"] = [f"/data/{k}{suffix}" for k, suffix in enumerate(paths)]
        halves = [(np.arange(45), np.arange(45, 90))]
        return cheap_findings(PatchDataset(frame, NAMES, "mine", root="/data"), halves).finding("HF011")

    def test_a_format_for_each_class(self):
        found = self.finding(np.where(self.Y, ".JPG", ".png"))
        assert (found.status, found.severity) == ("issue", "warning")
        assert found.offenders == ("the format of the file tells the class of 100.0% of the patches",)
        assert found.numbers == {"commonest": 0.5}

    def test_a_size_for_each_class(self):
        found = self.finding(height=np.where(self.Y, 50, 60), width=50)
        assert found.offenders == ("the size of the file tells the class of 100.0% of the patches",)

    def test_formats_and_sizes_at_random(self):
        rng = np.random.default_rng(0)
        found = self.finding(rng.choice([".png", ".jpg"], 90), height=rng.integers(40, 60, 90), width=50)
        assert found.status == "passed"
        assert "from the format or the size of the files" in found.detail

    def test_what_only_the_own_patient_has_tells_nothing(self):
        assert self.finding(height=self.PATIENTS + 40, width=50).status == "passed"

    def test_three_patients_are_no_proof(self):
        y = np.arange(90) // 87
        found = self.finding(np.where(y, ".jpg", ".png"), y=y)
        assert found.status == "passed"

    def test_agrees_with_a_loop(self):
        from scipy.stats import binom

        rng = np.random.default_rng(1)
        for noise in (0.05, 0.2, 0.4):
            suffix = np.where(rng.random(90) < noise, 1 - self.Y, self.Y)
            hits = 0
            for row in range(90):
                others = self.Y[(suffix == suffix[row]) & (self.PATIENTS[row] != self.PATIENTS)]
                hits += np.bincount(others, minlength=2).argmax() == self.Y[row]
            p = binom.sf(round(hits / 3) - 1, 30, 0.5)
            found = self.finding(np.where(suffix, ".jpg", ".png"))
            assert found.status == ("issue" if hits / 90 >= 0.75 and p < 1e-3 else "passed")
            if found.status == "issue":
                assert f"{hits / 90:.1%}" in found.offenders[0]


class TestWhole:
    def test_folds_by_patient_pass_and_folds_by_patch_do_not(self, cohort, tmp_path):
        store = tmp_path / "features.sqlite"
        for cv, shared in ((PatientKFold(3), 0), (PatchKFold(3), 15)):
            splits = cv.split(cohort.X, cohort.y, cohort.patients)  # an iterator: it is walked once
            report = audit_split(cohort, splits, runtime=Runtime(store=store))
            assert [finding.code for finding in report.findings] == list(CODES)[:11]
            assert report.finding("HF001").numbers["shared"] == shared
        assert report.finding("HF002").status == "passed"
        assert report.finding("HF007").status == report.finding("HF008").status == "not applicable"

    def test_images_are_measured_once(self, cohort, tmp_path, monkeypatch):
        store, splits = tmp_path / "features.sqlite", list(PatientKFold(3).split(cohort.X, cohort.y, cohort.patients))
        first = audit_split(cohort, splits, runtime=Runtime(store=store))

        def no_more(*_):
            raise AssertionError("measured again")

        monkeypatch.setattr("histofeat.features._image_fingerprint._hash_luma", no_more)
        assert audit_split(cohort, splits, runtime=Runtime(store=store, n_jobs=2)).to_dict() == first.to_dict()

    def test_order_of_the_rows_within_a_side_does_not_matter(self, cohort):
        splits = list(PatchKFold(3).split(cohort.X, cohort.y))
        rng = np.random.default_rng(0)
        shuffled = [(rng.permutation(train), rng.permutation(test)) for train, test in splits]
        numbers = [[f.numbers for f in audit_split(cohort, folds).findings] for folds in (splits, shuffled)]
        assert numbers[0] == numbers[1]

    def test_masks(self):
        mask = np.arange(8) < 4
        assert finding_of("HF001", list("aabbccdd"), [(mask, ~mask)]).status == "passed"

    @pytest.mark.parametrize(
        ("splits", "message"),
        [
            (None, "expected a splitter or pairs of .train, test. rows, got None"),
            ("folds", "or pairs of .train, test. rows, got 'folds'"),
            ([], "at least one pair of .train, test. rows, got 0"),
            ([[1, 2, 3]], r"a pair .train, test. for fold 1, got \[1, 2, 3\]"),
            ([([0], [1]), ([0], [])], r"test side of fold 2: .*, got float64 of shape \(0,\)"),
            ([([0.0], [1])], r"training side of fold 1: .*, got float64 of shape \(1,\)"),
            ([([0], [8])], "test side of fold 1: expected row numbers from 0 to 7, got 8 to 8"),
            ([([-1], [2])], "training side of fold 1: .* from 0 to 7, got -1 to -1"),
            ([([True, False], [2])], r"training side of fold 1: .* mask over 8 rows, got bool of shape \(2,\)"),
        ],
    )
    def test_refused_splits(self, splits, message):
        with pytest.raises(ValueError, match=message):
            audit_split(dataset_of(list("aabbccdd")), splits)

    def test_a_patient_is_needed(self):
        with pytest.raises(DatasetError, match="expected text in the column 'patient', got ' ' in row 1"):
            cheap_findings(dataset_of(["a", " ", "b", "c"]), [([0, 1], [2, 3])])

    def test_the_table_of_the_full_set_takes_no_time(self):
        import time

        n, rng = 277_524, np.random.default_rng(0)
        dataset = dataset_of(rng.integers(0, 279, n), rng.integers(0, 2, n))
        splits = [(np.flatnonzero(dataset.y == 0), np.flatnonzero(dataset.y == 1))] * 5
        started = time.process_time()
        assert cheap_findings(dataset, splits).finding("HF001").numbers["shared"] == 279
        assert time.process_time() - started < 2


class TestReport:
    def test_errors_warnings_and_order(self):
        report = AuditReport((made("HF003", severity="warning"), made("HF002"), made("HF001", "passed")))
        assert [finding.code for finding in report.findings] == ["HF001", "HF002", "HF003"]
        assert [finding.code for finding in report.errors] == ["HF002"]
        assert [finding.code for finding in report.warnings] == ["HF003"]

    def test_summary_names_the_first_and_counts_the_rest(self):
        report = AuditReport((made("HF002", offenders=tuple("abcdef")), made("HF001", "passed")))
        assert report.summary().splitlines() == [
            "- HF001 shared patient: passed. Something.",
            "- HF002 exact duplicates: ISSUE (error). Something. First: a; b; c (and 3 more).",
        ]

    def test_to_dict_is_json(self, cohort):
        report = audit_split(cohort, PatchKFold(2).split(cohort.X, cohort.y))
        content = json.loads(json.dumps(check_audit(report, ("HF001",)).to_dict()))
        assert content["accepted"] == content["errors"] == ["HF001"]
        assert content["findings"][0]["offenders"]["n"] == 15
        assert len(content["findings"][0]["offenders"]["first"]) == 3

    def test_pickle(self):
        report = AuditReport((made("HF001"),))
        assert pickle.loads(pickle.dumps(report)) == report

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"code": "HF9"}, "Finding.code: expected one of HF001, .*, got 'HF9'"),
            ({"severity": "bad"}, "Finding.severity: expected one of error, warning, got 'bad'"),
            ({"status": "ok"}, "Finding.status: expected one of issue, passed, not applicable, got 'ok'"),
        ],
    )
    def test_refused_findings(self, change, message):
        given = {"code": "HF001", "title": "t", "severity": "error", "status": "issue", "detail": "d"}
        with pytest.raises(ValueError, match=message):
            Finding(**{**given, **change})

    def test_each_code_once(self):
        with pytest.raises(ValueError, match=r"findings: expected each code once, got \['HF001', 'HF001'\]"):
            AuditReport((made("HF001"), made("HF001")))

    def test_unknown_code(self):
        with pytest.raises(ValueError, match=r"expected a code of this report, got 'HF02'\. Did you mean 'HF002'"):
            AuditReport((made("HF002"),)).finding("HF02")


class TestCheck:
    @pytest.mark.parametrize("code", CODES)
    def test_every_error_is_refused_and_can_be_accepted(self, code):
        report = AuditReport((made(code),))
        leak = code in ("HF001", "HF002", "HF003", "HF005", "HF007", "HF009", "HF010", "HF012", "HF014")
        message = rf'{code} {CODES[code]}: .* 2: a; b.*accept_findings=\("{code}",\)'
        with pytest.raises(ValueError, match=message) as got:
            check_audit(report)
        assert isinstance(got.value, GroupLeakageError) == leak
        assert check_audit(report, (code,)).accepted == (code,)

    def test_warnings_and_passed_checks_are_not_refused(self):
        report = AuditReport((made("HF003", severity="warning"), made("HF001", "passed")))
        assert check_audit(report, ("HF001",)).accepted == ()

    def test_a_leak_comes_first_and_all_codes_are_named(self):
        report = AuditReport((made("HF004"), made("HF005"), made("HF001")))
        with pytest.raises(GroupLeakageError, match=r"HF005 sibling slides: .* as well: HF004 fold without a class"):
            check_audit(report, ["HF001"])
        with pytest.raises(GroupLeakageError, match=r'accept_findings=\("HF001", "HF004", "HF005"\)'):
            check_audit(report, ["HF001"])

    @pytest.mark.parametrize(
        ("accept", "message"),
        [
            (("HF03",), "accept_findings: expected a tuple of codes of the audit, got 'HF03'. Did you mean 'HF013'"),
            (("HF001", None), "expected a tuple of codes of the audit, got None. Known names: HF001"),
            ("HF001", "expected a tuple of codes of the audit, got 'HF001'. Write"),
            (True, "expected a tuple of codes of the audit, got True"),
        ],
    )
    def test_refused_codes(self, accept, message):
        with pytest.raises(ValueError, match=message):
            check_audit(AuditReport((made("HF001"),)), accept)


class TestSection:
    def payload(self, accept=("HF001",)):
        shared = made("HF001", offenders=tuple("abcd"))
        report = AuditReport((shared, made("HF003", severity="warning"), made("HF004", "passed"),
                              made("HF005", "not applicable")))  # fmt: skip
        return json.loads(json.dumps((check_audit(report, accept) if accept else report).to_dict()))

    def section(self, audit):
        return " ".join(render_markdown("report-audit.md.j2", {"audit": audit, "label": "mine"}).split())

    def notices(self, audit):
        dataset = {"synthetic": False, "audit": {"complete": None}}
        known = {"dataset": dataset, "protocol": {"patient_overlap": False}, "not_run": [], "results": [1]}
        words = render_markdown("report-notices.md.j2", {**known, "audit": audit, "retrained": []})
        return " ".join(words.replace("\n>", " ").split())

    def test_nothing_without_an_audit(self):
        assert self.section(None) == self.notices(None) == ""

    def test_accepted_errors_are_in_a_notice_of_danger(self):
        assert self.notices(self.payload()) == (
            "> [!CAUTION] **No number here holds for new patients** "
            "- HF001 shared patient, accepted by name: Something."
        )

    def test_errors_that_nobody_accepted(self):
        assert self.notices(self.payload(accept=())).endswith("new patients** - HF001 shared patient: Something.")
        assert "CAUTION" not in self.section(self.payload())

    def test_table_and_offenders(self):
        words = self.section(self.payload())
        assert words.startswith("## Audit of the split Errors: 1; warnings: 1; passed: 1; not applicable: 1.")
        results = [words.partition(f"| {code} |")[2].split(" | ")[1] for code in ("HF001", "HF003", "HF004", "HF005")]
        assert results == ["error, accepted by name", "warning", "passed", "not applicable"]
        assert "mine. What was looked for before anything was fitted" in words
        assert "- **HF001**: a; b; c (and 1 more) - **HF003**: a; b </details>" in words

    def test_renders(self, cohort, tmp_path):
        report = audit_split(cohort, PatientKFold(2).split(cohort.X, cohort.y, cohort.patients))
        markdown = render_markdown("report-audit.md.j2", {"audit": report.to_dict(), "label": "mine"})
        assert "What each check cannot see" in markdown
        page = html_page(markdown, "audit", tmp_path)
        assert "<strong>HF008</strong>" in page
        assert page.count("<tr>") == 1 + len(report.findings)
