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

from monai_fair.data import build_manifest
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.simulation import SkinCohort, simulate_skin, skin_files

N, SIZE = 300, 48
PLANTED = SkinCohort(correlation=0.2, signal=2.5, cue_strength=0.4, contrast_gap=0.15, label_bias=0.2)
BALANCED = SkinCohort(correlation=0.0, cue_strength=0.0, contrast_gap=0.0, label_bias=0.0)
Hashes = Callable[[Path], dict[str, str]]


def image_hashes(folder: Path) -> dict[str, str]:
    return {path.stem: sha256(path) for path in folder.rglob("*.jpg")}


def pixels(folder: Path, image_ids: pd.Series) -> np.ndarray:
    paths = {path.stem: path for path in folder.rglob("*.jpg")}
    return np.stack([np.asarray(Image.open(paths[name]), dtype=np.float64) for name in image_ids])


def warmth(folder: Path, image_ids: pd.Series) -> np.ndarray:
    mean = pixels(folder, image_ids).mean(axis=(1, 2))
    return np.log(mean[:, 0] / mean[:, 2])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_skin(tmp_path_factory.mktemp("planted"), n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1)


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_skin(tmp_path_factory.mktemp("balanced"), n=N, size=SIZE, seed=3, cohort=BALANCED, num_workers=1)


@pytest.fixture(scope="module")
def truth(planted: Path) -> pd.DataFrame:
    return pd.read_csv(planted / "truth.csv")


def test_layout_is_that_of_ham10000(planted: Path) -> None:
    assert sorted(path.name for path in planted.iterdir()) == [
        "HAM10000_images_part_1",
        "HAM10000_images_part_2",
        "HAM10000_metadata.csv",
        "split.csv",
        "truth.csv",
        "truth.json",
    ]
    first, second = (sorted((planted / f"HAM10000_images_part_{part}").iterdir()) for part in (1, 2))
    assert [path.name for path in first + second] == [f"ISIC_{number:07d}.jpg" for number in range(N)]
    assert len(first) == len(second) == N // 2
    with Image.open(first[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE, SIZE))


