"""The command line: one line at the end says where the result is, one message says what is wrong."""

import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from monai_fair import __main__ as cli
from monai_fair.data import write_predictions
from monai_fair.data.artifacts import read_json


def run_apart(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command as it is typed; its imports alone take a second."""
    command = [sys.executable, "-W", "error", "-m", "monai_fair", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """The same in this process."""
    command, status = ["monai_fair", *map(str, arguments)], 0
    with redirect_stdout(StringIO()) as said, redirect_stderr(StringIO()) as complained, chdir(folder):
        try:
            with mock.patch.object(sys, "argv", command):
                cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
    return subprocess.CompletedProcess(command, status, said.getvalue(), complained.getvalue())


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def message(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr.rstrip("\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a simulated cohort in cohort/ and its manifest, made by the command line itself."""
    path = tmp_path_factory.mktemp("cli")
    simulated = run_apart("simulate", "skin", "cohort", "--n", 120, "--size", 32, "--num_workers", 1, folder=path)
    assert last_line(simulated) == "cohort"
    built = run(
        "manifest", "ham10000", "cohort", "out/manifest.csv", "--split", "cohort/split.csv",
        "--options", "label=akiec_bcc_mel,age_equal=below", folder=path,
    )  # fmt: skip
    (path / "manifest.log").write_text(built.stdout)
    assert last_line(built) == "out/manifest.csv"
    return path


def test_manifest_counts_and_tells_where_its_record_is(folder: Path) -> None:
    record = read_json(folder / "out" / "manifest.json", "manifest")
    assert record["options"]["label"] == "akiec_bcc_mel"
    assert record["options"]["age_equal"] == "below"
    table = pd.read_csv(folder / "out" / "manifest.csv")
    lines = (folder / "manifest.log").read_text().splitlines()
    assert lines[0] == f"HAM10000: 120 images of {table['subject_id'].nunique()} subjects, 0 rows dropped"
    assert "record: out/manifest.json" in lines
    assert not [line for line in lines if "nan" in line.split()]  # a group absent from a part has no prevalence
    train = table[(table["split"] == "train") & (table["sex"] == "female")]
    (female,) = [line for line in lines if line.split()[:1] == ["female"] or line.split()[:2] == ["sex", "female"]]
    assert f"{len(train)} ({100 * train['label'].mean():.1f} %)" in female
    warnings = [line.removeprefix("warning: under 10 of a class: ") for line in lines if line.startswith("warning")]
    assert warnings == record["warnings"]


def test_check_reads_headers_and_in_full_every_pixel(folder: Path) -> None:
    first = run("check", "out/manifest.csv", "cohort", folder=folder)
    assert last_line(first) == "out/manifest.csv: no problem found (every header read; --full decodes every image)"
    assert "JPEG RGB 32 x 32: 120" in first.stdout.splitlines()
    full = run("check", "out/manifest.csv", "--root", "cohort", "--full", folder=folder)
    assert last_line(full) == "out/manifest.csv: no problem found (every image decoded)"


def test_check_names_every_bad_image(folder: Path) -> None:
    images = pd.read_csv(folder / "out" / "manifest.csv")["image"]
    second, third = (folder / "cohort" / image for image in images[1:3])
    kept = second.read_bytes(), third.read_bytes()
    try:
        second.write_bytes(kept[0][:300])
        third.unlink()
        text = message(run("check", "out/manifest.csv", "cohort", "--full", folder=folder))
    finally:
        second.write_bytes(kept[0])
        third.write_bytes(kept[1])
    # above the message stands the progress bar
    lines = text.splitlines()
    assert lines[-3] == "ImageFileError: out/manifest.csv: 2 problems"
    assert lines[-2].startswith("  1. line 3, subject 'HAM_")
    assert "cannot be read (OSError" in lines[-2]
    assert lines[-1].endswith("expected a file, found none")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("manifest", "ham10000", "nowhere", "x.csv"),
            "RecipeError: nowhere: expected the dataset's folder, found none; check --root",
        ),
        (
            ("manifest", "ham10000", "cohort", "x.csv", "--options", "label"),
            "MonaiFairError: --options: expected name=value,name=value, got 'label'",
        ),
        (("check", "none.csv", "cohort"), "ManifestError: none.csv: expected a CSV file, found none; check the path"),
        (
            ("audit", "none.csv", "--attributes", "sex"),
            "PredictionsError: audit: expected a file at 'none.csv', found none; check the path or pattern",
        ),
    ],
)
def test_a_data_error_is_one_message_and_status_two(folder: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert message(run(*arguments, folder=folder)) == expected
    assert not (folder / "x.csv").exists()


def test_a_process_ends_with_the_message_and_the_status(folder: Path) -> None:
    done = run_apart("check", "none.csv", "cohort", folder=folder)
    assert message(done) == "ManifestError: none.csv: expected a CSV file, found none; check the path"


def predictions(n: int = 160) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "subject_id": [f"s{number}" for number in range(n)],
            "image": [f"{number}.jpg" for number in range(n)],
            "split": np.where(np.arange(n) < n // 2, "val", "test"),
            "label": np.arange(n) % 2,
            "score": (np.arange(n) % 2 + rng.random(n)) / 2,
            "sex": np.where(np.arange(n) // 2 % 2, "female", "male"),
            "age_group": np.where(np.arange(n) // 4 % 2, "<60", ">=60"),
        }
    )


FEW = ("--permutations", 20, "--resamples", 100)


def test_audit_writes_a_report(folder: Path) -> None:
    write_predictions(folder / "predictions.csv", predictions())
    done = run(
        "audit", "erm=predictions.csv", "--attributes", "sex,age_group", "--out", "audit", *FEW, folder=folder
    )  # fmt: skip
    assert last_line(done) == "audit/report.html"
    results = read_json(folder / "audit" / "metrics.json", "audit")
    assert results["settings"]["attributes"] == ["sex", "age_group"]
    assert {path.name for path in (folder / "audit").iterdir()} == {"report.html", "metrics.json", "model_card.md"}


def test_a_table_of_another_tool_gives_the_same_numbers_from_every_format(tmp_path: Path) -> None:
    ours = predictions()
    theirs = ours.drop(columns="image").rename(columns={"subject_id": "PatientID", "label": "y_true", "score": "prob"})
    theirs.to_csv(tmp_path / "plain.csv", index=False)
    theirs.to_csv(tmp_path / "packed.csv.gz", index=False)
    theirs.to_parquet(tmp_path / "table.parquet")
    write_predictions(tmp_path / "ours.csv", ours)
    columns = ("--columns", "subject_id=PatientID,label=y_true,score=prob")
    targets = []
    for name in ("ours.csv", "plain.csv", "packed.csv.gz", "table.parquet"):
        more = () if name == "ours.csv" else columns
        done = run("audit", f"run={name}", "--attributes", "sex", "--out", name[:3], *FEW, *more, folder=tmp_path)
        assert last_line(done) == f"{name[:3]}/report.html"
        results = read_json(tmp_path / name[:3] / "metrics.json", "audit")
        targets.append(results["targets"])
        assert bool(more) == any("no column 'image'" in note for note in results["notes"])
    assert targets[0] == targets[1] == targets[2] == targets[3]


def test_thresholds_are_stored_and_applied(tmp_path: Path) -> None:
    table = predictions()
    write_predictions(tmp_path / "predictions.csv", table)
    done = run("thresholds", "predictions.csv", "t.json", "--rule", "youden by sex", folder=tmp_path)
    assert last_line(done) == "t.json"
    lines = done.stdout.splitlines()
    assert lines[0].endswith("(40 positives, 40 negatives)")
    assert [line.partition(":")[0] for line in lines[1:-1]] == ["female", "male"]
    rules = ("--thresholds", "file:t.json,youden by sex")
    done = run("audit", "run=predictions.csv", "--attributes", "sex", "--out", "audit", *rules, *FEW, folder=tmp_path)
    assert last_line(done) == "audit/report.html"
    cells = read_json(tmp_path / "audit" / "metrics.json", "audit")["targets"][0]["overall"]["cells"]["run"]
    stored, fitted = (
        {key.partition("@")[0]: cell for key, cell in cells.items() if key.endswith(f"@{rule}")}
        for rule in ("file:t.json", "youden by sex")
    )
    assert stored["tpr"]["value"] == fitted["tpr"]["value"]
    assert stored == fitted
    run("thresholds", "predictions.csv", "s.json", "--rule", "youden by sex", "--towards", "shifted", folder=tmp_path)
    assert read_json(tmp_path / "s.json", "thresholds")["towards"] == "shifted"


def test_a_threshold_is_never_fitted_on_what_is_audited(tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.csv", predictions().assign(split="test"))
    assert message(run("thresholds", "predictions.csv", "t.json", "--rule", "0.5", folder=tmp_path)) == (
        "MonaiFairError: rule: expected one that chooses a threshold on validation, got '0.5'; try youden"
    )
    done = run("audit", "run=predictions.csv", "--attributes", "sex", "--thresholds", "youden", *FEW, folder=tmp_path)
    assert last_line(done) == "audit/report.html"
    target = read_json(tmp_path / "audit" / "metrics.json", "audit")["targets"][0]
    assert target["thresholds"]["run"]["youden"]["by_seed"] == [None]
    assert "no rows with split 'val'" in target["thresholds"]["run"]["youden"]["reason"]
    assert target["overall"]["cells"]["run"]["tpr@youden"]["value"] is None


HEAVY = "torch", "monai", "ignite", "pandas", "numpy", "matplotlib", "sklearn"
LOADED = f"""
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    print(module, *(name for name in {HEAVY} if name in sys.modules))
"""


def test_the_package_loads_nothing_heavy_and_what_an_audit_needs_no_torch() -> None:
    """One process imports one after the other: what any of them loads shows in its line and those below it."""
    modules = [
        "monai_fair",
        *(f"monai_fair.{name}" for name in ("data", "metrics", "report", "simulation", "__main__")),
    ]
    done = subprocess.run([sys.executable, "-c", LOADED, *modules], capture_output=True, text=True, check=True)
    loaded = {module: names for module, *names in map(str.split, done.stdout.splitlines())}
    assert list(loaded) == modules
    assert loaded["monai_fair"] == []
    assert {module: names for module, names in loaded.items() if {"torch", "monai", "ignite"} & {*names}} == {}
