import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_fair.data.artifacts import read_json, sha256, write_tensors
from monai_fair.data.predictions import write_predictions
from monai_fair.errors import MonaiFairError, PredictionsError
from monai_fair.metrics.arrays import FloatArray
from monai_fair.report import audit_files, build_page, find_runs

ROWS = 180


@pytest.fixture
def cohort(tmp_path: Path, simulated: Any) -> Path:
    for run, gap in (("erm", 1.0), ("nir", 0.0)):
        for seed in (0, 1, 10):
            write_predictions(tmp_path / run / f"seed_{seed}" / "predictions.csv", simulated(seed, ROWS, gap=gap))
    return tmp_path


def names(found: Any) -> dict[str, list[str]]:
    return {run: [path.parent.name for path in paths] for run, paths in found.items()}


def test_runs_are_named_after_the_folder_above_the_seeds(cohort: Path) -> None:
    found = find_runs([f"{cohort}/erm/*/predictions.csv", f"{cohort}/nir/seed_1/predictions.csv"])
    assert names(found) == {"erm": ["seed_0", "seed_1", "seed_10"], "nir": ["seed_1"]}
    assert list(find_runs([f"{cohort}/**/predictions.csv"])) == ["erm", "nir"]


def test_folds_are_repeats_of_their_run(tmp_path: Path, simulated: Any) -> None:
    for fold in (0, 1):
        for seed in (0, 1):
            path = tmp_path / "erm" / f"fold_{fold}" / f"seed_{seed}" / "predictions.csv"
            write_predictions(path, simulated(seed, 60))
    found = find_runs([f"{tmp_path}/**/predictions.csv"])
    assert [path.parts[-3:-1] for path in found.pop("erm")] == [
        ("fold_0", "seed_0"),
        ("fold_0", "seed_1"),
        ("fold_1", "seed_0"),
        ("fold_1", "seed_1"),
    ]
    assert found == {}


def test_names_are_taken_and_join_files(cohort: Path) -> None:
    first, second = (f"base={cohort}/erm/seed_{seed}/predictions.csv" for seed in (0, 1))
    assert names(find_runs([first, second, first])) == {"base": ["seed_0", "seed_1"]}


def test_other_files_are_runs_of_their_own(tmp_path: Path, simulated: Any) -> None:
    write_predictions(tmp_path / "model a" / "predictions.csv", simulated(0, 60))
    write_predictions(tmp_path / "outside.csv", simulated(0, 60))
    found = find_runs([f"{tmp_path}/model a/predictions.csv", f"{tmp_path}/outside.csv"])
    assert list(found) == ["model a", "outside"]


def test_a_name_of_two_folders_is_refused(tmp_path: Path, simulated: Any) -> None:
    for place in ("x", "y"):
        write_predictions(tmp_path / place / "erm" / "predictions.csv", simulated(0, 60))
    with pytest.raises(PredictionsError) as caught:
        find_runs([f"{tmp_path}/x/erm/predictions.csv", f"{tmp_path}/y/erm/predictions.csv"])
    assert str(caught.value) == (
        f"audit: expected one run 'erm', got '{tmp_path}/x/erm', '{tmp_path}/y/erm'; give each a name, as in NAME=PATH"
    )


def test_each_pattern_without_a_file_is_named(cohort: Path) -> None:
    with pytest.raises(PredictionsError) as caught:
        find_runs([f"{cohort}/erm/seed_0/predictions.csv", "no/*.csv", "a=none.csv"])
    assert str(caught.value).splitlines() == [
        "audit: 2 problems",
        "  1. expected a file at 'no/*.csv', found none; check the path or pattern",
        "  2. expected a file at 'a=none.csv', found none; check the path or pattern",
    ]
    with pytest.raises(
        PredictionsError, match=r"^audit: expected at least one file of predictions, got none; name one$"
    ):
        find_runs([])


