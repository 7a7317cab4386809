import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813

from monai_fair.data import check_images, read_displacement, read_labels, read_manifest, read_volume
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.geometry import canonical
from monai_fair.simulation import BrainCohort, brain_files, load_brain_anatomy, simulate_brain, simulate_brain_subject

N, SHAPE = 8, (24, 28, 24)
COHORT = BrainCohort(train_share=0.5, val_share=0, distractors=1, detail_mm=0.5)
RUN = {"n": N, "seed": 3, "anatomy": "phantom", "shape": SHAPE, "num_workers": 1}
TRUTH = "derivatives/truth"
Hashes = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_brain(tmp_path_factory.mktemp("brains"), cohort=COHORT, **RUN)


@pytest.fixture(scope="module")
def effects(cohort: Path) -> pd.DataFrame:
    return pd.read_csv(cohort / TRUTH / "effects.csv")


def test_names_follow_bids(cohort: Path, hashes: Hashes) -> None:
    # entities in the order of the specification, then suffix and extension
    raw = re.compile(r"(sub-[0-9a-zA-Z]+)/anat/\1_T1w\.nii\.gz")
    derivative = re.compile(
        r"derivatives/truth/((sub-[0-9a-zA-Z]+)/\2_)?(template_)?(desc-[0-9a-zA-Z]+_)?(dseg|mask|xfm|T1w)\.(nii\.gz|json)"
    )
    top = {"dataset_description.json", "participants.tsv", "participants.json", ".bidsignore", "manifest.csv",
           "manifest.json", "simulation.json", f"{TRUTH}/dataset_description.json", f"{TRUTH}/effects.csv"}  # fmt: skip
    found = set(hashes(cohort))
    images = {name for name in found if raw.fullmatch(name)}
    truth = {name for name in found - images if derivative.fullmatch(name)}
    assert len(images) == N
    assert len(truth) == 4 + 6 * N - N
    assert found - images - truth - top == {name for name in found if name.endswith("desc-truth_xfm.json")} - truth
    assert top <= found
    per_subject = {name.split("sub-0001_")[-1] for name in found if "sub-0001" in name}
    assert per_subject == {"T1w.nii.gz", "desc-truth_xfm.nii.gz", "desc-truth_xfm.json", "dseg.nii.gz",
                           "desc-roi_dseg.nii.gz", "desc-brain_mask.nii.gz"}  # fmt: skip
    ignored = (cohort / ".bidsignore").read_text().split()
    assert ignored == ["manifest.csv", "manifest.json", "simulation.json"]


def test_descriptions_have_what_bids_requires(cohort: Path) -> None:
    raw, truth = (json.loads((cohort / place / "dataset_description.json").read_text()) for place in (".", TRUTH))
    assert raw["Name"]
    assert raw["BIDSVersion"] == truth["BIDSVersion"]
    assert (raw["DatasetType"], truth["DatasetType"]) == ("raw", "derivative")
    assert truth["GeneratedBy"][0]["Name"] == "monai_fair"
    assert raw["Acknowledgements"] == "anatomy: phantom"
    table = pd.read_csv(cohort / "participants.tsv", sep="\t")
    assert list(table) == ["participant_id", "sex", "age", "diagnosis", "split"]
    assert set(json.loads((cohort / "participants.json").read_text())) == set(table)
    assert table["participant_id"].tolist() == [f"sub-{number:04d}" for number in range(1, N + 1)]
    for column, names in (("sex", {"male", "female"}), ("diagnosis", {"control", "patient"})):
        assert set(table[column]) == names
        assert names == set(json.loads((cohort / "participants.json").read_text())[column]["Levels"])


def test_the_manifest_is_read_and_its_images_checked(cohort: Path, effects: pd.DataFrame) -> None:
    manifest = read_manifest(cohort / "manifest.csv")
    assert manifest.attributes == ("sex", "age")
    seen = check_images(manifest, cohort, full=True, progress=False)
    spacing = f"{192 / 28:.3g}"
    assert seen.kinds == {f"NIfTI 24 x 28 x 24 at {spacing} x {spacing} x {spacing} mm": N}
    assert seen.repeated == []
    people = pd.read_csv(cohort / "participants.tsv", sep="\t")
    assert manifest.table["subject_id"].tolist() == people["participant_id"].tolist() == effects["subject_id"].tolist()
    assert (manifest.table["label"] == (people["diagnosis"] == "patient")).all()
    for column in ("sex", "split"):
        assert manifest.table[column].tolist() == people[column].tolist() == effects[column].tolist()
    record = read_json(cohort / "manifest.json", "manifest")
    assert record["num_classes"] == 2
    assert record["manifest_sha256"] == sha256(cohort / "manifest.csv")
    assert {(cell["split"], cell["group"]): cell["n"] for cell in record["cross_tables"]} == {
        ("train", "male"): 2, ("train", "female"): 2, ("test", "male"): 2, ("test", "female"): 2,
    }  # fmt: skip


