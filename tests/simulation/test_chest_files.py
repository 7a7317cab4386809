import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest

from monai_fair.data import build_manifest, check_images, read_manifest
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.data.spreadsheets import read_spreadsheet
from monai_fair.errors import ArtifactError, ManifestError, MonaiFairError
from monai_fair.simulation import ChestCohort, chest_files, simulate_chest

N, SIZE = 600, 48
PLANTED = ChestCohort(uncertain=0.05, unknown_race=0.05, test_gaps=0.0)
ROOT = "CheXpert-v1.0-small"
Hashes = Callable[[Path], dict[str, str]]


def image_hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*.jpg")}


def read_text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def pixels(folder: Path, images: pd.Series) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / name), dtype=np.float64) for name in images])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_chest(tmp_path_factory.mktemp("planted"), n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1)


@pytest.fixture(scope="module")
def truth(planted: Path) -> pd.DataFrame:
    return pd.read_csv(planted / "truth.csv")


def test_layout_is_that_of_chexpert(planted: Path) -> None:
    assert sorted(path.name for path in planted.iterdir()) == [
        "CHEXPERT DEMO.xlsx", ROOT, "manifest.csv", "manifest.json", "split.csv", "truth.csv", "truth.json",
    ]  # fmt: skip
    assert sorted(path.name for path in (planted / ROOT).iterdir()) == ["train", "train.csv", "valid", "valid.csv"]
    first = planted / ROOT / "train" / "patient00001" / "study1" / "view1_frontal.jpg"
    with Image.open(first) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (SIZE, SIZE))
    assert len(image_hashes(planted)) == N


def test_tables_have_chexperts_columns_and_name_every_image(planted: Path) -> None:
    tables = {name: read_text(planted / ROOT / f"{name}.csv") for name in ("train", "valid")}
    for name, table in tables.items():
        assert list(table.columns) == [
            "Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum",
            "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis",
            "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
        ]  # fmt: skip
        pattern = rf"{ROOT}/{name}/patient\d{{5}}/study\d+/view1_frontal\.jpg"
        assert table["Path"].str.fullmatch(pattern).all()
        assert set(table["Sex"]) == {"Male", "Female"}
        assert table["Age"].astype(int).between(18, 90).all()
        assert set(table["Frontal/Lateral"]) == {"Frontal"}
    both = pd.concat(tables.values())
    assert sorted(both["Path"]) == sorted(image_hashes(planted))
    patients = {name: set(table["Path"].str.split("/").str[2]) for name, table in tables.items()}
    assert not patients["train"] & patients["valid"]


def test_workbook_has_one_row_per_patient(planted: Path, truth: pd.DataFrame) -> None:
    table = read_spreadsheet(planted / "CHEXPERT DEMO.xlsx", ManifestError)
    assert list(table.columns) == ["PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY"]
    assert table["PATIENT"].is_unique
    first = truth[truth["study"] == 1].merge(table, left_on="subject_id", right_on="PATIENT", validate="one_to_one")
    assert len(first) == len(table) == truth["subject_id"].nunique()
    assert (first["GENDER"].str.lower() == first["sex"]).all()
    assert (first["AGE_AT_CXR"].astype(int) == first["age"]).all()
    white = first["PRIMARY_RACE"].str.contains("White")
    unknown = first["PRIMARY_RACE"].isin(["", "Unknown", "Race and Ethnicity Unknown", "Patient Refused"])
    assert unknown.sum() == round(0.05 * len(table))
    assert (white == (first["race"] == "White"))[~unknown].all()


def test_the_manifest_is_what_the_recipe_gives(planted: Path) -> None:
    options = {"finding": "Cardiomegaly", "valid": "add"}
    built = build_manifest("chexpert", planted, options=options, split=planted / "split.csv")
    ours = read_text(planted / "manifest.csv")
    given = built.table.sort_values("image", ignore_index=True)
    pd.testing.assert_frame_equal(given, ours.sort_values("image", ignore_index=True), check_dtype=False)


