"""The whole study of brains from scans as they lie on a user's disk: BIDS with masks and affine maps, and OASIS-1."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from monai_fair.data import read_labels, read_manifest, read_predictions, read_volume, write_volume
from monai_fair.data.artifacts import read_json
from monai_fair.data.verbs import check, manifest
from monai_fair.errors import ManifestError
from monai_fair.geometry import Grid
from monai_fair.preparation import PreparationOptions, prepare_cohort, source_manifest
from monai_fair.simulation import BrainCohort, simulate_brain

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

BUNDLE = Path(__file__).parents[2] / "bundles" / "brain_mri_fair_classification"
ARMS = ["erm", "rebalanced", "augmented"]
SUBJECTS = 28
T88 = "PROCESSED/MPRAGE/T88_111"
OASIS_HEADER = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small brains on the template's grid, with the template."""
    cohort = BrainCohort(correlation=0.6, train_share=0.6, val_share=0.2)
    return simulate_brain(
        tmp_path_factory.mktemp("brains") / "data", n=SUBJECTS, seed=0, anatomy="phantom", shape=(20, 24, 20),
        cohort=cohort, num_workers=1,
    )  # fmt: skip


def check_results(data: Path, output: Path, stages: list[str]) -> None:
    timed = read_json(output / "stages.json", "stages")["stages"]
    assert [stage["name"] for stage in timed] == stages
    page = (output / "report.html").read_text()
    assert all(stage in page for stage in stages)
    audited = json.loads((output / "metrics.json").read_text())
    assert [run["name"] for run in audited["runs"]] == ARMS
    assert audited["settings"]["attributes"] == ["subgroup", "sex"]
    table = read_manifest(data / "manifest.csv").table
    wanted = table.loc[table["split"] != "train", "image"].tolist()
    for arm in ARMS:
        assert read_predictions(output / arm / "seed_0" / "predictions.csv").table["image"].tolist() == wanted
    record = read_json(output / "discovery" / "discovery.json", "discovery")
    assert (record["n"], record["failed"]) == (len(table), {})
    assert read_json(output / "usable.json", "manifest")["dropped"] == []


def scanner_map(number: int) -> np.ndarray:
    """From the template's world to that of a scan: a head turned, moved and sized, RAS millimetres."""
    generator = np.random.default_rng(number)
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", generator.uniform(-8, 8, 3), degrees=True).as_matrix()
    matrix[:3, :3] = generator.uniform(0.92, 1.08) * turn
    matrix[:3, 3] = generator.uniform(-15, 15, 3)
    return matrix


