"""New subjects from files to tables: stopped and started again, in parts, in any orientation, with spoiled files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Events
from torch import Tensor
from torch.utils.data import DataLoader

from monai_fair.data import load_datalist, write_volume
from monai_fair.data.artifacts import read_json, read_tensors
from monai_fair.engines import (
    Deformations,
    FitQuality,
    RegistrationEvaluator,
    RegistrationSaver,
    SubjectFit,
    SubjectImages,
    collate_subjects,
    read_codes,
    read_template,
    registration_files,
    registration_saver,
)
from monai_fair.errors import ArtifactError, RegistrationError
from monai_fair.geometry import Grid
from monai_fair.simulation import BrainCohort, simulate_brain

SETTINGS = {"model_sha256": "abc", "smoothness": 0.1, "code_levels": [[1.0, 2, 5], [0.5, 2, 3]]}
TRUTH = {
    "displacement": "derivatives/truth/sub-{subject}/sub-{subject}_desc-truth_xfm.nii.gz",
    "mask": "derivatives/truth/sub-{subject}/sub-{subject}_desc-brain_mask.nii.gz",
    "labels": {"tissue": "derivatives/truth/sub-{subject}/sub-{subject}_dseg.nii.gz"},
}


class Registration:
    """What the bundle's inference.yaml builds, with a network as it starts."""

    def __init__(
        self, brain: Any, cohort: Path, folder: Path, rows: Sequence[Any], *, fit: Any = None, **options: Any
    ) -> None:
        batch_size = options.pop("batch_size", 2)
        quality = {"fit": FitQuality()} if options.pop("measured", False) else None
        options = {"settings": SETTINGS, "exports": ("field", "warped"), "dataset_dir": cohort} | options
        space = read_template(cohort)
        self.folder = folder
        self.saver = RegistrationSaver(folder, space, rows, **options)
        dataset = SubjectImages(self.saver.unfinished(), space.grid, mask=space.mask)
        self.evaluator = RegistrationEvaluator(
            "cpu",
            DataLoader(dataset, batch_size=batch_size, collate_fn=collate_subjects),
            brain.network(width=40),
            fit or brain.fit(space=space),
            key_val_metric=quality,
            val_handlers=[self.saver],
        )

    def run(self) -> pd.DataFrame:
        self.saver.run(self.evaluator)
        return pd.read_csv(self.folder / "registration.csv", keep_default_na=False, dtype={"subject_id": str})


class Answers(SubjectFit):
    """Gives deformations that are laid down, whatever the image."""

    def __init__(self, fit: SubjectFit, field: Tensor) -> None:
        super().__init__(fit.match, code_levels=fit.code_levels, residual_levels=fit.residual_levels)
        self.field = field

    def __call__(self, inputs: Tensor, network: Any, *, codes: Tensor | None = None) -> Deformations:
        count = len(inputs)
        residual = self.field.expand(count, 3, *network.lattice.shape).clone()
        return Deformations(torch.zeros(count, *network.code_shape), residual, torch.ones(count), torch.ones(count))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("cohort")
    brains = BrainCohort(deformation_mm=1.55, detail_mm=0.45)
    simulate_brain(folder, n=4, seed=3, anatomy="phantom", shape=(28, 32, 28), cohort=brains, num_workers=1)
    return folder


@pytest.fixture(scope="module")
def rows(cohort: Path) -> list[dict[str, Any]]:
    return load_datalist(cohort / "manifest.csv", cohort, labelled=False)


