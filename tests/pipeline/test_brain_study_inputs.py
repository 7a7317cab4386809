"""What a study of brains cannot finish with is told before it starts; a bad image is left out and listed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data import read_manifest, read_predictions, read_volume
from monai_fair.data.artifacts import read_json, write_json
from monai_fair.data.tables import write_table
from monai_fair.data.volumes import save_nifti
from monai_fair.engines.study_inputs import check_study_inputs
from monai_fair.engines.usable_images import usable_manifest
from monai_fair.errors import ManifestError, root_cause
from monai_fair.report import audit_files
from monai_fair.simulation import BrainCohort, simulate_brain

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

BUNDLE = Path(__file__).parents[2] / "bundles" / "brain_mri_fair_classification"
Change = Callable[[pd.DataFrame], pd.DataFrame]


def people() -> pd.DataFrame:
    """30 subjects: 18 train, 6 val and 6 test, half of each with label 1."""
    rows = [
        (
            f"sub-{number:02d}",
            f"sub-{number:02d}.nii.gz",
            str(number % 2),
            split,
            "mf"[number % 4 // 2],
            str(50 + number),
        )
        for number, split in enumerate(["train"] * 18 + ["val"] * 6 + ["test"] * 6)
    ]
    return pd.DataFrame(rows, columns=["subject_id", "image", "label", "split", "sex", "age"])


def relabelled(split: str, label: str) -> Change:
    return lambda table: table.assign(label=table["label"].mask(table["split"] == split, label))


def told(folder: Path, change: Change = lambda table: table, **options: object) -> list[str]:
    """The problems that are found, without the name of the file."""
    path = write_table(folder / "manifest.csv", change(people()))
    given = {"generated_dir": folder / "generated", "attributes": ["sex"]} | options
    try:
        check_study_inputs(path, dataset_dir=folder, **given)  # type: ignore[arg-type]
    except ManifestError as error:
        text = str(error).removeprefix(f"{path}: ")
        lines = text.split("\n")
        return [line.split(". ", 1)[1] for line in lines[1:]] if len(lines) > 1 else lines
    return []


FEW = "expected at least 20 subjects in train and val to look for subgroups in, got {}; fewer show no shape to speak of"
CASES: dict[str, tuple[Change, list[str]]] = {
    "nothing": (lambda table: table, []),
    "a test part of one class": (relabelled("test", "0"), []),  # undefined there, with a reason, at the end
    "one class in training": (
        relabelled("train", "1"),
        ["expected training rows of every label, got none of 0; found label 1 18"],
    ),
    "two subjects": (
        lambda table: table.iloc[[0, 29]],
        [
            "expected rows with split 'val' (thresholds are chosen on them), got none; found train 1, test 1",
            FEW.format(1),
            "expected training rows of every label, got none of 1; found label 0 1",
        ],
    ),
    "no test split": (
        lambda table: table.replace({"split": {"test": "val"}}),
        ["expected rows with split 'test' (arms are compared on them), got none; found train 18, val 12"],
    ),
    "no label": (
        lambda table: table.drop(columns="label"),
        ["expected a column 'label', found none; add it (python -m monai_fair discover looks for subgroups without)"],
    ),
    "folds": (
        lambda table: table.assign(split="0").rename(columns={"split": "fold"}),
        ["expected a column 'split' (train, val, test), found none; add it"],
    ),
    "columns of the study, and one class": (
        lambda table: relabelled("train", "1")(table.assign(subgroup="S1", weight="1")),
        [
            "expected no column 'subgroup', the study makes its own; rename or remove it",
            "expected no column 'weight', the study makes its own; rename or remove it",
            "expected training rows of every label, got none of 0; found label 1 18",
        ],
    ),
    "several sessions": (
        lambda table: pd.concat([table, table.iloc[:2].assign(image=["a.nii.gz", "b.nii.gz"])]),
        [
            "expected one image for each subject, 2 of 30 have more: 00, 01; keep one (most recipes have --options "
            "sessions=first)"
        ],
    ),
    "the same folder": (
        lambda table: table.replace({"subject_id": {"sub-01": "00"}}),
        [
            "expected one image for each subject, 1 of 29 have more: 00; keep one (most recipes have --options "
            "sessions=first)"
        ],
    ),
    "names of generated images": (
        lambda table: table.replace({"subject_id": {"sub-01": "gen-0001"}}),
        ["expected no subject named 'gen-...', which generated ones are, got gen-0001"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_manifest_is_refused_with_every_problem(name: str, tmp_path: Path) -> None:
    change, expected = CASES[name]
    assert told(tmp_path, change) == expected


def test_attributes_that_the_audit_could_not_compare(tmp_path: Path) -> None:
    assert told(tmp_path, lambda table: table.drop(columns="sex")) == [
        "attributes: expected recorded ones (age), got 'sex'; correct the name, or give --attributes \"[]\" to compare "
        "the discovered subgroups alone"
    ]
    assert told(tmp_path, lambda table: table.drop(columns=["sex", "age"]), attributes=[]) == []
    assert told(tmp_path, attributes=["age:halves", "age:60/70", "age"]) == []  # six ages in test are few enough
    assert told(tmp_path, lambda table: table.drop(columns="split"), attributes=["age:halves"]) == [
        "expected a column 'split' (train, val, test), found none; add it"
    ]
    many = pd.concat([people().assign(subject_id=f"{k}-" + people()["subject_id"], age=str(k)) for k in range(21)])
    many["image"] = many["subject_id"] + ".nii.gz"
    assert told(tmp_path, lambda table: many, attributes=["age", "age:quartile", "sex", "sex"]) == [
        "attributes: expected 'sex' once, got it several times; keep one",
        "attributes: expected groups in 'age', got 21 different numbers in test rows; give 'age:quartiles', or cuts of "
        "your own such as 'age:40/60/80'",
        "audit: attribute 'age:quartile': expected a rule among halves, tertiles, quartiles, quintiles, deciles, or "
        "cuts such as 40/60/80, got 'quartile'",
    ]
    words = many.assign(site=[f"site {row // 2}" for row in range(len(many))])
    assert told(tmp_path, lambda table: words, attributes=["site"]) == [
        "attributes: expected at most 50 groups in 'site', got 63 different values in test rows; group them in a "
        "column of its own"
    ]


def test_nuisances_that_could_not_be_taken_out(tmp_path: Path) -> None:
    assert told(tmp_path, nuisances=["sex", "age"]) == []
    assert told(tmp_path, nuisances=["race", "sex", "sex"]) == [
        "nuisances: expected 'sex' once, got it several times; keep one",
        "nuisances: expected recorded ones (sex, age), got 'race'; correct the name",
    ]
    # a site of the test part alone
    late = people().assign(site=["A"] * 10 + ["B"] * 19 + ["C"])
    assert told(tmp_path, lambda table: late, nuisances=["site"]) == [
        "nuisance 'site': expected only values that fitted subjects have (A, B), 1 of the others have another: sub-29 "
        "'C'; its effect cannot be estimated, so leave these subjects or the nuisance out"
    ]


def test_representations_that_could_not_be_read(tmp_path: Path) -> None:
    known = "log_jacobian, regional_volumes, displacement, codes, intensity, embeddings"
    assert told(tmp_path, representations=["intensity", "codes"]) == []
    assert told(tmp_path, representations=["image", "regional_volumes"], embeddings=tmp_path / "clip.csv") == [
        f"representations: expected names of {known}, each once, got 'image,regional_volumes'",
        "embeddings: expected a file with, and only with, the representation 'embeddings'",
        "regions: expected a file with, and only with, the representation 'regional_volumes'",
        f"embeddings: expected the file {tmp_path / 'clip.csv'}, found none; correct the path",
    ]
    (tmp_path / "labels.nii.gz").touch()
    given = {"representations": ["regional_volumes"], "regions": tmp_path / "labels.nii.gz"}
    assert told(tmp_path, **given) == []


def test_a_text_is_no_list_of_names(tmp_path: Path) -> None:
    assert told(tmp_path, attributes="sex", nuisances="age", representations="codes") == [
        "attributes: expected a list such as \"['sex']\", got 'sex'; write it as one",
        "nuisances: expected a list such as \"['age']\", got 'age'; write it as one",
        "representations: expected a list such as \"['codes']\", got 'codes'; write it as one",
    ]


def test_a_manifest_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    words = "expected another file than the manifest, which would be overwritten; choose another output_dir"
    written = tmp_path / "there" / ".." / "manifest.csv"
    assert told(tmp_path, outputs=[tmp_path / "usable.csv", written]) == [f"{written}: {words}"]
    path = data / "manifest.csv"
    before = path.read_bytes()
    with pytest.raises(ManifestError) as raised:
        usable_manifest(path, data / "." / "manifest.csv", dataset_dir=data, progress=False)
    assert str(raised.value) == f"{path}: {words}"
    assert path.read_bytes() == before


def test_more_classes_than_two_are_those_of_the_record(brains: Path, tmp_path: Path) -> None:
    table = read_manifest(brains / "manifest.csv").table.astype(str)
    table["label"] = [str(row % 3) for row in range(len(table))]
    path = write_table(tmp_path / "manifest.csv", table)
    write_json(path.with_suffix(".json"), "manifest", {"num_classes": 3})
    options = {"generated_dir": brains / "generated", "attributes": ["sex"]}
    check_study_inputs(path, dataset_dir=brains, **options)  # type: ignore[arg-type]
    out = usable_manifest(path, tmp_path / "usable.csv", dataset_dir=brains, progress=False)
    assert read_manifest(out, num_classes=3).table["label"].tolist() == [row % 3 for row in range(len(table))]
    assert read_json(out.with_suffix(".json"), "manifest")["num_classes"] == 3


@pytest.mark.parametrize("place", ["../generated", "."])
def test_generated_images_below_the_data_root_only(place: str, tmp_path: Path) -> None:
    assert told(tmp_path, generated_dir=tmp_path / place) == [
        f"generated_dir: expected a folder of its own below dataset_dir ({tmp_path}), where a manifest's images lie, "
        f"got {tmp_path / place}; give one such as {tmp_path}/derivatives/generated"
    ]


def test_arms_without_their_files(tmp_path: Path) -> None:
    arms: dict[str, list[str]] = {"erm": [], "nir": ["nirr.yaml"], "both": ["nir.yaml", "nirr.yaml"]}
    assert told(tmp_path, config_dir=BUNDLE / "configs", base=["train.yaml"], arms=arms) == [
        f"expected the file {BUNDLE / 'configs' / 'nirr.yaml'}, found none; correct the arms"
    ]


def test_a_manifest_that_breaks_its_contract_comes_first(tmp_path: Path) -> None:
    broken = people().replace({"split": {"test": "tests"}})
    broken.loc[0, "image"] = "../a.nii.gz"
    assert told(tmp_path, lambda table: broken, attributes=["race"]) == [
        "line 2, column 'image': expected a path under the data root, without '..', got '../a.nii.gz'",
        "line 26, column 'split': expected one of train, val, test, got 'tests'; 5 more rows have this: lines 27, 28, "
        "29, 30, 31",
    ]


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cohort = BrainCohort(correlation=0.6, train_share=0.6, val_share=0.2)
    return simulate_brain(
        tmp_path_factory.mktemp("brains") / "data", n=30, seed=2, anatomy="phantom", shape=(20, 24, 20), cohort=cohort,
        num_workers=1,
    )  # fmt: skip


@pytest.fixture
def data(brains: Path, tmp_path: Path) -> Path:
    """Brains of which one of training is constant, another one damaged, and one of test not there."""
    folder = tmp_path / "data"
    shutil.copytree(brains, folder)
    constant, damaged, absent = bad_images(folder)
    volume = read_volume(constant)
    save_nifti(constant, np.full_like(volume.array, 3), volume.grid)
    damaged.write_bytes(damaged.read_bytes()[:2000])
    absent.unlink()
    return folder


def bad_images(folder: Path) -> list[Path]:
    table = read_manifest(folder / "manifest.csv").table
    images = {split: [folder / image for image in rows["image"]] for split, rows in table.groupby("split")}
    return [*images["train"][:2], images["test"][0]]


def subject(image: Path) -> str:
    return image.name.removesuffix("_T1w.nii.gz")


def test_images_that_cannot_be_used_are_left_out_and_listed(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_manifest(data / "manifest.csv").table
    constant, damaged, absent = bad_images(data)
    out = usable_manifest(data / "manifest.csv", tmp_path / "usable.csv", dataset_dir=data, progress=False)
    reasons = {
        constant: f"{constant}: expected an image, got the value 3 in every voxel; give another file",
        damaged: f"{damaged}: expected a whole NIfTI file, which cannot be read (EOFError: Compressed file ended "
        "before the end-of-stream marker was reached); fetch or write it again",
        absent: f"{absent}: expected a NIfTI file, found none; check the path",
    }
    told = {subject(image): reason for image, reason in reasons.items()}
    after = read_manifest(out).table
    kept = before[~before["subject_id"].isin(list(told))].reset_index(drop=True)
    pd.testing.assert_frame_equal(after, kept)
    record = read_json(out.with_suffix(".json"), "manifest")
    assert {entry["subject_id"][0]: entry["reason"] for entry in record["dropped"]} == told
    assert (record["n"], record["n_subjects"]) == (27, 27)
    assert {entry.getMessage() for entry in caplog.records} == {
        f"{who} is left out of the study: {reason}" for who, reason in told.items()
    }
    # nothing is read again until an image changes
    written = out.stat().st_mtime_ns
    usable_manifest(data / "manifest.csv", out, dataset_dir=data, progress=False)
    assert out.stat().st_mtime_ns == written
    for image in (constant, damaged, absent):
        shutil.copy(data / kept["image"][0], image)
    usable_manifest(data / "manifest.csv", out, dataset_dir=data, progress=False)
    pd.testing.assert_frame_equal(read_manifest(out).table, before)
    assert read_json(out.with_suffix(".json"), "manifest")["dropped"] == []


def test_too_few_usable_images_are_an_error(data: Path, tmp_path: Path) -> None:
    table = read_manifest(data / "manifest.csv").table
    for image in table.loc[table["split"] == "test", "image"]:
        (data / image).unlink(missing_ok=True)
    n_test = int((table["split"] == "test").sum())
    sizes = table["split"].value_counts()
    with pytest.raises(ManifestError) as raised:
        usable_manifest(data / "manifest.csv", tmp_path / "usable.csv", dataset_dir=data, progress=False)
    first = bad_images(data)[0]
    assert str(raised.value) == (
        f"{data / 'manifest.csv'} without {n_test + 2} of 30 images, such as {first}: expected an image, got the value "
        "3 in every voxel; give another file: expected rows with split 'test' (arms are compared on them), got none; "
        f"found train {sizes['train'] - 2}, val {sizes['val']}"
    )
    assert not (tmp_path / "usable.csv").exists()


def test_a_study_says_all_at_once_before_it_does_anything(tmp_path: Path, study: Any) -> None:
    table = people().drop(columns="sex").replace({"split": {"test": "val"}})
    path = write_table(tmp_path / "data" / "manifest.csv", relabelled("train", "0")(table))
    with pytest.raises(RuntimeError) as raised:
        study(path.parent, tmp_path / "study", generated_dir=str(tmp_path / "generated"))
    assert root_cause(raised.value) == (
        f"ManifestError: {path}: 4 problems\n"
        "  1. expected rows with split 'test' (arms are compared on them), got none; found train 18, val 12\n"
        "  2. expected training rows of every label, got none of 1; found label 0 18\n"
        "  3. attributes: expected recorded ones (age), got 'sex'; correct the name, or give --attributes \"[]\" to "
        "compare the discovered subgroups alone\n"
        f"  4. generated_dir: expected a folder of its own below dataset_dir ({path.parent}), where a manifest's "
        f"images lie, got {tmp_path / 'generated'}; give one such as {path.parent}/derivatives/generated"
    )
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_a_study_goes_on_without_bad_images_attributes_and_positives_in_test(
    data: Path, tmp_path: Path, study: Any
) -> None:
    table = pd.read_csv(data / "manifest.csv", dtype=str).drop(columns=["sex", "age"])
    write_table(data / "manifest.csv", relabelled("test", "0")(table))
    (data / "manifest.json").unlink()
    bad = [subject(image) for image in bad_images(data)]
    output = tmp_path / "study"
    study(data, output, attributes=[])
    # listed: among the registrations that failed, and among the rows that were dropped
    failed = read_json(output / "discovery" / "discovery.json", "discovery")["failed"]
    assert sorted(failed) == sorted(bad)
    assert "got the value 3 in every voxel" in failed[bad[0]]
    dropped = read_json(output / "usable.json", "manifest")["dropped"]
    assert sorted(entry["subject_id"][0] for entry in dropped) == sorted(bad)
    wanted = table.loc[(table["split"] != "train") & ~table["subject_id"].isin(bad), "image"].tolist()
    for arm in ("erm", "rebalanced", "augmented"):
        assert read_predictions(output / arm / "seed_0" / "predictions.csv").table["image"].tolist() == wanted
    assert "Left out, because the registration failed" in (output / "report.html").read_text()
    audited = json.loads((output / "metrics.json").read_text())
    (subgroups,) = audited["targets"][0]["tables"]
    for group in subgroups["groups"]:
        for arm in ("erm", "rebalanced", "augmented"):
            rate = group["cells"][arm]["tpr@0.5"]
            assert (rate["value"], rate["reason"]) == (None, "no positive case in this group")


def test_a_discovered_subgroup_without_positives_has_undefined_rates_with_a_reason(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    table = pd.DataFrame({"subject_id": [f"s{number}" for number in range(80)], "split": ["val", "test"] * 40})
    table["image"] = table["subject_id"] + ".nii.gz"
    table["subgroup"] = np.where(np.arange(80) % 4 < 2, "S1", "S2")
    empty = (table["subgroup"] == "S2") & (table["split"] == "test")
    table["label"] = np.where(empty, 0, np.arange(80) // 4 % 2)
    table["score"] = generator.uniform(0.1, 0.9, 80).round(3)
    path = write_table(tmp_path / "predictions.csv", table)
    audit_files(f"erm={path}", attributes=["subgroup"], out=tmp_path / "audit", resamples=100, permutations=20)
    audited = json.loads((tmp_path / "audit" / "metrics.json").read_text())
    (subgroups,) = audited["targets"][0]["tables"]
    first, second = ({**group["cells"]["erm"], "n": group["n"]} for group in subgroups["groups"])
    # 20 test rows each; every other one of S1 is positive, none of S2
    assert (first["n"], second["n"]) == (20, 20)
    found = table[(table["subgroup"] == "S1") & (table["split"] == "test") & (table["label"] == 1)]
    assert first["tpr@0.5"]["value"] == pytest.approx((found["score"] >= 0.5).mean())
    for name in ("auc", "tpr@0.5", "tpr@youden"):
        assert second[name]["value"] is None
        assert "no positive" in second[name]["reason"]
    gap = subgroups["gaps"]["erm"]["tpr@0.5"]
    assert (gap["value"], gap["reason"]) == (None, "fewer than two groups to compare")
    assert {"group": "S2", "reason": "no positive case in this group"} in gap["left_out"]