def as_stored(array: np.ndarray, affine: np.ndarray, orientation: str, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels in the order of another scanner, with air around; nibabel turns them, nothing of ours."""
    image = nib.Nifti1Image(np.pad(array, pad), affine @ nib.affines.from_matvec(np.eye(3), [-pad] * 3))
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    turned = image.as_reoriented(turn)
    return np.ascontiguousarray(turned.dataobj), turned.affine


def write_bids(simulated: Path, root: Path) -> None:
    """Scans where a scanner left them; masks and maps as derivatives of two other tools."""
    people = pd.read_csv(simulated / "participants.tsv", sep="\t", dtype=str)
    for number, who in enumerate(people["participant_id"]):
        image = read_volume(simulated / who / "anat" / f"{who}_T1w.nii.gz")
        brain = read_labels(simulated / "derivatives" / "truth" / who / f"{who}_desc-brain_mask.nii.gz")
        matrix = scanner_map(number)
        places = {
            f"{who}/anat/{who}_T1w.nii.gz": image.array * 900,
            f"derivatives/synthstrip/{who}/anat/{who}_desc-brain_mask.nii.gz": brain.array.astype(np.uint8),
        }
        for place, array in places.items():
            stored, affine = as_stored(array, matrix @ image.grid.affine, ("RAS", "LAS", "ASL")[number % 3], number % 4)
            write_volume(root / place, stored, Grid(stored.shape, affine))
        # ITK's axes run to the left and to the back
        flip = np.diag([-1.0, -1.0, 1.0, 1.0])
        lps = flip @ matrix @ flip
        transform = sitk.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist())
        folder = root / "derivatives" / "ants" / who
        folder.mkdir(parents=True)
        sitk.WriteTransform(transform, str(folder / f"{who}_from-template_to-T1w_mode-points_xfm.tfm"))
    people.to_csv(root / "participants.tsv", sep="\t", index=False)
    (root / "dataset_description.json").write_text('{"Name": "Brains", "BIDSVersion": "1.10.0"}')


@pytest.fixture(scope="module")
def from_bids(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of prepared scans from BIDS, with masks and affine maps of other tools; not to be written to."""
    folder = tmp_path_factory.mktemp("from_bids")
    root, data = folder / "bids", folder / "prepared"
    root.mkdir()
    write_bids(simulated, root)
    options = "label=diagnosis,positive=patient,negative=control,split=column"
    manifest("bids", str(root), str(root / "manifest.csv"), options=options)
    assert check(str(root / "manifest.csv"), str(root), full=True, num_workers=1).startswith(f"{SUBJECTS} images")
    truth = simulated / "derivatives" / "truth"
    prepared = prepare_cohort(
        root / "manifest.csv",
        root,
        data,
        options=PreparationOptions(
            template=str(truth / "template_T1w.nii.gz"),
            template_mask=str(truth / "template_desc-brain_mask.nii.gz"),
            masks="derivatives/synthstrip/{subject_id}/anat/{subject_id}_desc-brain_mask.nii.gz",
            affines="derivatives/ants/{subject_id}/{subject_id}_from-template_to-T1w_mode-points_xfm.tfm",
            n4=False,
        ),
        workers=1,
    )
    assert (prepared.n_prepared, prepared.failed) == (SUBJECTS, ())
    return data


def test_bids_with_masks_and_affine_maps_of_other_tools_is_what_was_simulated(simulated: Path, from_bids: Path) -> None:
    data, truth = from_bids, simulated / "derivatives" / "truth"
    # the maps lead from the template's voxels to voxels of the scan, which are the simulated ones: nothing is lost
    for row in read_manifest(data / "manifest.csv").table.itertuples():
        who = str(row.subject_id)
        brain = read_labels(truth / who / f"{who}_desc-brain_mask.nii.gz").array > 0
        mask = data / str(row.image).replace("desc-preproc_T1w", "desc-brain_mask")
        np.testing.assert_array_equal(read_labels(mask).array > 0, brain)
        found = read_volume(data / str(row.image)).array
        inside = brain & (found > 0) & (found < 1)  # between the ends that intensities are cut off at
        image = read_volume(simulated / who / "anat" / f"{who}_T1w.nii.gz").array
        assert np.corrcoef(found[inside], image[inside])[0, 1] > 0.99999
    # as the study reads them
    assert check(str(data / "manifest.csv"), str(data), full=True, num_workers=1).startswith(f"{SUBJECTS} images")


# test_brain_study.py has the study, of a cohort with the same columns, and the test above what it reads
@pytest.mark.slow
def test_a_study_of_scans_prepared_from_bids(from_bids: Path, tmp_path: Path, study: Any, stages: list[str]) -> None:
    data = shutil.copytree(from_bids, tmp_path / "prepared")
    study(data, tmp_path / "study")
    check_results(data, tmp_path / "study", stages)


def write_pair(path: Path, array: np.ndarray, spacing: float) -> None:
    """An Analyze 7.5 pair as OASIS-1 publishes it: big-endian, four axes, nothing that says where left is."""
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    header.set_data_shape((*array.shape, 1))
    header["pixdim"][1:4] = spacing
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".hdr").write_bytes(header.binaryblock)
    path.with_suffix(".img").write_bytes(np.rint(array).astype(">i2").tobytes(order="F"))


def write_oasis1(simulated: Path, root: Path) -> None:
    """Brains on a background of 0 under the names and folders of OASIS-1, beside those that are not read."""
    rows = []
    people = pd.read_csv(simulated / "participants.tsv", sep="\t", dtype=str)
    for number, row in enumerate(people.itertuples(), start=1):
        who, scan = str(row.participant_id), f"OAS1_{number:04d}_MR1"
        image = read_volume(simulated / who / "anat" / f"{who}_T1w.nii.gz")
        brain = read_labels(simulated / "derivatives" / "truth" / who / f"{who}_desc-brain_mask.nii.gz").array
        folder = root / ("disc1", "oasis_cross-sectional_disc2/disc2", "disc3")[number % 3] / scan
        left = image.array[::-1]  # LAS: the first axis runs to the left
        stem = f"{scan}_mpr_n4_anon_111_t88"
        write_pair(folder / T88 / f"{stem}_gfc.img", left * 2000, 8.0)
        write_pair(folder / T88 / f"{stem}_masked_gfc.img", np.maximum(left * 2000, 1) * brain[::-1], 8.0)
        write_pair(folder / "FSL_SEG" / f"{stem}_masked_gfc_fseg.img", brain[::-1] * 3, 8.0)
        write_pair(folder / "PROCESSED" / "MPRAGE" / "SUBJ_111" / f"{scan}_mpr_n4_anon_sbj_111.img", left, 8.0)
        write_pair(folder / "RAW" / f"{scan}_mpr-1_anon.img", left, 8.0)
        cdr = {"control": "0", "patient": ("0.5", "1")[number % 2]}[str(row.diagnosis)]
        sex = {"female": "F", "male": "M"}[str(row.sex)]
        rows.append(f"{scan},{sex},R,{row.age},2,3,29,{cdr},1344,0.743,1.306,N/A")
    rows.append("OAS1_0001_MR2,F,R,75,,,,,1344,0.743,1.306,40")  # a repeated session has no CDR of its own
    (root / "oasis_cross-sectional.csv").write_text("\n".join([OASIS_HEADER, *rows]) + "\n")