@pytest.fixture(scope="module")
def whole(brain: Any, cohort: Path, rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished registration of all four subjects, not to be written to."""
    folder: Path = tmp_path_factory.mktemp("whole")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    Registration(brain, cohort, folder, rows).run()
    torch.set_num_threads(threads)
    return folder


def table_of(folder: Path) -> pd.DataFrame:
    """The table without what no two runs share."""
    return pd.read_csv(folder / "registration.csv", dtype={"subject_id": str}).drop(columns="seconds")


def contents(folder: Path) -> dict[str, Any]:
    """Images and codes by name; of the table of codes what is in it, as safetensors writes its header in any order."""
    paths = [*folder.glob("sub-*/*.nii.gz"), *folder.glob("sub-*/*.safetensors")]
    files: dict[str, Any] = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    tensors, header = read_tensors(folder / "codes.safetensors")
    return {**files, "codes": tensors["codes"].tobytes(), "header": header}


def copies(rows: Sequence[Any], folder: Path) -> list[dict[str, Any]]:
    """Rows of copies of the files, to be spoiled."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for row in rows:
        path = folder / Path(row["image"]).name
        path.write_bytes(Path(row["image"]).read_bytes())
        found.append({**row, "image": str(path)})
    return found


# the table


def test_every_subject_has_a_row(brain: Any, cohort: Path, rows: Any, tmp_path: Path) -> None:
    table = Registration(brain, cohort, tmp_path, rows, truth=TRUTH).run()
    assert table["subject_id"].tolist() == [row["subject_id"] for row in rows]
    assert set(table["status"]) == {"registered"}
    assert set(table["reason"]) == {""}
    assert (table["seconds"] > 0).all()
    for suffix in ("", "_codes"):
        assert (table[f"endpoint_error_mm{suffix}"] < 0.8 * table["endpoint_error_mm_before"]).all()
        assert (table[f"similarity{suffix}"] > table["similarity_before"]).all()
        assert (table[f"folds{suffix}"] == 0).all()
    assert table["endpoint_error_mm"].mean() < table["endpoint_error_mm_codes"].mean()
    assert table["dice_tissue"].mean() > table["dice_tissue_before"].mean()
    assert (table["inverse_error_mm"] < 0.2).all()
    subjects, codes = read_codes(tmp_path / "codes.safetensors")
    assert subjects == table["subject_id"].tolist()
    np.testing.assert_allclose(codes.flatten(1).norm(dim=1).numpy(), table["code_norm"], rtol=1e-5)
    assert read_tensors(tmp_path / "codes.safetensors")[1]["network_fingerprint"] == "abc"


def test_codes_alone_have_no_second_answer(brain: Any, cohort: Path, rows: Any, tmp_path: Path) -> None:
    table = Registration(brain, cohort, tmp_path, rows[:1], fit=brain.fit(residual=False)).run()
    assert not [name for name in table if name.endswith("_codes")]
    assert table["status"].tolist() == ["registered"]


def test_the_same_bits_on_every_run(brain: Any, cohort: Path, rows: Any, whole: Path, tmp_path: Path) -> None:
    Registration(brain, cohort, tmp_path, rows).run()
    pd.testing.assert_frame_equal(table_of(tmp_path), table_of(whole), check_exact=True)
    assert contents(tmp_path) == contents(whole)
    assert len(contents(whole)) == 4 * 4 + 2  # a field, two images and a code each, and the table of codes


def test_the_metric_is_minus_the_mean_noise(brain: Any, cohort: Path, rows: Any, tmp_path: Path) -> None:
    registration = Registration(brain, cohort, tmp_path, rows, measured=True)
    table = registration.run()
    assert registration.evaluator.state.metrics["fit"] == pytest.approx(-table["noise"].mean(), rel=1e-6)


# in the world


def test_the_order_of_the_axes_on_disk_changes_nothing(
    brain: Any, cohort: Path, rows: Any, whole: Path, tmp_path: Path
) -> None:
    turned = copies(rows, tmp_path / "images")
    for row, codes in zip(turned, ("LPI", "PRS", "SAL", "IRP"), strict=True):
        image = nib.load(row["image"])
        target = nib.orientations.axcodes2ornt(tuple(codes))
        turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), target)
        moved = image.as_reoriented(turn)
        assert "".join(nib.aff2axcodes(moved.affine)) == codes
        grid = Grid(moved.shape, moved.affine)
        write_volume(row["image"], moved.get_fdata(dtype=np.float32), grid)
    Registration(brain, cohort, tmp_path / "out", turned).run()
    assert contents(tmp_path / "out") == contents(whole)  # fields in millimetres of the world, to the last bit
    pd.testing.assert_frame_equal(table_of(tmp_path / "out"), table_of(whole), check_exact=True)


# stopped and started again


def test_a_run_that_was_stopped_does_what_is_left(
    brain: Any, cohort: Path, rows: Any, whole: Path, tmp_path: Path
) -> None:
    first = Registration(brain, cohort, tmp_path, rows)

    @first.evaluator.on(Events.ITERATION_STARTED(once=2))
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert not (tmp_path / "registration.csv").exists()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("sub-*/*")}
    second = Registration(brain, cohort, tmp_path, rows)
    assert [row["subject_id"] for row in second.saver.unfinished()] == ["sub-0003", "sub-0004"]
    second.run()
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps  # what was finished is left as it is
    pd.testing.assert_frame_equal(table_of(tmp_path), table_of(whole), check_exact=True)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("write", ["write_displacement", "write_volume", "write_tensors", "write_json"])