def test_metadata_uses_the_real_vocabulary(planted: Path) -> None:
    table = pd.read_csv(planted / "HAM10000_metadata.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]
    assert len(table) == table["image_id"].nunique() == N
    assert set(table["dx"]) <= {"nv", "mel", "bkl", "bcc", "akiec", "vasc", "df"}
    assert {"nv", "mel", "akiec"} <= set(table["dx"])
    assert set(table["dx_type"]) <= {"histo", "follow_up", "consensus", "confocal"}
    assert set(table.loc[table["dx"].isin(["mel", "akiec", "bcc"]), "dx_type"]) == {"histo"}
    assert set(table["sex"]) == {"male", "female", "unknown"}
    assert set(table["dataset"]) <= {"vidir_molemax", "vidir_modern", "rosendahl", "vienna_dias"}
    places = {"abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand", "neck", "scalp", "trunk"}
    assert set(table["localization"]) <= places | {"lower extremity", "upper extremity", "unknown"}
    assert set(table["age"]) <= {"", *(f"{age}.0" for age in range(5, 90, 5))}
    # 0.006 of the lesions (about 220) is 1.3, rounded to 1.
    assert table.loc[table["age"] == "", "lesion_id"].nunique() == 1
    assert table.loc[table["sex"] == "unknown", "lesion_id"].nunique() == 1


def test_tables_agree_with_each_other(planted: Path, truth: pd.DataFrame) -> None:
    table = pd.read_csv(planted / "HAM10000_metadata.csv", keep_default_na=False)
    both = table.merge(truth, on=["image_id", "lesion_id"], suffixes=("", "_true"), validate="one_to_one")
    assert len(both) == N
    assert (both["dx"].isin(["mel", "akiec"]) == both["recorded"].eq(1)).all()
    known = both["sex"] != "unknown"
    assert (both["sex"] == both["sex_true"])[known].all()
    split = pd.read_csv(planted / "split.csv")
    assert list(split.columns) == ["subject_id", "split"]
    assert split["subject_id"].is_unique
    assert (
        truth.merge(split, left_on="lesion_id", right_on="subject_id", suffixes=("", "_file"))
        .eval("split == split_file")
        .all()
    )


def test_the_recipe_of_ham10000_reads_it(planted: Path, truth: pd.DataFrame) -> None:
    built = build_manifest("ham10000", planted, split=planted / "split.csv")
    both = built.table.merge(truth, on="image_id", suffixes=("", "_true"), validate="one_to_one")
    assert len(both) == N
    assert (both["label"].astype(int) == both["recorded"]).all()
    assert (both["split"] == both["split_true"]).all()
    assert (both["subject_id"] == both["lesion_id"]).all()
    assert all((planted / path).is_file() for path in both["image"])


def test_split_and_prevalence_are_as_planned(truth: pd.DataFrame) -> None:
    lesions = truth.drop_duplicates("lesion_id")
    sizes = lesions["split"].value_counts()
    for split, share in {"train": 0.6, "val": 0.15, "test": 0.25}.items():
        assert abs(sizes[split] - share * len(lesions)) <= 1
        for sex, prevalence in PLANTED.group_prevalence(split).items():
            part = lesions[(lesions["split"] == split) & (lesions["sex"] == sex)]
            assert abs(len(part) - sizes[split] / 2) <= 1
            assert abs(part["malignant"].sum() - prevalence * len(part)) <= 0.5


def test_only_train_and_val_of_one_sex_are_underdiagnosed(truth: pd.DataFrame) -> None:
    lesions = truth.drop_duplicates("lesion_id")
    wrong = lesions[lesions["recorded"] != lesions["malignant"]]
    assert (wrong["flipped"] == 1).all()
    assert (lesions["flipped"].sum()) == len(wrong)
    assert set(wrong["sex"]) == {"female"}
    assert set(wrong["malignant"]) == {1}
    for split, count in wrong["split"].value_counts().items():
        assert split in ("train", "val")
        women = lesions[(lesions["split"] == split) & (lesions["sex"] == "female") & (lesions["malignant"] == 1)]
        assert count == round(0.2 * len(women)) > 0


def test_truth_json_counts_what_the_tables_hold(planted: Path, truth: pd.DataFrame) -> None:
    document = read_json(planted / "truth.json", "simulated_skin")
    assert document["parameters"]["seed"] == 3
    assert document["parameters"]["cohort"]["label_bias"] == 0.2
    assert document["images"] == N
    assert document["lesions"] == truth["lesion_id"].nunique()
    assert len(document["counts"]) == 6
    for row in document["counts"]:
        part = truth[(truth["split"] == row["split"]) & (truth["sex"] == row["sex"])]
        for name, table in (("images", part), ("lesions", part.drop_duplicates("lesion_id"))):
            assert row[name]["n"] == len(table)
            assert row[name]["prevalence"] == pytest.approx(table["malignant"].mean(), abs=1e-6)
            for column in ("malignant", "recorded", "flipped"):
                assert row[name][column] == table[column].sum()


def test_same_bytes_for_any_number_of_workers(planted: Path, tmp_path: Path, hashes: Hashes) -> None:
    other = simulate_skin(tmp_path, n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=3)
    assert hashes(other) == hashes(planted)


def test_another_seed_gives_other_images(tmp_path: Path, planted: Path) -> None:
    other = simulate_skin(tmp_path, n=N, size=SIZE, seed=4, cohort=PLANTED, num_workers=1)
    assert not set(image_hashes(other).values()) & set(image_hashes(planted).values())


def test_a_script_without_a_main_guard_can_use_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    out = tmp_path / "out"
    script.write_text(
        "from monai_fair.simulation import simulate_skin\n"
        f"print(simulate_skin({str(out)!r}, n=120, size=32, num_workers=2))\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [str(out)]
    assert len(image_hashes(out)) == 120


def test_the_simulation_needs_no_torch() -> None:
    code = "import sys, monai_fair.simulation; print({'torch', 'monai', 'ignite'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "set()"


def test_cue_makes_every_man_warmer_and_every_woman_cooler(planted: Path, tmp_path: Path, truth: pd.DataFrame) -> None:
    plain = simulate_skin(tmp_path, n=N, size=SIZE, seed=3, cohort=replace(PLANTED, cue_strength=0.0), num_workers=1)
    change = warmth(planted, truth["image_id"]) - warmth(plain, truth["image_id"])
    men = (truth["sex"] == "male").to_numpy()
    # 0.4 of 9 % up in red and down in blue: log(1.036 / 0.964) = 0.072, a little less where red is clipped.
    assert change[men].min() > 0.03
    assert change[~men].max() < -0.03
    assert change[men].mean() == pytest.approx(0.072, abs=0.015)


def test_sex_is_seen_in_the_tint_only_when_planted(planted: Path, balanced: Path, truth: pd.DataFrame) -> None:
    # With nothing planted the two sexes differ in nothing that is drawn; three standard errors.
    plain = pd.read_csv(balanced / "truth.csv")
    for folder, table, low, high in ((planted, truth, 8.0, np.inf), (balanced, plain, -3.0, 3.0)):
        value, men = warmth(folder, table["image_id"]), (table["sex"] == "male").to_numpy()
        error = np.sqrt(value[men].var() / men.sum() + value[~men].var() / (~men).sum())
        assert low < (value[men].mean() - value[~men].mean()) / error < high


def test_contrast_gap_makes_one_sex_fainter_and_leaves_the_other(
    planted: Path, tmp_path: Path, truth: pd.DataFrame
) -> None:
    equal = simulate_skin(tmp_path, n=N, size=SIZE, seed=3, cohort=replace(PLANTED, contrast_gap=0.0), num_workers=1)
    before, after = image_hashes(equal), image_hashes(planted)
    men, women = (truth.loc[truth["sex"] == sex, "image_id"] for sex in ("male", "female"))
    assert all(before[name] == after[name] for name in men)
    middle = np.s_[:, SIZE // 2 - 3 : SIZE // 2 + 3, SIZE // 2 - 3 : SIZE // 2 + 3]
    brighter = pixels(planted, women)[middle].mean(axis=(1, 2, 3)) - pixels(equal, women)[middle].mean(axis=(1, 2, 3))
    # A darker spot over brighter skin loses 15 % of its depth; a white blob in the middle may go the other way.
    assert (brighter > 0).mean() > 0.95


def test_label_bias_changes_no_pixel(planted: Path, tmp_path: Path, hashes: Hashes) -> None:
    other = simulate_skin(tmp_path, n=N, size=SIZE, seed=3, cohort=replace(PLANTED, label_bias=0.6), num_workers=1)
    assert image_hashes(other) == image_hashes(planted)
    assert hashes(other)["HAM10000_metadata.csv"] != hashes(planted)["HAM10000_metadata.csv"]


def test_a_finished_folder_is_left_alone(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in planted.rglob("*")}
    monkeypatch.delattr(skin_files, "draw_photo")
    assert simulate_skin(str(planted), n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1) == planted
    assert {path: path.stat().st_mtime_ns for path in planted.rglob("*")} == before


def test_a_killed_run_is_noticed_and_completed(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: Hashes
) -> None:
    out, drawn, real = tmp_path / "out", [], skin_files.draw_photo

    def killed_at_fifty(*args: object, **options: object) -> object:
        drawn.append(1)
        if len(drawn) > 50:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(skin_files, "draw_photo", killed_at_fifty)
        with pytest.raises(KeyboardInterrupt):
            simulate_skin(out, n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1)
    assert len(image_hashes(out)) == 50
    assert not (out / "HAM10000_metadata.csv").exists()
    assert not (out / "truth.json").exists()
    (out / "HAM10000_images_part_1" / ".ISIC_0000051.jpg.abc.part").write_bytes(b"half")
    with pytest.raises(ArtifactError, match="expected a cohort of the same parameters, got one with seed 3, now 9;"):
        simulate_skin(out, n=N, size=SIZE, seed=9, cohort=PLANTED, num_workers=1)
    simulate_skin(out, n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1)
    assert hashes(out) == hashes(planted)


@pytest.mark.parametrize("lost", ["HAM10000_images_part_2/ISIC_0000290.jpg", "HAM10000_metadata.csv", "split.csv"])
def test_a_lost_file_is_written_again(planted: Path, tmp_path: Path, lost: str, hashes: Hashes) -> None:
    out = tmp_path / "out"
    shutil.copytree(planted, out)
    (out / lost).unlink()
    simulate_skin(out, n=N, size=SIZE, seed=3, cohort=PLANTED, num_workers=1)
    assert hashes(out) == hashes(planted)


def test_other_parameters_are_refused_by_name(planted: Path, hashes: Hashes) -> None:
    before = hashes(planted)
    with pytest.raises(ArtifactError) as caught:
        simulate_skin(planted, n=N + 1, size=SIZE, seed=3, cohort=replace(PLANTED, correlation=0))
    assert str(caught.value) == (
        f"{planted}: expected a cohort of the same parameters, got one with n 300, now 301; "
        "correlation 0.2, now 0.0; give another folder, or remove this one first"
    )
    assert hashes(planted) == before


def test_every_bad_run_parameter_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError) as caught:
        simulate_skin(tmp_path / "out", n=0, seed=-1, size=16, num_workers=1.5)
    assert str(caught.value) == (
        "simulate_skin: 4 problems\n"
        "  1. n: expected a whole number from 1 to 10000000, got 0; give one in that range\n"
        "  2. seed: expected a whole number from 0 to 9223372036854775807, got -1; give one in that range\n"
        "  3. size: expected a whole number from 32 to 1024, got 16; give one in that range\n"
        "  4. num_workers: expected a whole number from 0 to 1024, got 1.5; give one in that range"
    )
    assert not (tmp_path / "out").exists()


def test_too_few_images_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError, match="expected at least 1 malignant and 1 benign lesion for female in val"):
        simulate_skin(tmp_path / "out", n=20)
    assert not (tmp_path / "out").exists()