def test_report_of_files(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cohort / "out"
    path = audit_files(
        [f"{cohort}/*/seed_*/predictions.csv"], attributes="sex, site", out=out, permutations=20, resamples=100
    )
    assert path == out / "report.html"
    assert capsys.readouterr() == ("", "")
    stored = read_json(out / "metrics.json", "audit")
    assert [run["name"] for run in stored["runs"]] == ["erm", "nir"]
    assert stored["runs"][0]["seeds"] == ["0", "1", "10"]
    assert stored["settings"]["attributes"] == ["sex", "site"]
    first = stored["provenance"]["files"][0]
    source = cohort / "erm" / "seed_0" / "predictions.csv"
    assert first == {"run": "erm", "seed": "0", "name": "erm/seed_0/predictions.csv", "sha256": sha256(source)}
    assert stored["provenance"]["command"].startswith(
        "python -m monai_fair audit erm=erm/seed_0/predictions.csv erm=erm/seed_1/predictions.csv"
    )
    page = path.read_text(encoding="utf-8")
    assert first["sha256"] in page
    assert "incidence" not in stored


def test_absolute_paths_are_not_stored(cohort: Path) -> None:
    out = cohort / "out"
    audit_files([f"{cohort}/erm/seed_*/predictions.csv"], attributes=["sex"], out=out, permutations=20, resamples=100)
    for name in ("metrics.json", "model_card.md", "report.html"):
        text = (out / name).read_text(encoding="utf-8")
        assert str(cohort) not in text
        assert not re.search(r"[\"'= ]/(home|tmp|root|work|Users)/", text)


@pytest.mark.usefixtures("bare_pages")
def test_one_file_is_named_alone(cohort: Path) -> None:
    out = cohort / "out"
    audit_files(f"{cohort}/erm/seed_0/predictions.csv", attributes="sex", out=out, permutations=20, resamples=100)
    stored = read_json(out / "metrics.json", "audit")
    assert [file["name"] for file in stored["provenance"]["files"]] == ["predictions.csv"]


def add_features(path: Path, score: FloatArray) -> None:
    """Features whose last layer gives the scores: the logit's positive and negative part, and noise of weight 0."""
    logit = np.log(score / (1 - score))
    noise = np.abs(np.random.default_rng(0).normal(size=(len(score), 6)))
    features = np.column_stack([np.maximum(logit, 0), np.maximum(-logit, 0), noise]).astype(np.float32)
    weight = np.array([[1, -1, 0, 0, 0, 0, 0, 0]], dtype=np.float32)
    tensors = {"features": features, "weight": weight, "bias": np.zeros(1, np.float32)}
    write_tensors(path.parent / "features.safetensors", tensors, {"predictions_sha256": sha256(path)})


def test_features_beside_the_tables_are_found(cohort: Path, simulated: Any) -> None:
    for run, gap in (("erm", 1.0), ("nir", 0.0)):
        for seed in (0, 1, 10):
            table = simulated(seed, ROWS, gap=gap)
            if (run, seed) != ("nir", 10):
                add_features(cohort / run / f"seed_{seed}" / "predictions.csv", table["score"].astype(float).to_numpy())
    out = cohort / "out"
    page = audit_files(
        [f"{cohort}/*/seed_*/predictions.csv"], attributes="sex", out=out, permutations=20, resamples=100
    )
    stored = read_json(out / "metrics.json", "audit")
    assert [head["seed"] for head in stored["incidence"]["erm"]["seeds"]] == ["0", "1", "10"]
    assert [head["seed"] for head in stored["incidence"]["nir"]["seeds"]] == ["0", "1"]
    assert stored["notes"] == [
        "nir: what features tell is of 2 of 3 seeds, the others have none",
        "nir: neuron incidence is of 2 of 3 seeds, the others have no features",
    ]
    thresholds = stored["targets"][0]["thresholds"]["erm"]["youden"]["by_seed"]
    assert [head["threshold"] for head in stored["incidence"]["erm"]["seeds"]] == thresholds
    text = page.read_text(encoding="utf-8")
    assert "Neuron incidence</h2>" in text
    assert text.count("<svg ") == 7  # gaps, groups, curves of two runs, concentration, features of two runs
    assert text.count("erm/seed_0/features.safetensors") == 1
    assert [row["seed"] for row in stored["features"]["runs"]["nir"]["label_alone"]] == ["0", "1"]
    assert build_page(stored) == text


@pytest.mark.usefixtures("bare_pages")
def test_layers_of_binned_attributes(cohort: Path, simulated: Any) -> None:
    """Incidence and features are of bins as the audit is; layers do not take the place of features in the first."""
    path = cohort / "erm" / "seed_0" / "predictions.csv"
    table = simulated(0, ROWS, gap=1.0).assign(age=[str(20 + number % 60) for number in range(ROWS)])
    write_predictions(path, table)
    add_features(path, table["score"].astype(float).to_numpy())
    layers = {"mu": np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)}
    write_tensors(path.with_name("layers.safetensors"), layers, {"predictions_sha256": sha256(path)})
    out = cohort / "out"
    page = audit_files(str(path), attributes="sex,age:halves", out=out, permutations=20, resamples=100)
    stored = read_json(out / "metrics.json", "audit")
    probes = stored["features"]["runs"]["erm"]["probes"]
    assert {(row["layer"], row["attribute"]) for row in probes} == {("mu", "sex"), ("mu", "age:halves")}
    assert "age:halves" in {row["attribute"] for row in stored["incidence"]["erm"]["ablation"]}
    files = [file["name"] for file in stored["provenance"]["files"]]
    assert files == ["predictions.csv", "features.safetensors", "layers.safetensors"]
    assert '<a href="#features">' in page.read_text(encoding="utf-8")
    audit_files(str(path), attributes="sex,age:halves", out=out, permutations=20, resamples=100, embeddings=False)
    stored = read_json(out / "metrics.json", "audit")
    assert "features" not in stored
    assert [file["name"] for file in stored["provenance"]["files"]] == files[:2]
    assert stored["provenance"]["command"].endswith("--show_small False --embeddings False")


@pytest.mark.usefixtures("bare_pages")
def test_a_sweep_is_checked_first_and_stored(cohort: Path) -> None:
    options: Any = {"attributes": "sex", "out": cohort / "out", "permutations": 20, "resamples": 100}
    runs = [f"{cohort}/*/seed_*/predictions.csv"]
    with pytest.raises(
        MonaiFairError, match=r"^sweep: run 'other': expected one of the audited runs erm, nir; correct"
    ):
        audit_files(runs, **options, sweep={"parameter": "x", "runs": {"erm": 0, "other": 1}})
    assert not (cohort / "out").exists()
    sweep = cohort / "sweeps" / "strength.json"
    sweep.parent.mkdir()
    sweep.write_text('{"parameter": "strength", "runs": {"nir": 1, "erm": 0}}', encoding="utf-8")
    page = audit_files(runs, **options, sweep=sweep).read_text(encoding="utf-8")
    stored = read_json(cohort / "out" / "metrics.json", "audit")
    assert stored["sweep"] == {"parameter": "strength", "runs": {"erm": 0.0, "nir": 1.0}}
    assert stored["provenance"]["files"][-1] == {
        "run": "sweep", "seed": "", "name": "sweeps/strength.json", "sha256": sha256(sweep)
    }  # fmt: skip
    assert stored["provenance"]["command"].endswith("--sweep strength.json")
    assert "Sweep of strength" in page
    assert build_page(stored) == page
