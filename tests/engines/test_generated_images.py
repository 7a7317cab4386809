"""Images of sampled codes: read once, in the right direction, never folded; and what a folder of them holds."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import map_coordinates, shift
from torch.utils.data import DataLoader

from monai_fair.data import check_manifest, read_manifest, read_volume, write_displacement, write_volume
from monai_fair.data.artifacts import read_json
from monai_fair.engines import (
    CodeDecoder,
    DonorScans,
    GeneratedImageSaver,
    GenerationOptions,
    ImageGenerator,
    collate_donors,
    plan_generation,
)
from monai_fair.engines.generated_saver import turned_like
from monai_fair.errors import ArtifactError, GeometryError, RegistrationError
from monai_fair.geometry import Grid, voxel_points
from monai_fair.networks import LatticeINR
from monai_fair.subgroups import CodeSampler

SHAPE = (12, 14, 10)
GRID = Grid.isotropic(SHAPE, 3.0)
MASK = np.zeros(SHAPE, dtype=bool)
MASK[3:9, 3:11, 3:7] = True
# what the cells lack to be as large as the largest: none, 1 and 2 images; (0, S2) has nobody
CELLS = [(0, "S1")] * 3 + [(1, "S2")] * 2 + [(1, "S1")]
SUBJECTS = [f"sub-{place}" for place in range(6)]


def network(*, width: int = 6) -> LatticeINR:
    torch.manual_seed(0)
    return LatticeINR(SHAPE, spacing=4.0, width=width, hidden=4).eval()


def smooth(seed: int, size: float) -> np.ndarray:
    """A smooth field in voxels, shape ``(3, D, H, W)``."""
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, (3, 1, 1, 1))
    return (size * np.sin(voxel_points(SHAPE).numpy()[[1, 2, 0]] / 3 + phase)).astype(np.float32)


class Cohort:
    """Scans, their fields from the template, codes, and the manifest, as a registration leaves them."""

    def __init__(self, root: Path, *, field_vox: float = 0.6, code_size: float = 0.4) -> None:
        self.root, self.registered = root, root / "registered"
        rng = np.random.default_rng(1)
        self.scans = rng.uniform(0.1, 1, (6, *SHAPE)).astype(np.float32)
        self.fields = np.stack([smooth(place, field_vox) for place in range(6)])
        self.codes = code_size * rng.standard_normal((6, 3, 6))
        for subject, scan, field in zip(SUBJECTS, self.scans, self.fields, strict=True):
            write_volume(root / f"{subject}.nii.gz", scan, GRID)
            name = f"{subject}_from-T1w_to-template_xfm.nii.gz"
            write_displacement(self.registered / subject / name, field, GRID)
        rows = [
            (name, f"{name}.nii.gz", str(label), "train", "") for name, (label, _) in zip(SUBJECTS, CELLS, strict=True)
        ]
        rows += [("t1", "t1.nii.gz", "1", "test", "89+"), ("001", "v.nii.gz", "0", "val", "NA")]
        self.table = pd.DataFrame(rows, columns=["subject_id", "image", "label", "split", "age"])
        self.manifest = check_manifest(self.table, "manifest.csv")
        self.subgroups = {name: group for name, (_, group) in zip(SUBJECTS, CELLS, strict=True)} | {"t1": "S2"}

    def saver(self, output: Path | None = None, *, batch_size: int = 2, **options: Any) -> GeneratedImageSaver:
        plan = plan_generation(
            options.pop("manifest", self.manifest),
            self.subgroups,
            SUBJECTS,
            self.codes,
            GenerationOptions(**{"rule": "swap", "level": 0.999, **options}),
            inputs={"model_sha256": "abc"},
        )
        return GeneratedImageSaver(
            output or self.root / "out",
            plan,
            self.registered,
            dataset_dir=self.root,
            grid=GRID,
            settings={"max_draws": 50},
            batch_size=batch_size,
        )

    def generator(self, saver: GeneratedImageSaver, **options: Any) -> ImageGenerator:
        loader = DataLoader(
            DonorScans(saver.unfinished(), GRID), batch_size=saver.batch_size, collate_fn=collate_donors
        )
        return ImageGenerator(
            "cpu", loader, network(), saver.plan.sampler, mask=MASK, **{"val_handlers": [saver], **options}
        )

    def run(self, output: Path | None = None, *, batch_size: int = 2, **options: Any) -> GeneratedImageSaver:
        saver = self.saver(output, batch_size=batch_size, **options)
        saver.run(self.generator(saver))
        return saver


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path)


def outputs(generator: ImageGenerator) -> list[dict[str, Any]]:
    batches = []
    for batch in generator.data_loader:
        batches.append(generator._iteration(generator, batch))
    return batches


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_decoder_takes_flat_codes_to_the_network_s_field(cohort: Cohort) -> None:
    own = network()
    codes = torch.from_numpy(cohort.codes).float()
    expected = own(codes, own.lattice.sampling_grid()).detach()
    torch.testing.assert_close(CodeDecoder(own)(codes.flatten(1)), expected)


def test_the_scan_is_read_at_the_donor_s_place_of_the_template_s_place(cohort: Cohort) -> None:
    """S(y + w(y)) at y = x + u(x), with SciPy's splines for the scan and for w."""
    for batch in outputs(cohort.generator(cohort.saver(), order=3)):
        for row, image, field in zip(batch["rows"], batch["pred"], batch["displacement"].numpy(), strict=True):
            template = np.indices(SHAPE) + field
            to_scan = [map_coordinates(part, template, order=1, mode="nearest") for part in cohort.fields[row["donor"]]]
            scan = cohort.scans[row["donor"]]
            expected = map_coordinates(scan, template + to_scan, order=3, mode="nearest")
            # fields come back from millimetres
            np.testing.assert_allclose(image, expected.clip(scan.min(), scan.max()), atol=2e-4)
            code = torch.from_numpy(cohort.codes[row["sources"][0]]).float()[None]
            torch.testing.assert_close(torch.from_numpy(field), network()(code, network().lattice.sampling_grid())[0])