def test_files_hold_what_the_function_returns(cohort: Path, effects: pd.DataFrame) -> None:
    anatomy = load_brain_anatomy("phantom", shape=SHAPE)
    template = read_volume(cohort / TRUTH / "template_T1w.nii.gz")
    np.testing.assert_array_equal(template.array, anatomy.image)
    assert template.grid.matches(anatomy.grid)
    for index in (0, N - 1):
        subject = simulate_brain_subject(index, anatomy=anatomy, seed=3, cohort=COHORT)
        name = subject.person.subject_id
        start = cohort / TRUTH / name / name
        image = read_volume(cohort / name / "anat" / f"{name}_T1w.nii.gz")
        np.testing.assert_array_equal(image.array, subject.image)
        assert image.grid.matches(anatomy.grid)
        for suffix, labels in (
            ("dseg", subject.tissue),
            ("desc-roi_dseg", subject.roi),
            ("desc-brain_mask", subject.mask),
        ):
            np.testing.assert_array_equal(read_labels(f"{start}_{suffix}.nii.gz").array, labels)
        field, grid = read_displacement(f"{start}_desc-truth_xfm.nii.gz")
        np.testing.assert_allclose(field, subject.displacement_vox, atol=1e-5)
        assert grid.matches(anatomy.grid)
        row = effects.iloc[index]
        assert row["label"] == subject.person.label
        assert row["disease_strength"] == subject.person.disease_strength
        assert row["group_strength"] == subject.person.group_strength
        assert row["distractor_1"] == subject.person.distractor_strengths[0]
        assert row["scale"] == subject.person.scale
        assert row["seed"] == 3
        assert row["mean_displacement_mm"] == pytest.approx(subject.mean_displacement_mm, rel=1e-5)
        assert row["min_det_jacobian"] == pytest.approx(subject.volumes.minimum, rel=1e-5)
    assert (effects["min_det_jacobian"] > 0).all()


def test_itk_makes_the_same_subject_of_template_and_truth(tmp_path: Path) -> None:
    out = simulate_brain(tmp_path / "out", cohort=BrainCohort(noise=0, bias_field=0), **{**RUN, "n": 1})
    template = sitk.ReadImage(out / TRUTH / "template_T1w.nii.gz", sitk.sitkFloat64)
    field = sitk.ReadImage(out / TRUTH / "sub-0001" / "sub-0001_desc-truth_xfm.nii.gz", sitk.sitkVectorFloat64)
    warped = sitk.Resample(template, template, sitk.DisplacementFieldTransform(field), sitk.sitkLinear, 0.0)
    subject = read_volume(out / "sub-0001" / "anat" / "sub-0001_T1w.nii.gz").array
    # ITK's arrays run from the last axis to the first
    np.testing.assert_allclose(sitk.GetArrayFromImage(warped).T, subject, atol=1e-4)
    assert np.abs(sitk.GetArrayFromImage(template).T - subject).max() > 0.05


def test_the_record_tells_places_and_counts(cohort: Path, effects: pd.DataFrame) -> None:
    record = read_json(cohort / "simulation.json", "simulated_brain")
    assert record["parameters"]["seed"] == 3
    assert record["parameters"]["shape"] == list(SHAPE)
    assert record["parameters"]["cohort"] == COHORT.parameters()
    assert set(record["sites"]) == {"disease", "group", "distractor_1"}
    assert record["sites"]["disease"] == {"name": "left hippocampus", "centre_mm": [-25, -21, -10], "radius_mm": 10}
    assert len(record["regions"]) == 10
    assert record["means"]["tissue_dice"] == pytest.approx(effects["tissue_dice"].mean(), abs=1e-6)
    for row in record["counts"]:
        part = effects[(effects["split"] == row["split"]) & (effects["sex"] == row["sex"])]
        assert (row["n"], row["patients"]) == (len(part), part["label"].sum())
    # nobody is in val: the correlation there is not defined
    assert {row["split"]: row["phi"] for row in record["counts"]}["val"] is None


def test_same_bytes_for_any_number_of_workers(cohort: Path, tmp_path: Path, hashes: Hashes) -> None:
    other = simulate_brain(tmp_path, cohort=COHORT, **{**RUN, "num_workers": 2})
    assert hashes(other) == hashes(cohort)


def test_a_subject_is_the_same_in_a_smaller_cohort(cohort: Path, tmp_path: Path, hashes: Hashes) -> None:
    few, many = hashes(simulate_brain(tmp_path, cohort=COHORT, **{**RUN, "n": 3})), hashes(cohort)
    shared = [name for name in few if "sub-" in name]
    assert len(shared) == 18
    assert {name: few[name] for name in shared} == {name: many[name] for name in shared}


