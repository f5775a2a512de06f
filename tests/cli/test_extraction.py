"""``histofeat extract``: the table of the library in a file, and all that is wrong said before the first image."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from histofeat import cli, extract_features, load_idc, make_cohort
from histofeat.images import Images

FEATURES = ["--features", "gray,lbp"]


@pytest.mark.parametrize("name", ["features.parquet", "features.CSV"])
def test_the_file_is_the_table_of_the_library(cohort, tmp_path, capsys, name):
    output = tmp_path / name
    words = [
        "extract",
        str(cohort.root),
        *FEATURES,
        "--normalizer",
        "reinhard",
        "--store",
        str(tmp_path / "store.sqlite"),
    ]
    assert cli.main([*words, "--output", str(output), "--json"]) == 0
    printed, progress = capsys.readouterr()
    record = json.loads(printed)
    assert "extract: 180 of 180" in progress
    frame = extract_features(load_idc(cohort.root), ["gray", "lbp"], normalizer="reinhard")
    assert record == {"output": str(output), "patches": 180, "features": 310, **frame.attrs}
    assert frame.attrs["conversions"]
    if name.endswith("parquet"):
        found = pd.read_parquet(output)
        assert found.attrs == frame.attrs
    else:
        found = pd.read_csv(output, dtype=dict.fromkeys(frame.columns[-310:], np.float32) | {"patient": str})
    pd.testing.assert_frame_equal(found, frame, check_dtype=False)
    assert (tmp_path / "store.sqlite").exists()


@pytest.mark.filterwarnings("default:synthetic. Images that could not be decoded")
def test_images_that_cannot_be_read_are_refused_or_said(tmp_path, capsys):
    root = make_cohort(n_patients=3, patches_per_patient=8, root=tmp_path / "tree").root
    bad = sorted(root.rglob("*.png"))[0]
    bad.write_bytes(bad.read_bytes()[:300])
    words = ["extract", str(root), "--features", "gray", "--output", str(tmp_path / "features.csv")]
    assert cli.main(words) == 2
    assert bad.name in capsys.readouterr().err
    assert not list(tmp_path.glob("features*"))
    assert cli.main([*words, "--on-error", "skip"]) == 0
    printed, said = capsys.readouterr()
    first, second, third = printed.splitlines()[-3:]
    assert (first, third) == ("23 patches, 256 features", f"table: {tmp_path / 'features.csv'}")
    assert re.match(rf"left out .*{bad.name}: \w", second)
    assert "1 of 24 images" in said
    assert len(pd.read_csv(tmp_path / "features.csv")) == 23


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--output", "a.xls"], "expected the suffix .parquet or .csv, or none for a folder of shards, got 'a.xls'."),
        (["--output", "kept.csv"], "kept.csv: expected a new file, got one that exists."),
        (["--output", "none/a.csv"], "expected a file in a folder that exists"),
        (["--features", "grey"], "--features: expected the name of a feature family, got 'grey'. Did you mean 'gray'?"),
        (
            ["--features", "gray,gray"],
            "features: expected families with columns of their own, got 'gray_hist_000' twice",
        ),
        (["--normalizer", "reinhart"], "--normalizer: expected one of reinhard, macenko, got 'reinhart'."),
        (["--encoder", "resnet50"], "--encoder: expected the family cnn among the features, got gray."),
        (["--features", "cnn", "--encoder", "resnet50", "--weights", "kept.csv"], "kept.csv: expected"),
        (["--features", "cnn", "--weights", "kept.csv"], "--encoder: expected the name of a network with a file of"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_image(cohort, tmp_path, capsys, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.csv").touch()
    content = Images.content
    unread = lambda images, row: pytest.fail("an image was read") if images.on_disk else content(images, row)  # noqa: E731
    monkeypatch.setattr(Images, "content", unread)
    asked = dict(zip(["--output", "--features"], ["a.csv", "gray"], strict=True)) | dict(
        zip(words[::2], words[1::2], strict=True)
    )
    assert cli.main(["extract", str(cohort.root), *(word for pair in asked.items() for word in pair)]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.csv"]


def test_a_folder_is_filled_by_several_processes_and_compared(tmp_path, capsys):
    root = make_cohort(n_patients=6, patches_per_patient=8, root=tmp_path / "tree").root
    words = ["extract", str(root), "--features", "gray", "--output", str(tmp_path / "shards")]
    assert cli.main([*words, "--shard", "2/4", "--json"]) == 0
    printed, progress = capsys.readouterr()
    assert json.loads(printed) == {"output": str(tmp_path / "shards"), "shards": 6, "written": 2, "there": 2}
    assert "extract: 16 of 16" in progress
    assert cli.main(["compare", str(tmp_path / "shards")]) == 2
    assert "expected 6 shards, got none of patient" in capsys.readouterr().err
    assert cli.main(["extract", "--config", str(tmp_path / "shards" / "run.toml")]) == 0
    assert capsys.readouterr().out.endswith(f"4 shards written, 6 of 6 there; folder: {tmp_path / 'shards'}\n")
    assert cli.main([*words, "--features", "lbp"]) == 2
    assert "expected shards of these images and features, got others (synthetic; gray)" in capsys.readouterr().err
    compare = ["compare", "--folds", "2", "--heads", "logistic", "--resamples", "20", "--no-store", "--output"]
    assert cli.main([*compare, str(tmp_path / "a"), str(tmp_path / "shards"), "--train-patches", "6"]) == 0
    assert "not applicable without images: shortcuts, gallery" in capsys.readouterr().out
    report = (tmp_path / "a" / "report.md").read_text()
    assert "LimitedTraining(cv=PatientKFold" in report
    assert re.search(r"\| synthetic \| logistic \| 6 \| 18 \| 0", report)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "s3://bucket/mine"], "--output: expected a place on this machine, got the URL s3:/bucket/mine."),
        (["--output", "mine.csv", "--shard", "1/2"], "--shard: expected a folder as --output, got 'mine.csv'"),
        (["--output", "mine", "--shard", "0/2"], "--shard: expected I/N with I from 1 to N, got '0/2'. Write 1/8 for"),
        (["--output", "mine", "--shard", "3/2"], "--shard: expected I/N with I from 1 to N, got '3/2'"),
        (["--output", "mine", "--shard", "x"], "--shard: expected I/N with I from 1 to N, got 'x'"),
        (
            ["--output", "mine", "--normalizer", "reinhard"],
            "--normalizer: expected none for shards, since it is fitted",
        ),
    ],
)
def test_what_does_not_fit_shards_is_said_before_data_are_read(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["extract", "nowhere", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