def test_whole_voxels_move_a_scan_without_interpolation(tmp_path: Path) -> None:
    """u = 0 for codes near zero, and w reads the next voxel along the first axis."""
    cohort = Cohort(tmp_path, field_vox=0.0, code_size=1e-9)
    field = np.zeros((3, *SHAPE), dtype=np.float32)
    field[0] = 1.0
    for subject in SUBJECTS:
        name = f"{subject}_from-T1w_to-template_xfm.nii.gz"
        write_displacement(cohort.registered / subject / name, field, GRID)
    batch = outputs(cohort.generator(cohort.saver()))[0]
    scan = cohort.scans[batch["rows"][0]["donor"]]
    np.testing.assert_allclose(batch["pred"][0][:-1], scan[1:], atol=1e-5)
    np.testing.assert_allclose(batch["pred"][0], shift(scan, (-1, 0, 0), order=0, mode="nearest"), atol=1e-5)


def test_no_deformation_folds_in_the_brain_and_draws_that_did_are_counted(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, code_size=1.6)
    rows = [row for batch in outputs(cohort.generator(cohort.saver(rule="gaussian"), max_draws=500)) for row in
            zip(batch["rows"], batch["displacement"].numpy(), strict=True)]  # fmt: skip
    assert sum(row["folded"] for row, _ in rows) > 0
    for row, field in rows:
        # by numpy: gradients of the map, and the mask read at the nearest voxel of the template
        gradients = np.stack([np.stack(np.gradient(part)) for part in np.indices(SHAPE) + field])
        determinant = np.linalg.det(np.moveaxis(gradients, (0, 1), (-2, -1)))
        inside = map_coordinates(MASK.astype(float), np.indices(SHAPE) + field, order=0, mode="nearest") > 0
        assert determinant[inside].min() > 0
        assert row["min_det"] == pytest.approx(determinant[inside].min(), rel=1e-3)
        assert row["distance"] <= 1