def test_the_manifest_is_read_and_its_images_checked(planted: Path, truth: pd.DataFrame) -> None:
    manifest = read_manifest(planted / "manifest.csv")
    assert manifest.attributes == ("sex", "age", "age_group", "race", "view")
    seen = check_images(manifest, planted, full=True, progress=False)
    assert sum(seen.kinds.values()) == len(manifest.table) == (truth["uncertain"] == 0).sum()
    assert seen.repeated == []
    both = manifest.table.merge(truth, on="image", suffixes=("", "_true"), validate="one_to_one")
    assert (both["label"] == both["positive"]).all()
    for name in ("subject_id", "split", "sex", "age_group"):
        assert (both[name] == both[f"{name}_true"]).all()
    known = both["race"] != ""
    assert (both["race"] == both["race_true"])[known].all()
    assert 0 < (~known).sum() < 0.15 * len(both)
    record = read_json(planted / "manifest.json", "manifest")
    assert record["manifest_sha256"] == sha256(planted / "manifest.csv")
    assert [entry["n"] for entry in record["dropped"]] == [int(truth["uncertain"].sum())]


def test_patients_are_dealt_once_and_rates_are_as_planned(truth: pd.DataFrame) -> None:
    patients = truth.groupby("subject_id")["split"].nunique()
    assert (patients == 1).all()
    assert truth["subject_id"].value_counts().max() > 2
    sizes = truth.drop_duplicates("subject_id")["split"].value_counts(normalize=True)
    assert sizes.to_dict() == pytest.approx({"train": 0.6, "val": 0.15, "test": 0.25}, abs=0.01)
    for split in ("train", "val", "test"):
        for name, rates in PLANTED.group_rates(split).items():
            for group, rate in rates.items():
                part = truth[(truth["split"] == split) & (truth[name] == group)]
                assert binomtest(int(part["positive"].sum()), len(part), rate).pvalue > 1e-4


def test_truth_json_counts_what_the_tables_hold(planted: Path, truth: pd.DataFrame) -> None:
    document = read_json(planted / "truth.json", "simulated_chest")
    assert document["parameters"]["seed"] == 3
    assert document["parameters"]["cohort"]["uncertain"] == 0.05
    assert (document["images"], document["patients"]) == (N, truth["subject_id"].nunique())
    assert len(document["counts"]) == 3 * (6 + 8)
    for row in document["counts"]:
        part = truth[truth["split"] == row["split"]]
        names, groups = row["attribute"].split(" x "), row["group"].split(", ")
        for name, group in zip(names, groups, strict=True):
            part = part[part[name] == group]
        assert (row["images"], row["patients"]) == (len(part), part["subject_id"].nunique())
        assert (row["positive"], row["uncertain"]) == (part["positive"].sum(), part["uncertain"].sum())
        assert row["rate"] == (pytest.approx(part["positive"].mean(), abs=1e-6) if len(part) else None)


def test_the_images_show_the_planted_cues(planted: Path, truth: pd.DataFrame) -> None:
    # The race cue darkens every pixel, so that brightness falls with it and, of all others, with nothing so much.
    brightness = pixels(planted, truth["image"]).mean(axis=(1, 2))
    related = {
        name: abs(np.corrcoef(brightness, truth[name])[0, 1]) for name in ("race_cue", "heart", "fluid", "sex_cue")
    }
    assert related["race_cue"] > 0.4 > max(related["heart"], related["fluid"], related["sex_cue"])


def test_other_cues_and_gaps_change_the_images_they_should(planted: Path, tmp_path: Path, truth: pd.DataFrame) -> None:
    run = {"n": N, "size": SIZE, "seed": 3, "num_workers": 1}
    before = image_hashes(planted)
    doubts = simulate_chest(tmp_path / "a", **run, cohort=replace(PLANTED, uncertain=0.2, unknown_race=0.3))
    assert image_hashes(doubts) == before
    test = set(truth.loc[truth["split"] == "test", "image"])
    gaps = image_hashes(simulate_chest(tmp_path / "b", **run, cohort=replace(PLANTED, test_gaps=1.0)))
    changed = {name for name in before if gaps[name] != before[name]}
    assert changed
    assert changed <= test


def test_same_bytes_for_any_number_of_workers(planted: Path, tmp_path: Path, hashes: Hashes) -> None:
    other = simulate_chest(tmp_path, n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=2)
    assert hashes(other) == hashes(planted)