def test_a_run_that_is_killed_while_it_writes_leaves_no_half_subject(
    brain: Any, cohort: Path, rows: Any, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    first = Registration(brain, cohort, tmp_path, rows)
    module = registration_saver if hasattr(registration_saver, write) else registration_files
    save, calls = getattr(module, write), []

    def killed(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if "sub-0002" in str(args[0]):
            raise KeyboardInterrupt
        return save(*args, **options)

    monkeypatch.setattr(module, write, killed)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    monkeypatch.undo()
    second = Registration(brain, cohort, tmp_path, rows)
    assert [row["subject_id"] for row in second.saver.unfinished()] == ["sub-0002", "sub-0003", "sub-0004"]
    second.run()
    # in other batches than before: the same up to rounding
    pd.testing.assert_frame_equal(table_of(tmp_path), table_of(whole), rtol=0.02, atol=1e-3)
    assert contents(tmp_path).keys() == contents(whole).keys()
    assert not list(tmp_path.rglob(".*"))


def test_a_finished_run_writes_the_tables_again_and_nothing_else(
    brain: Any, cohort: Path, rows: Any, tmp_path: Path
) -> None:
    Registration(brain, cohort, tmp_path, rows[:2]).run()
    table = table_of(tmp_path)
    (tmp_path / "registration.csv").unlink()
    again = Registration(brain, cohort, tmp_path, rows[:2])
    again.run()
    assert again.evaluator.state.iteration == 0
    pd.testing.assert_frame_equal(table_of(tmp_path), table, check_exact=True)


def test_runs_on_parts_of_a_manifest_make_one_table(
    brain: Any, cohort: Path, rows: Any, whole: Path, tmp_path: Path
) -> None:
    for part in (rows[2:], rows[:2]):
        Registration(brain, cohort, tmp_path, part).run()
        # until all are known, the table is of the rows that this run knows
        assert table_of(tmp_path)["subject_id"].tolist() == [row["subject_id"] for row in part]
    last = Registration(brain, cohort, tmp_path, rows)
    assert last.saver.unfinished() == []
    last.run()
    pd.testing.assert_frame_equal(table_of(tmp_path), table_of(whole), check_exact=True)
    assert contents(tmp_path) == contents(whole)


def test_the_last_shard_writes_the_tables(brain: Any, cohort: Path, rows: Any, whole: Path, tmp_path: Path) -> None:
    for part in (1, 0):
        shard = Registration(brain, cohort, tmp_path, rows, shard=(part, 2), batch_size=1)
        assert [row["subject_id"][-1] for row in shard.saver.unfinished()] == [["1", "3"], ["2", "4"]][part]
        assert (tmp_path / "registration.csv").exists() is False
        shard.saver.run(shard.evaluator)
    pd.testing.assert_frame_equal(table_of(tmp_path), table_of(whole), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0,), (0.0, 2), 3, (True, 2)])
def test_a_shard_that_is_none(brain: Any, cohort: Path, rows: Any, tmp_path: Path, shard: Any) -> None:
    with pytest.raises(RegistrationError) as caught:
        Registration(brain, cohort, tmp_path, rows, shard=shard)
    assert str(caught.value) == (
        f"shard: expected a part and how many there are, from [0, n] to [n - 1, n], got {shard!r}"
    )


def test_a_folder_of_other_settings_is_refused_by_name(brain: Any, cohort: Path, rows: Any, tmp_path: Path) -> None:
    Registration(brain, cohort, tmp_path, rows)
    assert read_json(tmp_path / "registration.json", "registration")["settings"] == SETTINGS
    Registration(brain, cohort, tmp_path, rows, exports=("warped", "field"))  # another order is the same
    changed = {"smoothness": 0.2, "code_levels": SETTINGS["code_levels"], "model_sha256": "abc", "contrast": "any"}
    with pytest.raises(ArtifactError) as caught:
        Registration(brain, cohort, tmp_path, rows, settings=changed, exports=("field",), truth={"mask": "m"})
    assert str(caught.value) == (
        f"{tmp_path}/registration.json: made with other settings (contrast: not set there, any now; "
        "exports: ['field', 'warped'] there, ['field'] now; smoothness: 0.1 there, 0.2 now; "
        "truth: {} there, {'mask': 'm'} now); choose another output_dir or remove the folder"
    )