def test_scrambled_axes_leave_everything_where_it_is_in_the_world(cohort: Path, tmp_path: Path, hashes: Hashes) -> None:
    other = simulate_brain(tmp_path, cohort=replace(COHORT, scramble_axes=True), **RUN)
    orders = set()
    for number in range(1, N + 1):
        name = f"sub-{number:04d}/anat/sub-{number:04d}_T1w.nii.gz"
        plain, turned = read_volume(cohort / name), read_volume(other / name)
        orders.add(turned.grid.orientation)
        array, grid = canonical(turned.array, turned.grid)
        np.testing.assert_array_equal(array, plain.array)
        assert grid.matches(plain.grid)
    assert len(orders) > 4
    truth = [{name: value for name, value in hashes(folder).items() if name.endswith("truth_xfm.nii.gz")}
             for folder in (cohort, other)]  # fmt: skip
    assert truth[0] == truth[1]


def test_a_finished_folder_is_left_alone(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    for name in ("draw_subject", "load_brain_anatomy"):
        monkeypatch.delattr(brain_files, name)
    assert simulate_brain(str(cohort), cohort=COHORT, **RUN) == cohort
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*")} == before


def test_a_killed_run_is_noticed_and_completed(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: Hashes
) -> None:
    out, drawn, real = tmp_path / "out", [], brain_files.draw_subject

    def killed_at_the_fourth(*args: object) -> object:
        drawn.append(1)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(brain_files, "draw_subject", killed_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            simulate_brain(out, cohort=COHORT, **RUN)
    assert len(list(out.glob("sub-*"))) == 3
    assert not (out / "participants.tsv").exists()
    assert not (out / "simulation.json").exists()
    (out / "sub-0001" / "anat" / ".sub-0001_T1w.nii.gz.abc.part").write_bytes(b"half")
    with pytest.raises(ArtifactError, match="expected a cohort of the same parameters, got one with seed 3, now 9;"):
        simulate_brain(out, cohort=COHORT, **{**RUN, "seed": 9})
    done = len(drawn)
    monkeypatch.setattr(brain_files, "draw_subject", lambda *args: drawn.append(1) or real(*args))
    simulate_brain(out, cohort=COHORT, **RUN)
    assert len(drawn) - done == N - 3
    assert hashes(out) == hashes(cohort)


@pytest.mark.parametrize(
    "lost", ["sub-0002/anat/sub-0002_T1w.nii.gz", f"{TRUTH}/sub-0003/sub-0003_dseg.nii.gz", f"{TRUTH}/effects.csv",
             f"{TRUTH}/template_dseg.nii.gz", "manifest.csv"]
)  # fmt: skip
def test_a_lost_file_is_written_again(cohort: Path, tmp_path: Path, lost: str, hashes: Hashes) -> None:
    out = tmp_path / "out"
    shutil.copytree(cohort, out)
    (out / lost).unlink()
    simulate_brain(out, cohort=COHORT, **RUN)
    assert hashes(out) == hashes(cohort)


def test_other_parameters_are_refused_by_name(cohort: Path, hashes: Hashes) -> None:
    before = hashes(cohort)
    with pytest.raises(ArtifactError) as caught:
        simulate_brain(cohort, cohort=replace(COHORT, noise=0), **{**RUN, "n": N + 1})
    assert str(caught.value) == (
        f"{cohort}: expected a cohort of the same parameters, got one with n 8, now 9; noise 0.03, now 0.0; "
        "give another folder, or remove this one first"
    )
    assert hashes(cohort) == before


def test_every_subject_that_folds_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(MonaiFairError) as caught:
        simulate_brain(out, cohort=BrainCohort(deformation_mm=6, smoothness_mm=4), **RUN)
    message = str(caught.value)
    named = set(re.findall(r"sub-\d{4}", message))
    assert 0 < len(named) < N
    assert message.count("expected a deformation without folds") == len(named)
    drawn = {path.name for path in out.glob("sub-*")}
    assert drawn == {f"sub-{number:04d}" for number in range(1, N + 1)} - named
    assert not (out / "simulation.json").exists()


def test_every_bad_run_parameter_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError) as caught:
        simulate_brain(tmp_path / "out", n=0, seed=-1, num_workers=0, spacing_mm=40, anatomy="atlas")
    assert str(caught.value) == (
        "simulate_brain: 5 problems\n"
        "  1. n: expected a whole number from 1 to 9999, got 0; give one in that range\n"
        "  2. seed: expected a whole number from 0 to 9223372036854775807, got -1; give one in that range\n"
        "  3. num_workers: expected a whole number from 1 to 1024, got 0; give one in that range\n"
        "  4. anatomy: expected one of auto, mni152, phantom, got 'atlas'; give one of them\n"
        "  5. spacing: expected millimetres from 0.5 to 16, got 40; give a number in that range"
    )
    assert not (tmp_path / "out").exists()