def test_draws_that_all_fold_name_every_image(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, code_size=6.0)
    saver = cohort.saver()
    with pytest.raises(RegistrationError, match=r"generated images: 2 problems\n  1\. gen-0001: expected a deformation "
                       r"without folds, got none in 3 draws \(the last has det J -"):  # fmt: skip
        outputs(cohort.generator(saver, max_draws=3))


def test_an_unknown_order_is_refused(cohort: Cohort) -> None:
    with pytest.raises(RegistrationError) as caught:
        cohort.generator(cohort.saver(), order=6)
    assert str(caught.value) == "order: expected a whole number from 1 to 5, got 6"


def test_tables_name_every_source_and_rows_of_the_manifest_stay(cohort: Cohort) -> None:
    saver = cohort.run(rule="interpolation")
    table = pd.read_csv(saver.folder / "generated.csv", dtype=str, keep_default_na=False)
    assert table["subject_id"].tolist() == ["gen-0001"]  # (1, S2) lacks one; one member of (1, S1) is no two
    row = table.iloc[0]
    assert (row["label"], row["subgroup"], row["rule"]) == ("1", "S2", "interpolation")
    assert set(row["sources"].split()) == {"sub-3", "sub-4"}
    assert row["donor"] in {"sub-3", "sub-4"}
    mixed = float(row["mix"]) * cohort.codes[SUBJECTS.index(row["sources"].split()[0])]
    mixed = mixed + (1 - float(row["mix"])) * cohort.codes[SUBJECTS.index(row["sources"].split()[1])]
    assert float(row["distance"]) == pytest.approx(float(saver.plan.sampler.distance(mixed.reshape(1, -1))[0]))

    found = read_manifest(saver.folder / "manifest.csv")
    original = [tuple(each) for each in cohort.table.itertuples(index=False)]
    lines = (saver.folder / "manifest.csv").read_text().splitlines()
    for each, group, line in zip(original, ["S1"] * 3 + ["S2"] * 2 + ["S1", "S2", ""], lines[1:], strict=False):
        assert line == ",".join([*each, group])
    assert lines[9:] == ["gen-0001,out/images/gen-0001_T1w.nii.gz,1,train,,S2"]
    assert found.attributes == ("age", "subgroup")
    record = read_json(saver.folder / "manifest.json", "manifest")
    assert record["generation"]["cells"][-1] == {
        "label": 1, "subgroup": "S2", "n": 2, "deficit": 1, "generated": 1, "reason": "",
    }  # fmt: skip
    assert record["warnings"] == saver.plan.warnings
    assert record["generation"]["rule"] == "interpolation"


def test_columns_of_images_are_filled_for_generated_rows(cohort: Cohort) -> None:
    table = cohort.table.assign(image_id=[f"i{place}" for place in range(8)], sha256="")
    saver = cohort.run(manifest=check_manifest(table, "manifest.csv"))
    rows = pd.read_csv(saver.folder / "manifest.csv", dtype=str, keep_default_na=False).tail(3)
    generated = pd.read_csv(saver.folder / "generated.csv", dtype=str)
    assert rows["image_id"].tolist() == generated["subject_id"].tolist()
    assert rows["sha256"].tolist() == generated["sha256"].tolist()


@pytest.mark.parametrize("lost", [["gen-0002_T1w.nii.gz"], ["gen-0001_T1w.json", "gen-0003_T1w.json"]], ids=str)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(cohort: Cohort, lost: list[str]) -> None:
    saver = cohort.run()
    whole = bytes_of(saver.folder)
    assert len(saver.plan.images) == 3
    for name in [*(f"images/{each}" for each in lost), "generated.csv", "manifest.csv", "manifest.json"]:
        (saver.folder / name).unlink()
    again = cohort.saver()
    assert {row["subject_id"] for row in again.unfinished()} >= {name[:8] for name in lost}
    cohort.run()
    assert bytes_of(saver.folder) == whole