def test_several_images_of_a_subject_would_share_a_folder(brain: Any, cohort: Path, rows: Any, tmp_path: Path) -> None:
    twice = [*rows, {**rows[1], "subject_id": "0002"}]
    with pytest.raises(RegistrationError) as caught:
        Registration(brain, cohort, tmp_path, twice)
    assert str(caught.value) == (
        "registration: expected one image for each subject, 1 of 4 have more (0002); keep one in the manifest, or give "
        "every scan a subject_id of its own"
    )


# failures


def test_spoiled_files_are_rows_with_a_reason_and_are_tried_again(
    brain: Any, cohort: Path, rows: Any, whole: Path, tmp_path: Path
) -> None:
    """G4: a NaN, an end that is missing, another grid, a second volume, nothing in the brain; one subject is whole."""
    names = ["nan", "short", "grid", "4D", "flat", "empty"]
    spoiled = copies([rows[0]], tmp_path / "images")
    image, grid = nib.load(rows[0]["image"]).get_fdata(dtype=np.float32), brain.grid
    for name in names:
        spoiled.append({"subject_id": name, "image": str(tmp_path / "images" / f"{name}.nii.gz"), "split": "val"})
    path = {name: Path(row["image"]) for name, row in zip(names, spoiled[1:], strict=True)}
    holed = image.copy()
    holed[0, 0, :2] = np.nan
    write_volume(path["nan"], holed, grid)
    path["short"].write_bytes(Path(rows[0]["image"]).read_bytes()[:5000])
    write_volume(path["grid"], image[1:], Grid((27, 32, 28), grid.affine))
    nib.save(nib.Nifti1Image(np.stack([image] * 3, axis=-1), grid.affine), path["4D"])
    write_volume(path["flat"], np.where(brain.space.mask, np.float32(1), image), grid)
    write_volume(path["empty"], np.where(brain.space.mask, np.float32(0), np.float32(1)), grid)
    expected = {
        "sub-0001": "",
        "nan": f"{path['nan']}: expected finite voxels, got 2 that are not, of 25088; repair the image",
        "short": f"{path['short']}: expected a whole NIfTI file, which cannot be read (EOFError: Compressed file ended "
        "before the end-of-stream marker was reached); fetch or write it again",
        "grid": f"{path['grid']}: expected a volume on the template's grid of (28, 32, 28) voxels, got (27, 32, 28); "
        "run `python -m monai_fair prepare`",
        "4D": f"{path['4D']}: expected one 3D volume, got shape (28, 32, 28, 3); give one volume per file",
        "flat": f"{path['flat']}: expected different intensities inside the brain's mask, got 1 in every voxel of it; "
        "give another file",
        "empty": f"{path['empty']}: expected different intensities inside the brain's mask, got 0 in every voxel of "
        "it; give another file",
    }
    table = Registration(brain, cohort, tmp_path / "out", spoiled).run()
    assert dict(zip(table["subject_id"], table["reason"], strict=True)) == expected
    assert table["status"].tolist() == ["registered", *["failed"] * 6]
    assert table["split"].tolist()[1:] == ["val"] * 6
    assert read_codes(tmp_path / "out" / "codes.safetensors")[0] == ["sub-0001"]

    write_volume(path["nan"], image, grid)  # repaired
    again = Registration(brain, cohort, tmp_path / "out", spoiled)
    assert [row["subject_id"] for row in again.saver.unfinished()] == names
    table = again.run()
    assert table["status"].tolist() == ["registered", "registered", *["failed"] * 5]
    assert read_codes(tmp_path / "out" / "codes.safetensors")[0] == ["sub-0001", "nan"]


def test_a_cohort_of_failures_is_a_table(brain: Any, cohort: Path, tmp_path: Path) -> None:
    rows = [{"subject_id": name, "image": f"/none/{name}.nii"} for name in "abc"]
    table = Registration(brain, cohort, tmp_path, rows).run()
    assert table["status"].tolist() == ["failed"] * 3
    assert table["reason"].tolist() == [
        f"/none/{name}.nii: expected a NIfTI file, found none; check the path" for name in "abc"
    ]
    assert not (tmp_path / "codes.safetensors").exists()


