"""The template's files, a subject's truth, and what is written for a subject."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import map_coordinates

from monai_fair.data import read_displacement, read_labels, read_volume, write_displacement, write_volume
from monai_fair.engines import TemplateSpace, read_template, template_match
from monai_fair.engines.registration_files import (
    EXPORTS,
    check_exports,
    measures,
    read_or_reason,
    read_truth,
    write_subject,
)
from monai_fair.errors import GeometryError, RegistrationError
from monai_fair.geometry import Grid, invert, voxel_points


@pytest.fixture
def folder(brain: Any, tmp_path: Path) -> Path:
    return brain.write_template(tmp_path)


# template


@pytest.mark.parametrize("place", [".", "derivatives/truth"])
def test_the_template_of_a_dataset_is_found_with_its_labels(brain: Any, tmp_path: Path, place: str) -> None:
    beside = brain.write_template(tmp_path / place)
    space = read_template(tmp_path)
    np.testing.assert_array_equal(space.image, brain.anatomy.image)
    np.testing.assert_array_equal(space.mask, brain.anatomy.mask > 0)
    assert space.mask.dtype == np.bool_
    assert space.grid.matches(brain.grid)
    assert sorted(space.labels) == ["roi", "tissue"]
    np.testing.assert_array_equal(space.labels["roi"], brain.anatomy.roi)
    assert space.source == str(beside / "template_T1w.nii.gz")
    assert space.mask_source == str(beside / "template_desc-brain_mask.nii.gz")
    (beside / "template_dseg.nii.gz").unlink()
    assert sorted(read_template(tmp_path).labels) == ["roi"]


def test_the_template_beside_a_model_is_found_when_the_dataset_has_none(brain: Any, tmp_path: Path) -> None:
    models = brain.write_template(tmp_path / "models")
    space = read_template(tmp_path / "data", models_dir=models)
    assert space.source == str(models / "template_T1w.nii.gz")
    assert list(space.labels) == ["tissue", "roi"]
    assert space.label_sources["roi"] == str(models / "template_desc-roi_dseg.nii.gz")
    near = brain.write_template(tmp_path / "data")
    assert read_template(tmp_path / "data", models_dir=models).source == str(near / "template_T1w.nii.gz")
    with pytest.raises(RegistrationError) as caught:
        read_template(tmp_path / "none", models_dir=tmp_path)
    none = tmp_path / "none"
    assert f"in {none} or {none}/derivatives/truth or {tmp_path}, found none" in str(caught.value)


def test_a_template_of_one_s_own(brain: Any, folder: Path) -> None:
    image, mask = folder / "template_T1w.nii.gz", folder / "template_desc-brain_mask.nii.gz"
    space = read_template("/none", image=image, mask=mask)
    assert space.labels == {}
    assert space.source == str(image)
    space = read_template("/none", image=image, mask=mask, labels={"parts": folder / "template_dseg.nii.gz"})
    np.testing.assert_array_equal(space.labels["parts"], brain.anatomy.tissue)


def test_a_template_in_another_orientation_is_turned(brain: Any, folder: Path) -> None:
    """Each file may have its own order of axes; in memory all are RAS."""
    mask = folder / "template_desc-brain_mask.nii.gz"
    affine = brain.grid.affine @ np.array([[-1.0, 0, 0, 27], [0, 1, 0, 0], [0, 0, -1, 27], [0, 0, 0, 1]])
    write_volume(mask, brain.anatomy.mask[::-1, :, ::-1], Grid(brain.grid.shape, affine))
    space = read_template(folder)
    np.testing.assert_array_equal(space.mask, brain.anatomy.mask > 0)
    assert space.mask.flags.c_contiguous


def test_a_dataset_without_a_template(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError) as caught:
        read_template(tmp_path)
    assert str(caught.value) == (
        f"template: expected template_T1w.nii.gz in {tmp_path} or {tmp_path}/derivatives/truth, found none; "
        "give template and template_mask"
    )


def test_a_mask_or_labels_that_do_not_fit(brain: Any, folder: Path) -> None:
    image, mask = folder / "template_T1w.nii.gz", folder / "template_desc-brain_mask.nii.gz"
    labels = folder / "template_dseg.nii.gz"
    affine = brain.grid.affine.copy()
    affine[2, 3] += 0.5
    write_volume(labels, brain.anatomy.tissue, Grid(brain.grid.shape, affine))
    with pytest.raises(RegistrationError) as caught:
        TemplateSpace.read(image, mask, {"tissue": labels})
    assert str(caught.value) == (
        f"{labels}: expected labels on the template's grid of (28, 32, 28) voxels, got (28, 32, 28) voxels or another "
        "place; resample it"
    )
    write_volume(mask, np.zeros(brain.grid.shape, np.uint8), brain.grid)
    with pytest.raises(RegistrationError) as caught:
        TemplateSpace.read(image, mask)
    assert str(caught.value) == f"{mask}: expected a mask with voxels above 0, got none"
    with pytest.raises(GeometryError, match=r"^/none/x\.nii: expected a NIfTI file, found none; check the path$"):
        TemplateSpace.read("/none/x.nii", mask)


def test_a_match_has_the_blurs_of_all_levels(brain: Any) -> None:
    match = template_match(brain.space, [[2.0, 4, 3]], [[0.5, 2, 1], [0.0, 1, 1]])
    assert match.blurs_vox == (2.0, 0.5, 0.0)
    assert match.mask.shape == brain.grid.shape


# truth

PATTERNS = {
    "displacement": "truth/{subject}_xfm.nii.gz",
    "mask": "truth/{subject}_mask.nii.gz",
    "labels": {"tissue": "truth/{subject}_dseg.nii.gz"},
}


def write_truth(brain: Any, root: Path, name: str = "0001") -> None:
    subject = brain.subjects[0]
    write_displacement(root / f"truth/{name}_xfm.nii.gz", subject.displacement_vox, brain.grid)
    write_volume(root / f"truth/{name}_mask.nii.gz", subject.mask, brain.grid)
    write_volume(root / f"truth/{name}_dseg.nii.gz", subject.tissue, brain.grid)


def test_what_is_known_of_a_subject(brain: Any, tmp_path: Path) -> None:
    write_truth(brain, tmp_path)
    truth = read_truth(PATTERNS, "0001", tmp_path, brain.space)
    np.testing.assert_allclose(truth.displacement_vox, brain.subjects[0].displacement_vox, atol=1e-5)
    np.testing.assert_array_equal(truth.mask, brain.subjects[0].mask > 0)
    np.testing.assert_array_equal(truth.labels["tissue"], brain.subjects[0].tissue)
    part = read_truth({"labels": None}, "0001", tmp_path, brain.space)
    assert (part.displacement_vox, part.mask, part.labels) == (None, None, {})


def test_a_truth_that_cannot_be_read_is_a_reason(brain: Any, tmp_path: Path) -> None:
    path = tmp_path / "truth/0001_xfm.nii.gz"
    truth, reason = read_or_reason(PATTERNS, "0001", tmp_path, brain.space)
    assert truth is None
    assert reason == f"{path}: expected a NIfTI file, found none; check the path"
    write_displacement(path, np.zeros((3, 8, 8, 8)), Grid.isotropic((8, 8, 8)))
    reason = read_or_reason(PATTERNS, "0001", tmp_path, brain.space)[1]
    assert reason == f"{path}: expected a field on the template's grid"
    assert read_or_reason({}, "0001", tmp_path, brain.space) == (None, "")


# measures


def test_measures_of_the_true_field(brain: Any, tmp_path: Path) -> None:
    write_truth(brain, tmp_path)
    truth = read_truth(PATTERNS, "0001", tmp_path, brain.space)
    subject = brain.subjects[0]
    field = torch.from_numpy(subject.displacement_vox)
    found = measures(brain.space, brain.images[0], field, inverse=invert(field[None])[0], truth=truth, before=True)
    assert found["endpoint_error_mm"] < 1e-4
    assert found["dice_tissue"] == 1.0
    assert found["folds"] == 0.0
    assert found["min_det_jacobian"] == pytest.approx(subject.volumes.minimum, abs=0.1)
    assert found["inverse_error_mm"] < 0.2  # of voxels of 6 mm
    assert found["endpoint_error_mm_before"] == pytest.approx(subject.mean_displacement_mm, rel=1e-3)
    assert found["dice_tissue_before"] == pytest.approx(subject.tissue_dice, abs=1e-6)
    assert found["similarity"] > found["similarity_before"]


def test_without_a_truth_the_template_s_mask_is_moved(brain: Any) -> None:
    """The field of a shift by one voxel: the moved mask is the mask one voxel further."""
    field = torch.zeros(3, *brain.grid.shape)
    field[1] = -1.0
    image = brain.template.roll(1, 1)
    found = measures(brain.space, image, field, inverse=None, truth=None, before=False)
    assert sorted(found) == ["folds", "min_det_jacobian", "sd_log_det_jacobian", "similarity"]
    assert found["similarity"] > 0.9999
    assert found["min_det_jacobian"] == pytest.approx(1.0)


# files

FILES = {
    "field": ["from-template_to-T1w_xfm.nii.gz"],
    "inverse": [],  # a direction of the others
    "itk": ["from-T1w_to-template_xfm.h5", "from-template_to-T1w_xfm.h5"],
    "warped": ["space-T1w_desc-template_T1w.nii.gz", "space-template_T1w.nii.gz"],
    "labels": ["space-T1w_desc-roi_dseg.nii.gz", "space-T1w_dseg.nii.gz"],
    "logdet": ["desc-logdetjacobian_map.nii.gz"],
}


def write(brain: Any, folder: Path, *exports: str, field: torch.Tensor | None = None) -> list[str]:
    field = torch.from_numpy(brain.subjects[0].displacement_vox) if field is None else field
    inverse = invert(field[None])[0]
    write_subject(folder, "01", brain.space, brain.images[0], displacement=field, inverse=inverse, exports=exports)
    return sorted(path.name.removeprefix("sub-01_") for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_writes_its_files(brain: Any, tmp_path: Path, name: str) -> None:
    assert write(brain, tmp_path / "sub-01", name) == FILES[name]


def test_field_and_inverse_together(brain: Any, tmp_path: Path) -> None:
    names = ["from-T1w_to-template_xfm.nii.gz", "from-template_to-T1w_xfm.nii.gz"]
    assert write(brain, tmp_path, "field", "inverse") == names


def test_an_unknown_export() -> None:
    assert check_exports(["field", "itk"]) == ("field", "itk")
    with pytest.raises(RegistrationError) as caught:
        check_exports(["field", "fields", "png"])
    assert str(caught.value) == (
        "exports: expected names of field, inverse, itk, warped, labels, logdet, got fields, png"
    )


def resampled(image: Path, reference: Path, transform: Any) -> np.ndarray:
    moving, fixed = (sitk.ReadImage(str(path), sitk.sitkFloat64) for path in (image, reference))
    found = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat64)
    return np.transpose(sitk.GetArrayFromImage(found), (2, 1, 0))


@pytest.mark.parametrize("kind", ["nii.gz", "h5"])
def test_itk_warps_as_we_do(brain: Any, folder: Path, kind: str) -> None:
    """Both directions, with both kinds of file, to 1e-4 of an image in [0, 1]."""
    out = folder / "out"
    write(brain, out, "field", "inverse", "itk", "warped")
    subject = write_volume(folder / "subject.nii.gz", brain.images[0].numpy(), brain.grid)
    cases = {
        "from-template_to-T1w": (folder / "template_T1w.nii.gz", "space-T1w_desc-template_T1w"),
        "from-T1w_to-template": (subject, "space-template_T1w"),
    }
    for name, (image, warped) in cases.items():
        path = str(out / f"sub-01_{name}_xfm.{kind}")
        if kind == "h5":
            transform = sitk.ReadTransform(path)
        else:
            transform = sitk.DisplacementFieldTransform(sitk.ReadImage(path, sitk.sitkVectorFloat64))
        expected = read_volume(out / f"sub-01_{warped}.nii.gz")
        found = resampled(image, out / f"sub-01_{warped}.nii.gz", transform)
        inside = brain.space.mask
        assert np.abs(found - expected.array)[inside].max() < 1e-4
        assert np.abs(found - read_volume(image).array)[inside].mean() > 0.01  # something was moved


def test_labels_are_those_of_the_nearest_voxel(brain: Any, tmp_path: Path) -> None:
    write(brain, tmp_path, "labels")
    points = voxel_points(brain.grid.shape).numpy() + brain.subjects[0].displacement_vox
    for name, part in (("", "tissue"), ("_desc-roi", "roi")):
        found = read_labels(tmp_path / f"sub-01_space-T1w{name}_dseg.nii.gz").array
        expected = map_coordinates(getattr(brain.anatomy, part), points, order=0, mode="nearest")
        assert (found == expected).mean() > 0.9999  # places half-way between two voxels may be rounded either way
        np.testing.assert_array_equal(found, getattr(brain.subjects[0], part))


def test_volume_changes_are_those_of_the_map_to_the_template(brain: Any, tmp_path: Path) -> None:
    """By NumPy, from the written field that samples the subject."""
    write(brain, tmp_path, "logdet", "field", "inverse")
    found = read_volume(tmp_path / "sub-01_desc-logdetjacobian_map.nii.gz").array
    inverse, _ = read_displacement(tmp_path / "sub-01_from-T1w_to-template_xfm.nii.gz")
    matrix = np.stack([np.stack(np.gradient(part), axis=0) for part in inverse], axis=0).transpose(2, 3, 4, 0, 1)
    expected = np.log(np.linalg.det(matrix + np.eye(3)))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.std() > 0.05


def test_where_a_map_folds_there_is_no_logarithm(brain: Any, tmp_path: Path) -> None:
    points = voxel_points(brain.grid.shape)
    field = torch.zeros_like(points)
    field[0] = 3.0 * torch.sin(points[0])
    inverse = field.clone()
    write_subject(tmp_path, "01", brain.space, brain.images[0], displacement=field, inverse=inverse, exports=["logdet"])
    found = nib.load(tmp_path / "sub-01_desc-logdetjacobian_map.nii.gz").get_fdata()
    slope = np.gradient(3.0 * np.sin(np.arange(28.0))) + 1
    np.testing.assert_array_equal(np.isnan(found[:, 5, 5]), slope <= 0)
    np.testing.assert_allclose(found[slope > 0, 5, 5], np.log(slope[slope > 0]), atol=1e-5)
