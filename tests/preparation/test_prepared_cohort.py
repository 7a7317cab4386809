"""From manifest to manifest: resumed, refused, carried over; a poisoned scan is a row."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813

from monai_fair.data import load_datalist, read_manifest, read_volume, recorded_num_classes, write_volume
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.data.tables import read_table, write_table
from monai_fair.errors import ArtifactError, ManifestError, RegistrationError
from monai_fair.geometry import Grid
from monai_fair.preparation import PreparationOptions, PreparedCohort, files, prepare_cohort
from monai_fair.preparation.conversion import ras_matrix
from monai_fair.preparation.files import KIND

from .conftest import MATRICES, TEMPLATE_GRID, head

Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="session")
def options(template_files: dict[str, str]) -> PreparationOptions:
    return PreparationOptions(**template_files, n4=False, masks="masks/{subject_id}.nii.gz")  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, cohort: Path, options: PreparationOptions) -> PreparedCohort:
    out = tmp_path_factory.mktemp("prepared") / "out"
    return prepare_cohort(cohort / "manifest.csv", cohort, out, options=options, workers=1)


def sidecar(folder: Path, label: str) -> Path:
    return folder / f"sub-{label}" / "anat" / f"sub-{label}_space-template_desc-preproc_T1w.json"


def test_every_scan_is_prepared_and_the_poisoned_one_is_a_row(prepared: PreparedCohort, cohort: Path) -> None:
    assert prepared.n_prepared == 3
    reason = (
        f"GeometryError: {cohort / 'poisoned.nii.gz'}: expected finite voxels, got 990 that are not, of 27720; "
        "repair the image"
    )
    assert prepared.failed == (f"poisoned: {reason}",)
    table = read_table(prepared.folder / "preparation.csv", ManifestError)
    assert table["subject_id"].tolist() == ["a_1", "poisoned", "a_2", "b-3"]
    assert table["status"].tolist() == ["prepared", "failed", "prepared", "prepared"]
    assert table["reason"].tolist() == ["", reason, "", ""]
    assert table.loc[1, "ncc":].tolist() == [""] * len(table.loc[1, "ncc":])
    assert (pd.to_numeric(table["ncc"][[0, 2, 3]]) > 0.95).all()
    scales = [np.cbrt(np.linalg.det(matrix[:3, :3])) for matrix in MATRICES.values()]
    np.testing.assert_allclose(pd.to_numeric(table["scale"][[0, 2, 3]]), scales, rtol=0.02)


def test_labels_split_and_attributes_are_carried_over(prepared: PreparedCohort) -> None:
    path = prepared.folder / "manifest.csv"
    manifest = read_manifest(path)
    rows = manifest.table[["subject_id", "label", "split", "sex", "age"]].to_numpy().tolist()
    assert rows == [["a_1", 0, "train", "m", "71"], ["a_2", 1, "val", "f", "71"], ["b-3", 0, "test", "m", "71"]]
    assert manifest.attributes == ("sex", "age")
    assert recorded_num_classes(path) == 2
    record = read_json(path.with_suffix(".json"), "manifest")
    assert [entry["subject_id"] for entry in record["dropped"]] == [["poisoned"]]
    assert record["manifest_sha256"] == sha256(path)
    items = load_datalist(path, prepared.folder, "val")
    assert [(item["subject_id"], sha256(item["image"])) for item in items] == [("a_2", manifest.table["sha256"][1])]


def test_files_are_on_the_template_s_grid_and_named_as_in_bids(prepared: PreparedCohort) -> None:
    folder = prepared.folder / "sub-a1" / "anat"
    assert sorted(path.name for path in folder.iterdir()) == [
        "sub-a1_from-template_to-T1w_mode-points_xfm.tfm",
        "sub-a1_space-template_desc-brain_mask.nii.gz",
        "sub-a1_space-template_desc-preproc_T1w.json",
        "sub-a1_space-template_desc-preproc_T1w.nii.gz",
    ]
    image = read_volume(folder / "sub-a1_space-template_desc-preproc_T1w.nii.gz")
    mask = read_volume(folder / "sub-a1_space-template_desc-brain_mask.nii.gz")
    assert image.grid.matches(TEMPLATE_GRID)
    assert mask.grid.matches(TEMPLATE_GRID)
    assert (image.array.min(), image.array.max()) == (0, 1)
    assert (image.array[mask.array == 0] == 0).all()
    assert set(np.unique(mask.array)) == {0, 1}


def test_the_transform_file_reads_the_scan_on_the_output_s_grid(prepared: PreparedCohort, cohort: Path) -> None:
    """SimpleITK alone, from the files, gives the prepared image up to its intensities."""
    folder = prepared.folder / "sub-b3" / "anat"
    transform = sitk.ReadTransform(str(folder / "sub-b3_from-template_to-T1w_mode-points_xfm.tfm"))
    image, mask = (
        sitk.ReadImage(str(folder / f"sub-b3_space-template_desc-{name}.nii.gz"), sitk.sitkFloat32)
        for name in ("preproc_T1w", "brain_mask")
    )
    scan = sitk.ReadImage(str(cohort / "b-3.nii.gz"), sitk.sitkFloat32)
    values = sitk.GetArrayFromImage(sitk.Resample(scan, image, transform, sitk.sitkLinear, 0.0))
    inside = sitk.GetArrayFromImage(mask) > 0
    low, high = np.percentile(values[inside], (0.5, 99.5))
    expected = np.clip((values - low) / (high - low), 0, 1)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image)[inside], expected[inside], atol=1e-4)
    content = read_json(sidecar(prepared.folder, "b3"), KIND)
    np.testing.assert_allclose(ras_matrix(transform), content["affine"]["output_to_scan_ras_mm"], atol=1e-9)


def test_the_sidecar_tells_the_input_the_options_and_the_versions(prepared: PreparedCohort, cohort: Path) -> None:
    content = read_json(sidecar(prepared.folder, "a2"), KIND)
    assert content["inputs"] == {
        "scan a_2.nii.gz": sha256(cohort / "a_2.nii.gz"),
        "mask a_2.nii.gz": sha256(cohort / "masks" / "a_2.nii.gz"),
    }
    assert content["input"] == {
        "shape": [28, 33, 30], "spacing_mm": [8.0, 8.0, 8.0], "orientation": "RAS", "affine_from": "file"
    }  # fmt: skip
    assert content["options_hash"] == read_json(prepared.folder / "preparation.json", "preparation")["options_hash"]
    assert content["versions"]["SimpleITK"]
    assert set(content["measures"]) == {
        "ncc", "mutual_information", "scale", "determinant", "mask_ml", "native_mask_ml", "coverage", "edge_voxels"
    }  # fmt: skip


def test_what_is_finished_is_left_alone_and_what_is_missing_comes_back(
    prepared: PreparedCohort, cohort: Path, options: PreparationOptions, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(prepared.folder)
    image = prepared.folder / "sub-a2" / "anat" / "sub-a2_space-template_desc-preproc_T1w.nii.gz"
    image.write_bytes(b"damaged")
    done = []
    monkeypatch.setattr(
        files, "prepare_scan", lambda *given, real=files.prepare_scan, **named: done.append(1) or real(*given, **named)
    )
    prepare_cohort(cohort / "manifest.csv", cohort, prepared.folder, options=options, workers=1)
    assert len(done) == 1
    assert tree(prepared.folder) == before


@pytest.mark.slow
def test_processes_give_the_same_bytes(
    prepared: PreparedCohort, cohort: Path, options: PreparationOptions, tree: Tree, tmp_path: Path
) -> None:
    prepare_cohort(cohort / "manifest.csv", cohort, tmp_path / "again", options=options, workers=2)
    assert tree(tmp_path / "again") == tree(prepared.folder)


def test_a_killed_run_leaves_no_half_file_and_goes_on(
    prepared: PreparedCohort, cohort: Path, options: PreparationOptions, tree: Tree, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    program = (
        "import sys; from monai_fair.preparation import PreparationOptions, prepare_cohort; "
        "prepare_cohort(sys.argv[1] + '/manifest.csv', sys.argv[1], sys.argv[2], workers=1, options="
        "PreparationOptions(template=sys.argv[3], template_mask=sys.argv[4], n4=False, masks=sys.argv[5]))"
    )
    given = (str(cohort), str(out), options.template, options.template_mask, options.masks)
    with subprocess.Popen([sys.executable, "-c", program, *given], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not sidecar(out, "a1").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    complete = tree(prepared.folder)
    found = {name: content for name, content in tree(out).items() if not Path(name).name.startswith(".")}
    assert 0 < len(found) < len(complete)
    assert all(complete[name] == content for name, content in found.items())
    # what a kill in the middle of a write leaves
    (out / "sub-a1" / "anat" / ".sub-a1_T1w.nii.gz.abc.part").write_bytes(b"half")
    prepare_cohort(cohort / "manifest.csv", cohort, out, options=options, workers=1)
    assert tree(out) == complete


def test_a_folder_of_other_options_is_refused_by_their_names(
    prepared: PreparedCohort, cohort: Path, template_files: dict[str, str]
) -> None:
    other = PreparationOptions(**template_files, keep_scale=True, n4=False)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError) as raised:
        prepare_cohort(cohort / "manifest.csv", cohort, prepared.folder, options=other, workers=1)
    assert str(raised.value) == (
        f"{prepared.folder}: expected scans prepared with the same options, got a folder with keep_scale False, now "
        "True; masks 'masks/{subject_id}.nii.gz', now ''; give another folder, or remove this one first"
    )


def test_a_folder_with_something_else_is_refused(cohort: Path, options: PreparationOptions, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError) as raised:
        prepare_cohort(cohort / "manifest.csv", cohort, tmp_path, options=options, workers=1)
    assert str(raised.value) == (
        f"{tmp_path}: expected an empty folder or one of prepared scans, got a folder with 'notes.txt' (1 entries); "
        "give another folder"
    )
    with pytest.raises(ArtifactError, match="expected a folder, got a file"):
        prepare_cohort(cohort / "manifest.csv", cohort, tmp_path / "notes.txt", options=options, workers=1)


def damaged_cohort(cohort: Path, folder: Path) -> Path:
    """One scan with three masks that do not fit, and a scan that has changed since its manifest."""
    image, brain = head(TEMPLATE_GRID)
    rows = []
    for name in ("other_grid", "empty", "no_mask", "changed"):
        write_volume(folder / f"{name}.nii.gz", image.array, image.grid)
        rows.append((name, f"{name}.nii.gz", "0" * 64 if name == "changed" else ""))
    write_volume(folder / "masks" / "other_grid.nii.gz", brain.array[1:], Grid((20, 24, 21), TEMPLATE_GRID.affine))
    write_volume(folder / "masks" / "empty.nii.gz", np.zeros_like(brain.array), image.grid)
    write_volume(folder / "masks" / "changed.nii.gz", brain.array, image.grid)
    return write_table(folder / "manifest.csv", pd.DataFrame(rows, columns=["subject_id", "image", "sha256"]))


def test_masks_and_checksums_that_do_not_fit_are_rows(
    cohort: Path, options: PreparationOptions, tmp_path: Path
) -> None:
    root, out = tmp_path / "raw", tmp_path / "out"
    with pytest.raises(RegistrationError) as raised:
        prepare_cohort(damaged_cohort(cohort, root), root, out, options=options, workers=1)
    assert str(raised.value).startswith(
        f"{out}: expected at least one prepared scan, got none of 4; see {out / 'preparation.csv'}; "
        "the first: other_grid: GeometryError: "
    )
    masks = root / "masks"
    corner = "first voxel at (-80.0, -109.0, -75.0) mm"
    assert read_table(out / "preparation.csv", ManifestError)["reason"].tolist() == [
        f"GeometryError: {masks / 'other_grid.nii.gz'}: expected a mask on the grid of {root / 'other_grid.nii.gz'}, "
        f"21 x 24 x 21 at 8 x 8 x 8 mm, RAS, {corner}, got 20 x 24 x 21 at 8 x 8 x 8 mm, RAS, {corner}; "
        "resample the mask onto the scan",
        f"GeometryError: {masks / 'empty.nii.gz'}: expected a brain mask, got one without a voxel above 0; "
        "give another",
        f"GeometryError: {masks / 'no_mask.nii.gz'}: expected a NIfTI file, found none; check the path",
        f"GeometryError: {root / 'changed.nii.gz'}: expected sha256 000000000000... (manifest), got "
        f"{sha256(root / 'changed.nii.gz')[:12]}...: the file has changed",
    ]
    assert not (out / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (
            "masks/{patient}.nii.gz",
            "masks: expected a column of the manifest in braces (subject_id, image, label, split, sex, age), got "
            "'{patient}'",
        ),
        ("mask.nii.gz", "masks: expected a column in braces, such as {subject_id}, got 'mask.nii.gz', the same for "
         "every scan"),
        ("masks/{subject_id", "masks: expected a path with columns in braces, got 'masks/{subject_id' (expected '}' "
         "before end of string)"),
        (
            "masks/{subject_id.__class__}.nii.gz",
            "masks: expected a column of the manifest in braces (subject_id, image, label, split, sex, age), got "
            "'{subject_id.__class__}'",
        ),
    ],
)  # fmt: skip
def test_a_pattern_of_masks_that_cannot_be_filled(
    pattern: str, reason: str, cohort: Path, template_files: dict[str, str], tmp_path: Path
) -> None:
    options = PreparationOptions(**template_files, masks=pattern)  # type: ignore[arg-type]
    with pytest.raises(ManifestError) as raised:
        prepare_cohort(cohort / "manifest.csv", cohort, tmp_path / "out", options=options, workers=1)
    assert str(raised.value) == f"{cohort / 'manifest.csv'}: {reason}"
    assert not (tmp_path / "out").exists()


def test_a_mask_outside_the_data_root_is_refused(cohort: Path, template_files: dict[str, str], tmp_path: Path) -> None:
    options = PreparationOptions(**template_files, masks="../{subject_id}.nii.gz")  # type: ignore[arg-type]
    with pytest.raises(ManifestError, match="expected a path under"):
        prepare_cohort(cohort / "manifest.csv", cohort, tmp_path / "out", options=options, workers=1)


def test_subjects_of_one_bids_name_are_refused_and_sessions_are_counted(
    cohort: Path, options: PreparationOptions, template_files: dict[str, str], tmp_path: Path
) -> None:
    table = pd.DataFrame({"subject_id": ["a_1", "A1", "sub-a-2"], "image": ["a_1.nii.gz", "a_2.nii.gz", "b-3.nii.gz"]})
    with pytest.raises(ManifestError) as raised:
        prepare_cohort(write_table(tmp_path / "m.csv", table), cohort, tmp_path / "out", options=options, workers=1)
    assert str(raised.value) == (
        f"{tmp_path / 'm.csv'}: subjects 'a_1' and 'A1' have the same name in BIDS (letters and digits only); "
        "rename one"
    )
    table["subject_id"] = ["sub-a_1", "sub-a_1", "a_2"]
    known = PreparationOptions(**template_files, affines="maps/{image}.tfm", n4=False)  # type: ignore[arg-type]
    done = prepare_cohort(write_table(tmp_path / "m.csv", table), cohort, tmp_path / "out", options=known, workers=1)
    assert read_manifest(done.folder / "manifest.csv", labelled=False).table["image"].tolist() == [
        "sub-a1/ses-01/anat/sub-a1_ses-01_space-template_desc-preproc_T1w.nii.gz",
        "sub-a1/ses-02/anat/sub-a1_ses-02_space-template_desc-preproc_T1w.nii.gz",
        "sub-a2/anat/sub-a2_space-template_desc-preproc_T1w.nii.gz",
    ]


def test_the_grid_must_hold_some_of_the_brain(cohort: Path, tmp_path: Path) -> None:
    """The template's own mask is empty on a grid that lies beside the brain."""
    image, brain = head(TEMPLATE_GRID)
    template = write_volume(tmp_path / "t.nii.gz", image.array, image.grid)
    mask = write_volume(tmp_path / "m.nii.gz", np.zeros_like(brain.array), brain.grid)
    options = PreparationOptions(template=str(template), template_mask=str(mask))
    with pytest.raises(ValueError, match="expected a brain mask, got one without a voxel above 0"):
        prepare_cohort(cohort / "manifest.csv", cohort, tmp_path / "out", options=options, workers=1)