def folding(brain: Any) -> Tensor:
    """Lattice coefficients that go back and forth by more than their distance."""
    lattice = brain.network(width=40).lattice
    field = torch.zeros(1, 3, *lattice.shape)
    field[:, 0, ::2] = 12.0
    return field


def test_too_many_folds_are_a_failure_with_its_share(brain: Any, cohort: Path, rows: Any, tmp_path: Path) -> None:
    fit = Answers(brain.fit(), folding(brain))
    table = Registration(brain, cohort, tmp_path / "a", rows[:2], fit=fit, max_folds=0.02).run()
    assert table["status"].tolist() == ["failed", "failed"]
    assert (table["folds"] > 0.02).all()
    assert table["reason"].tolist() == [
        f"{100 * share:.2f} % of the brain folds, more than 2 %" for share in table["folds"]
    ]
    assert not (tmp_path / "a" / "codes.safetensors").exists()
    assert len(Registration(brain, cohort, tmp_path / "a", rows[:2]).saver.unfinished()) == 2
    # measured and written all the same, and no failure where it is allowed
    assert (tmp_path / "a" / "sub-0001" / "sub-0001_from-template_to-T1w_xfm.nii.gz").exists()
    table = Registration(brain, cohort, tmp_path / "b", rows[:2], fit=fit, max_folds=1.0).run()
    assert table["status"].tolist() == ["registered", "registered"]


def test_an_image_that_runs_against_the_template_is_a_failure_that_names_the_option(
    brain: Any, cohort: Path, rows: Any, tmp_path: Path
) -> None:
    images = (brain.images / 0.2).clamp_max(1.0) * (1.1 - brain.images)
    inverted = brain.write_images(tmp_path / "images", images)[:2]
    table = Registration(brain, cohort, tmp_path / "same", inverted).run()
    assert table["status"].tolist() == ["failed", "failed"]
    assert (table["similarity_before"] < 0).all()
    assert table["reason"].tolist() == [
        f"expected an image that is bright where the template is, got a local correlation of {before:.2f} before "
        "registration; give --contrast any"
        for before in table["similarity_before"]
    ]
    any_contrast = {"settings": {**SETTINGS, "contrast": "any"}, "fit": brain.fit(contrast="any")}
    allowed = Registration(brain, cohort, tmp_path / "any", inverted, **any_contrast).run()
    assert allowed["status"].tolist() == ["registered", "registered"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_field_that_is_not_finite_is_a_row(brain: Any, cohort: Path, rows: Any, tmp_path: Path, value: float) -> None:
    fit = Answers(brain.fit(), torch.tensor(value).reshape(1, 1, 1, 1, 1))
    table = Registration(brain, cohort, tmp_path, rows[:2], fit=fit).run()
    assert table["status"].tolist() == ["failed", "failed"]
    assert set(table["reason"]) == {
        "expected finite displacements, got some that are not: the fit diverged; look at the image"
    }


def test_a_brain_that_is_moved_out_of_the_image_is_a_row(brain: Any, cohort: Path, rows: Any, tmp_path: Path) -> None:
    """Finite, but nothing is left to measure: the moved mask is empty."""
    fit = Answers(brain.fit(), torch.tensor([500.0, 500.0, 500.0]).reshape(1, 3, 1, 1, 1))
    table = Registration(brain, cohort, tmp_path, rows[:2], fit=fit).run()
    assert table["status"].tolist() == ["failed", "failed"]
    assert set(table["reason"]) == {
        "registration_quality: expected a mask of bool, shape (D, H, W), with at least one voxel, got bool of shape "
        "(28, 32, 28) with 0; give the voxels to measure"
    }


def test_a_truth_that_is_missing_is_a_reason_beside_the_result(
    brain: Any, cohort: Path, rows: Any, tmp_path: Path
) -> None:
    truth = {"displacement": "truth/{subject}.nii.gz"}
    table = Registration(brain, cohort, tmp_path, rows[:1], truth=truth).run()
    assert table["status"].tolist() == ["registered"]
    assert table["reason"].tolist() == [
        f"{cohort}/truth/0001.nii.gz: expected a NIfTI file, found none; check the path"
    ]
    assert "endpoint_error_mm" not in table