def test_another_seed_gives_other_images(tmp_path: Path, planted: Path) -> None:
    other = simulate_chest(tmp_path, n=N, size=SIZE, seed=4, cohort=PLANTED, num_workers=1)
    assert not set(image_hashes(other).values()) & set(image_hashes(planted).values())


def test_the_simulation_starts_without_heavy_packages() -> None:
    code = (
        "import sys; from monai_fair.simulation import simulate_chest_from_options; "
        "print({'torch', 'monai', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "set()"


def test_a_finished_folder_is_left_alone(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in planted.rglob("*")}
    monkeypatch.delattr(chest_files, "draw_chest")
    assert simulate_chest(str(planted), n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1) == planted
    assert {path: path.stat().st_mtime_ns for path in planted.rglob("*")} == before


def test_a_killed_run_is_noticed_and_completed(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: Hashes
) -> None:
    out, drawn, real = tmp_path / "out", [], chest_files.draw_chest

    def killed_at_fifty(*args: object, **options: object) -> object:
        drawn.append(1)
        if len(drawn) > 50:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(chest_files, "draw_chest", killed_at_fifty)
        with pytest.raises(KeyboardInterrupt):
            simulate_chest(out, n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1)
    assert len(image_hashes(out)) == 50
    assert not (out / "manifest.csv").exists()
    assert not (out / "truth.json").exists()
    with pytest.raises(ArtifactError, match="expected a cohort of the same parameters, got one with seed 3, now 9;"):
        simulate_chest(out, n=N, size=SIZE, seed=9, cohort=PLANTED, num_workers=1)
    simulate_chest(out, n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1)
    assert hashes(out) == hashes(planted)


def test_an_image_that_cannot_be_drawn_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(chest_files, "draw_chest", broken)
    with pytest.raises(MonaiFairError, match="ValueError: no ink"):
        simulate_chest(tmp_path / "out", n=N, size=32, num_workers=1)
    assert not (tmp_path / "out" / "truth.json").exists()


@pytest.mark.parametrize(
    "lost",
    [f"{ROOT}/train/patient00001/study1/view1_frontal.jpg", f"{ROOT}/valid.csv", "CHEXPERT DEMO.xlsx", "split.csv"],
)
def test_a_lost_file_is_written_again(planted: Path, tmp_path: Path, lost: str, hashes: Hashes) -> None:
    out = tmp_path / "out"
    shutil.copytree(planted, out)
    (out / lost).unlink()
    simulate_chest(out, n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1)
    assert hashes(out) == hashes(planted)


def test_another_cohort_is_refused(planted: Path, tmp_path: Path, hashes: Hashes) -> None:
    before = hashes(planted)
    with pytest.raises(ArtifactError) as caught:
        simulate_chest(planted, n=N + 1, size=SIZE, seed=3, cohort=replace(PLANTED, sex_gap=0))
    assert str(caught.value) == (
        f"{planted}: expected a cohort of the same parameters, got one with n 600, now 601; "
        "sex_gap 0.152, now 0.0; give another folder, or remove this one first"
    )
    assert hashes(planted) == before
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ArtifactError, match="a simulated cohort, got a folder with 'notes"):
        simulate_chest(tmp_path, n=N)


def test_every_bad_run_parameter_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError) as caught:
        simulate_chest(tmp_path / "out", n=0, seed=-1, size=16, num_workers=1.5)
    assert str(caught.value) == (
        "simulate_chest: 4 problems\n"
        "  1. n: expected a whole number from 1 to 200000, got 0; give one in that range\n"
        "  2. seed: expected a whole number from 0 to 9223372036854775807, got -1; give one in that range\n"
        "  3. size: expected a whole number from 32 to 1024, got 16; give one in that range\n"
        "  4. num_workers: expected a whole number from 1 to 1024, got 1.5; give one in that range"
    )
    assert not (tmp_path / "out").exists()


def test_too_few_images_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError, match="expected at least 1 image with and 1 without the finding for <60 in val"):
        simulate_chest(tmp_path / "out", n=20)
    assert not (tmp_path / "out").exists()