@pytest.mark.slow
def test_from_oasis_1_as_it_is_published(simulated: Path, tmp_path: Path, study: Any, stages: list[str]) -> None:
    root, data = tmp_path / "oasis1", tmp_path / "prepared"
    write_oasis1(simulated, root)
    truth = simulated / "derivatives" / "truth"
    built = source_manifest("", "oasis1", root, data)
    check(str(built), str(root), full=True, num_workers=1)
    prepared = prepare_cohort(
        built,
        root,
        data,
        options=PreparationOptions(
            template=str(truth / "template_T1w.nii.gz"),
            template_mask=str(truth / "template_desc-brain_mask.nii.gz"),
            orientation="LAS",
            skull_stripped=True,
            n4=False,
        ),
        workers=2,
    )
    assert (prepared.n_prepared, prepared.failed) == (SUBJECTS, ())
    assert read_json(built.with_suffix(".json"), "manifest")["dropped"] == [
        {"reason": "label is missing", "n": 1, "image_id": ["OAS1_0001_MR2"]}
    ]
    for row in read_manifest(data / "manifest.csv").table.itertuples():
        # like the brain as it was simulated, and less like its mirror image: left stayed left
        who = f"sub-{str(row.subject_id)[5:]}"
        image = read_volume(simulated / who / "anat" / f"{who}_T1w.nii.gz").array
        brain = read_labels(truth / who / f"{who}_desc-brain_mask.nii.gz").array > 0
        found = read_volume(data / str(row.image)).array
        alike, mirrored = (np.corrcoef(found[brain], other[brain])[0, 1] for other in (image, image[::-1]))
        assert alike > 0.95
        assert alike > mirrored
    regions, names = truth / "template_dseg.nii.gz", ["log_jacobian", "regional_volumes"]
    study(data, tmp_path / "study", representations=names, regions=str(regions))
    check_results(data, tmp_path / "study", stages)
    record = read_json(tmp_path / "study" / "discovery" / "discovery.json", "discovery")
    assert {look["representation"] for look in record["candidates"]} == set(names)
    assert regions.name in record["inputs"]


def test_a_map_that_cannot_be_used_is_a_row_with_a_reason(simulated: Path, tmp_path: Path) -> None:
    root = tmp_path / "bids"
    root.mkdir()
    write_bids(simulated, root)
    folder = root / "derivatives" / "ants"
    maps = [folder / who / f"{who}_from-template_to-T1w_mode-points_xfm.tfm" for who in ("sub-0001", "sub-0002")]
    more = [folder / who / f"{who}_from-template_to-T1w_mode-points_xfm.tfm" for who in ("sub-0003", "sub-0004")]
    maps[0].unlink()
    maps[1].write_text("1 0 0 4\n0 1 0 2\n0 0 1 3\n0 0 0 1\n")  # a FLIRT matrix
    sitk.WriteTransform(sitk.TranslationTransform(3, (900.0, 0.0, 0.0)), str(more[0]))
    sitk.WriteTransform(sitk.AffineTransform((-1.0, 0, 0, 0, 1, 0, 0, 0, 1), (0.0, 0, 0)), str(more[1]))
    rows = [
        f"{who},{who}/anat/{who}_T1w.nii.gz" for who in ("sub-0001", "sub-0002", "sub-0003", "sub-0004", "sub-0005")
    ]
    (root / "manifest.csv").write_text("\n".join(["subject_id,image", *rows]) + "\n")
    truth = simulated / "derivatives" / "truth"
    template = {
        "template": str(truth / "template_T1w.nii.gz"),
        "template_mask": str(truth / "template_desc-brain_mask.nii.gz"),
    }
    pattern = "derivatives/ants/{subject_id}/{subject_id}_from-template_to-T1w_mode-points_xfm.tfm"
    options = PreparationOptions(**template, affines=pattern, n4=False)  # type: ignore[arg-type]
    prepared = prepare_cohort(root / "manifest.csv", root, tmp_path / "out", options=options, workers=1)
    assert prepared.n_prepared == 1
    assert prepared.failed == (
        f"sub-0001: GeometryError: {maps[0]}: expected an ITK transform, found none; check the path",
        f"sub-0002: GeometryError: {maps[1]}: expected an ITK transform (.tfm, .txt, .h5, or .mat as ANTs writes it), "
        "got something else; convert it, such as FSL's with c3d_affine_tool",
        "sub-0003: RegistrationError: affine map: expected one that brings the template onto the scan, got one that "
        "leads outside of it; give maps from points of the template to points of the scan",
        "sub-0004: RegistrationError: affine map: expected a volume from 0.2 to 5 times the template's, got -1; check "
        "that it leads from the template to the scan",
    )
    wrong = PreparationOptions(**template, affines="ants/all.tfm", masks="masks/{who}.nii.gz")  # type: ignore[arg-type]
    with pytest.raises(ManifestError) as raised:
        prepare_cohort(root / "manifest.csv", root, tmp_path / "other", options=wrong, workers=1)
    assert str(raised.value) == (
        f"{root / 'manifest.csv'}: 2 problems\n"
        "  1. masks: expected a column of the manifest in braces (subject_id, image), got '{who}'\n"
        "  2. affines: expected a column in braces, such as {subject_id}, got 'ants/all.tfm', the same for every scan"
    )