def test_a_finished_run_touches_no_image(cohort: Cohort) -> None:
    saver = cohort.run()
    times = {path: path.stat().st_mtime_ns for path in (saver.folder / "images").iterdir()}
    again = cohort.saver()
    assert again.unfinished() == []
    again.run(cohort.generator(again))
    assert {path: path.stat().st_mtime_ns for path in (saver.folder / "images").iterdir()} == times


def test_a_folder_of_other_settings_is_refused(cohort: Cohort) -> None:
    saver = cohort.run()
    with pytest.raises(ArtifactError) as caught:
        cohort.saver(seed=4)
    assert str(caught.value) == (
        f"{saver.folder / 'generation.json'}: made with other settings (seed: 0 there, 4 now); choose another "
        "output_dir or remove the folder"
    )


@pytest.mark.parametrize("output", [".", "..", "../elsewhere"])
def test_images_must_lie_below_the_data_root(cohort: Cohort, output: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        cohort.saver(cohort.root / output)
    assert str(caught.value) == (
        f"{cohort.root / output}: expected an output_dir in a folder of its own below dataset_dir ({cohort.root}), "
        "because a manifest's images lie under its data root; give one such as " + str(cohort.root / "generated")
    )
    assert not (cohort.root / output / "generation.json").exists()


def test_donors_without_a_field_are_named(cohort: Cohort) -> None:
    shutil.rmtree(cohort.registered / "sub-5")
    with pytest.raises(RegistrationError) as caught:
        cohort.saver(rule="gaussian")
    assert str(caught.value) == (
        f"{cohort.registered}: expected a field to the template from each of 2 donors, 1 have none, such as "
        "sub-5_from-T1w_to-template_xfm.nii.gz; register with exports that hold 'field' and 'inverse'"
    )


def test_a_donor_s_file_that_cannot_be_used_is_named(cohort: Cohort) -> None:
    saver = cohort.saver()
    scan = saver._scans[saver.plan.images[0].donor]
    scan.write_bytes(b"no image")
    with pytest.raises(GeometryError, match=str(scan)):
        cohort.run()
    row = {**asdict(saver.plan.images[0]), **saver.unfinished()[0]}
    with pytest.raises(RegistrationError) as caught:
        DonorScans([row], Grid.isotropic(SHAPE, 4.0))[0]
    assert str(caught.value) == f"{row['field']}: expected a field on the template's grid, got one elsewhere"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_images_lie_in_their_file_as_the_donor_s_scan_does(order: Any, flips: Any, cohort: Cohort) -> None:
    turned = np.flip(cohort.scans[0].transpose(order), flips)
    # the affine of the turned array: columns in its order, the origin at its first voxel
    first = np.zeros(3)
    for axis in flips:
        first[order[axis]] = SHAPE[order[axis]] - 1
    affine = GRID.affine.copy()
    affine[:3, :3] = GRID.affine[:3, list(order)] * [-1.0 if axis in flips else 1.0 for axis in range(3)]
    affine[:3, 3] = GRID.affine[:3, :3] @ first + GRID.affine[:3, 3]
    like = Grid(turned.shape, affine)
    array, grid = turned_like(cohort.scans[0], GRID, like)
    np.testing.assert_array_equal(array, turned)
    np.testing.assert_allclose(grid.affine, affine)
    for subject in SUBJECTS:
        write_volume(cohort.root / f"{subject}.nii.gz", turned, like)
    saver = cohort.run()
    written = read_volume(saver.folder / "images" / "gen-0001_T1w.nii.gz")
    assert written.grid.matches(like)


def test_the_sampler_sees_training_codes_only(cohort: Cohort) -> None:
    plan = cohort.saver().plan
    assert isinstance(plan.sampler, CodeSampler)
    assert plan.sampler.codes.tolist() == cohort.codes.reshape(6, -1).tolist()
    assert plan.subject_ids == SUBJECTS
