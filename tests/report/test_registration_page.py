"""The page of a registration: its numbers, its pictures, and what it says where something is missing."""

import base64
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from PIL import Image
from sklearn.metrics import f1_score

from monai_fair.data import read_displacement, read_labels, read_volume, write_displacement, write_volume
from monai_fair.data.artifacts import write_tensors
from monai_fair.data.tables import write_table
from monai_fair.errors import ArtifactError, GeometryError, RegistrationError
from monai_fair.geometry import Grid
from monai_fair.metrics.registration import det_jacobian, log_det_jacobian, registration_quality
from monai_fair.report import LabelMap, write_registration_report
from monai_fair.report.registration_dice import dice_table
from monai_fair.report.registration_figures import DOTS, distribution_figure
from monai_fair.report.registration_measures import MEASURE, stages_of
from monai_fair.report.registration_page import build_registration_page
from monai_fair.report.registration_slices import (
    Limits,
    columns_of,
    common_limits,
    differences,
    line_path,
    place_of_largest_difference,
    png_uri,
    position_words,
)
from monai_fair.report.registration_table import failures, read_registration, shown_subjects, subject_facts, summary
from monai_fair.report.registration_view import Pictured, registration_view
from monai_fair.report.registration_volumes import SubjectVolumes, Template, load_subject, load_template, subject_files
from monai_fair.simulation import BrainCohort, simulate_brain
from monai_fair.simulation.brain_fields import warped
from monai_fair.simulation.brain_regions import TISSUES

TRUTH = "derivatives/truth"
HOSTILE = "<script>alert(1)</script>"
TISSUE_MAPS = TRUTH + "/{subject_id}/{subject_id}_dseg.nii.gz"


def write_outputs(out: Path, cohort: Path, *, error_vox: float = 0.08) -> Path:
    """Write what a registration of a simulated cohort would: the true field plus an error that grows by subject."""
    template = read_volume(cohort / TRUTH / "template_T1w.nii.gz")
    tissue = read_labels(cohort / TRUTH / "template_dseg.nii.gz")
    grid, rows = template.grid, []
    manifest = pd.read_csv(cohort / "manifest.csv")
    for place, (subject, image, split) in enumerate(manifest[["subject_id", "image", "split"]].itertuples(index=False)):
        start = cohort / TRUTH / subject / subject
        truth, _ = read_displacement(f"{start}_desc-truth_xfm.nii.gz")
        own = read_labels(f"{start}_dseg.nii.gz").array
        row = {"subject_id": subject, "split": split, "status": "registered", "reason": "", "iterations": 12}
        if place == 1:
            rows.append({**row, "status": "failed", "reason": f"GeometryError: NaN {HOSTILE}", "iterations": ""})
            continue
        waves = np.sin(np.indices(grid.shape).sum(axis=0) / 2.0)
        fields = {
            suffix: truth + np.float32(scale * error_vox * (1 + place)) * np.stack([waves, -waves, waves])
            for suffix, scale in (("_codes", 2.0), ("", 1.0))
        }
        for suffix, field in fields.items():
            quality = registration_quality(
                field,
                subject=read_volume(cohort / image).array,
                template=template.array,
                mask=read_labels(f"{start}_desc-brain_mask.nii.gz").array > 0,
                spacing_mm=grid.spacing_mm,
                truth_vox=truth,
                labels={"tissue": (tissue.array, own)},
                before=suffix == "",
            )
            row |= {f"{name}{suffix}": value for name, value in quality.items()}
        rows.append({**row, "seconds": 0.25 + 0.01 * place})
        files = subject_files(out, subject)
        write_volume(files["warped"], warped(template.array, fields[""].astype(np.float32)), grid)
        write_displacement(files["field"], fields[""], grid)
        write_volume(files["log_jacobian"], log_det_jacobian(det_jacobian(fields[""])).astype(np.float32), grid)
    write_table(out / "registration.csv", pd.DataFrame(rows))
    codes = np.zeros((len(rows), 16), np.float32)
    write_tensors(out / "codes.safetensors", {"codes": codes}, {"network_fingerprint": "4b1d"})
    return out


def arguments(cohort: Path) -> dict[str, Any]:
    return {
        "dataset_dir": cohort,
        "template": cohort / TRUTH / "template_T1w.nii.gz",
        "mask": cohort / TRUTH / "template_desc-brain_mask.nii.gz",
        "labels": [LabelMap("Tissues", cohort / TRUTH / "template_dseg.nii.gz", TISSUE_MAPS, TISSUES)],
        "workers": 1,
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    options = BrainCohort(train_share=0.0, val_share=0.0, deformation_mm=1.55, detail_mm=0.45)
    return simulate_brain(folder, n=6, anatomy="phantom", shape=(28, 34, 28), cohort=options, num_workers=1)


@pytest.fixture(scope="module")
def out(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_outputs(tmp_path_factory.mktemp("registration"), cohort)


@pytest.fixture(scope="module")
def page(out: Path, cohort: Path) -> str:
    settings = {"similarity": HOSTILE, "steps": 12}
    return write_registration_report(out, **arguments(cohort), settings=settings).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def space(cohort: Path) -> Template:
    return load_template(*(arguments(cohort)[name] for name in ("template", "mask")))


@pytest.fixture(scope="module")
def subject(cohort: Path, out: Path, space: Template) -> SubjectVolumes:
    return load_subject(cohort / "sub-0001/anat/sub-0001_T1w.nii.gz", subject_files(out, "sub-0001"), space)


def table_of(**columns: Any) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    texts = {"subject_id": [f"s{i}" for i in range(n)], "split": "test", "status": "registered", "reason": ""}
    return pd.DataFrame({**texts, **columns})


def picture(uri: str) -> np.ndarray:
    """The colours of an embedded PNG, shape (height, width, 3)."""
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert image.mode == "P"
    return np.asarray(image.convert("RGB"))


# --- the table


def test_all_problems_of_the_table_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "registration.csv"
    path.write_text(
        "subject_id,status,folds,seconds\na,registered,0.1,1\n../b,registered,none,inf\na,done,nan,\n", encoding="utf-8"
    )
    with pytest.raises(RegistrationError) as told:
        read_registration(path)
    assert str(told.value) == (
        f"{path}: 5 problems\n"
        "  1. line 3, column 'subject_id': expected letters, digits, '_', '.' or '-' only, got '../b'\n"
        "  2. line 4, column 'subject_id': expected one row per subject, got 'a'\n"
        "  3. line 4, column 'status': expected one of registered, failed, got 'done'\n"
        "  4. line 3, column 'folds': expected a finite number or nothing, got 'none'\n"
        "  5. line 3, column 'seconds': expected a finite number or nothing, got 'inf'"
    )


def test_a_table_without_its_columns_or_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registration.csv"
    path.write_text("split,folds\n", encoding="utf-8")
    with pytest.raises(RegistrationError) as told:
        read_registration(path)
    assert str(told.value) == (
        f"{path}: 3 problems\n  1. expected a column 'subject_id', found none; add it\n"
        "  2. expected a column 'status', found none; add it\n  3. expected at least one row, got none"
    )


def test_the_summary_gives_median_quartiles_and_worst() -> None:
    # Sorted 1 2 3 4 10: quartiles by linear interpolation are the 2nd and 4th. Without the last: 1 2 3 4, quartiles
    # 1.75 and 3.25. Dice: the lowest is worst. Folds: 0.004 is 0.4 %.
    table = table_of(
        endpoint_error_mm=[3.0, 10.0, 1.0, 4.0, 2.0],
        endpoint_error_mm_codes=[3.0, np.nan, 1.0, 4.0, 2.0],
        dice_tissue=[0.9, 0.8, 0.95, 0.85, 0.7],
        folds=[0.0, 0.004, 0.0, 0.0, 0.0],
        iterations=[60.0] * 5,
        code_norm=[np.nan] * 5,
    )
    found = summary(table)
    assert found["heads"] == ["Codes only", "Codes and residual"]
    rows = {row["head"]: row for row in found["rows"]}
    assert list(rows) == ["Endpoint error, mm", "Dice of tissues", "Folds, %", "Length of the code", "Iterations"]
    codes, last = rows["Endpoint error, mm"]["cells"]
    assert (last["text"], last["lines"], last["words"]) == ("3.000", ["2.000 to 4.000"], ["worst 10.000: s1"])
    assert (codes["text"], codes["lines"], codes["words"]) == ("2.500", ["1.750 to 3.250"], ["worst 4.000: s3"])
    assert rows["Endpoint error, mm"]["n"] == "4 to 5"
    assert rows["Dice of tissues"]["cells"][1]["words"] == ["worst 0.700: s4"]
    assert rows["Dice of tissues"]["cells"][0]["text"] == ""
    assert rows["Folds, %"]["cells"][1]["words"] == ["worst 0.400: s1"]
    assert rows["Iterations"]["cells"][1]["words"] == ["the same for all"]
    assert rows["Length of the code"]["cells"][1] == {
        "text": "undefined", "lines": [], "words": ["no subject has a value"], "quiet": True
    }  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "stages"),
    [
        (["folds"], ["Registered"]),
        (["folds", "similarity_before"], ["Before", "Registered"]),
        (["folds", "folds_codes", "similarity_before"], ["Before", "Codes only", "Codes and residual"]),
        (["subject_id", "other_codes"], []),
    ],
)
def test_stages_follow_from_the_columns(columns: list[str], stages: list[str]) -> None:
    assert [stage.name for stage in stages_of(columns)] == stages


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.2184, "0.218"), (1e-5, "< 0.001"), (-1e-5, "> −0.001"), (-0.25, "−0.250"), (1234.5, "1,234.500")],
)
def test_numbers_are_written_whole(value: float, text: str) -> None:
    assert MEASURE["endpoint_error_mm"].number(value) == text


def test_numbers_have_their_unit_and_scale() -> None:
    assert MEASURE["folds"].value(0.0042) == "0.420\u00a0%"
    assert MEASURE["seconds"].value(math.nan) == "undefined"


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0.3], [("Only", "s0")]),
        ([0.3, 0.2], [("Best", "s1"), ("Worst", "s0")]),
        ([0.3, 0.2, 0.4], [("Best", "s1"), ("Median", "s0"), ("Worst", "s2")]),
        ([0.3, 0.2, 0.4, 0.1], [("Best", "s3"), ("Median", "s1"), ("Worst", "s2")]),
        ([0.3, np.nan, 0.4, 0.1], [("Best", "s3"), ("Median", "s0"), ("Worst", "s2")]),
        ([0.2, 0.2, 0.2], [("Best", "s0"), ("Median", "s1"), ("Worst", "s2")]),
    ],
)
def test_best_median_and_worst_are_ranked_by_the_error(errors: list[float], expected: list[tuple[str, str]]) -> None:
    measure, found = shown_subjects(table_of(endpoint_error_mm=errors, similarity=list(range(len(errors)))))
    assert measure == MEASURE["endpoint_error_mm"]
    assert found == expected


def test_without_a_truth_the_similarity_ranks() -> None:
    table = table_of(endpoint_error_mm=[np.nan] * 3, similarity=[0.7, 0.9, 0.8])
    measure, found = shown_subjects(table)
    assert measure == MEASURE["similarity"]
    assert found == [("Best", "s1"), ("Median", "s2"), ("Worst", "s0")]
    assert shown_subjects(table[["subject_id"]]) == (None, [])


def test_reasons_are_counted_and_what_is_not_shown_too() -> None:
    reasons = ["rare", "", "often", *["often"] * 6, *(f"own {i}" for i in range(25))]
    table = table_of(status=["failed"] * len(reasons), reason=reasons)
    found = failures(table)
    assert found["rows"][0] == {"reason": "often", "n": "7", "subjects": "s2, s3, s4, s5, s6 and 2 more"}
    assert [row["reason"] for row in found["rows"][1:4]] == ["rare", "no reason given", "own 0"]
    # 28 reasons, 20 rows: "often", "rare", "no reason given" and 17 of the 25 others
    assert len(found["rows"]) == 20
    assert found["rest"] == 8


def test_facts_of_a_subject_have_the_value_before() -> None:
    table = table_of(dice_tissue=[0.9], dice_tissue_before=[0.6], seconds=[0.25])
    assert subject_facts(table, "s0") == [
        ("Split", "test"), ("Dice of tissues", "0.900 (before: 0.600)"), ("Time", "0.25\u00a0s")
    ]  # fmt: skip


def test_the_figure_stays_small_for_many_subjects() -> None:
    values = np.random.default_rng(0).random(5000)
    figure = distribution_figure(table_of(similarity=values, folds=np.zeros(5000)), {"s7": "Best"})
    assert figure is not None
    # one use of a marker per dot; the rest are ticks, the legend, and the mark of s7
    assert DOTS < figure.count("<use") < DOTS + 20
    assert "Local correlation" in figure
    assert "Folds" not in figure
    assert distribution_figure(table_of(folds=np.zeros(4)), {}) is None


# --- pictures


def test_colours_of_a_picture_are_those_of_the_map() -> None:
    values = np.array([[-2.0, -1.0, 0.0], [1.0, 2.0, np.nan], [0.0, 0.0, 0.0]])
    inside = np.ones((3, 3), dtype=bool)
    inside[2] = False
    found = picture(png_uri(values, "RdBu_r", -1, 1, inside=inside))
    # 254 shades from the first to the last colour of the map; 0 falls on number 126.5, which is rounded to 126
    first, middle, last = (np.rint(np.array(colormaps["RdBu_r"](x))[:3] * 255) for x in (0.0, 126 / 253, 1.0))
    np.testing.assert_array_equal(found[0], [first, first, middle])
    np.testing.assert_array_equal(found[1], [last, last, [0, 0, 0]])
    assert {tuple(pixel) for pixel in found[2]} == {(238, 241, 244)}


def test_large_pictures_are_averaged_and_63_of_them_fit_into_the_page() -> None:
    noise = np.random.default_rng(0).random((352, 300))
    found = picture(png_uri(noise, "gray", 0, 1))
    assert found.shape == (176, 150, 3)
    # 352 voxels in 176 pixels: a pixel is the mean of 2 x 2; half a shade of 253 and half a level of 255 are rounded
    means = noise.reshape(176, 2, 150, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(found[..., 0] / 255, means, atol=0.6 / 253 + 0.6 / 255)
    square = png_uri(np.random.default_rng(0).random((400, 400)), "PuOr_r", 0, 1)
    assert 63 * len(square) < 2_900_000


def test_lines_stand_where_the_coordinate_is_a_multiple_of_the_step() -> None:
    # 4 mm a column: 10, 20 and 30 mm lie at columns 2.5, 5 and 7.5, half a pixel further from the picture's edge
    columns = np.tile(4.0 * np.arange(9.0), (6, 1))
    path = line_path(columns, 10.0)
    xs = {float(x) for x in re.findall(r"[ML]([\d.]+) ", path)}
    assert xs == {3.0, 5.5, 8.0}
    ys = {float(y) for y in re.findall(r" ([\d.]+)", path)}
    assert (min(ys), max(ys)) == (0.5, 5.5)
    assert line_path(np.full((4, 4), 3.0), 10.0) == ""
    # of 301 columns every 4th is kept: the line at column 150 lies between two of them
    wide = line_path(np.tile(np.arange(301.0) - 150.0, (8, 1)), 200.0)
    assert {float(x) for x in re.findall(r"[ML]([\d.]+) ", wide)} == {150.5}


def box_template(shape: tuple[int, int, int] = (20, 24, 22), spacing_mm: float = 2.0) -> Template:
    brain = np.zeros(shape, dtype=bool)
    brain[2:-2, 2:-2, 2:-2] = True
    image = np.random.default_rng(0).random(shape).astype(np.float32) * brain
    return Template(image, brain, Grid.isotropic(shape, spacing_mm))


def volumes(template: Template, **changed: Any) -> SubjectVolumes:
    places = np.indices(template.grid.shape, dtype=np.float32)
    nothing = np.zeros(template.grid.shape, np.float32)
    parts = {"image": template.image, "brain": template.brain, "warped": template.image, "log_jacobian": nothing}
    return SubjectVolumes(**{**parts, "places": places, **changed})


def test_pictures_are_turned_as_their_letters_say() -> None:
    """A bright corner at the right, anterior and superior end is at the right or anterior end, and at the top."""
    template = box_template()
    image = np.zeros(template.grid.shape, np.float32)
    image[10:, 12:, 11:] = 1.0
    columns = columns_of(volumes(template, image=image), template, (12, 14, 13), Limits(1.0, 1.0))
    panels = columns[1]["panels"]
    assert [panel["letters"] for panel in panels] == [("L", "R", "P", "A"), ("L", "R", "I", "S"), ("P", "A", "I", "S")]
    for panel in panels:
        found = picture(panel["png"])[..., 0]
        height, width = found.shape
        assert (width, height) == panel["pixels"]
        assert found[: height // 2 - 1, width // 2 + 1 :].min() == 255
        assert found[height // 2 + 1 :].max() == 0
        assert found[:, : width // 2 - 1].max() == 0


def test_sides_are_as_long_as_in_the_world() -> None:
    grid = Grid((20, 20, 20), np.diag([1.0, 2.0, 4.0, 1.0]))
    brain = np.ones(grid.shape, dtype=bool)
    template = Template(np.random.default_rng(0).random(grid.shape).astype(np.float32), brain, grid)
    panels = columns_of(volumes(template), template, (10, 10, 10), Limits(1.0, 1.0))[0]["panels"]
    # 20 x 40 x 80 mm: axial 20 wide and 40 high, coronal 20 and 80, sagittal 40 and 80; 80 mm is the whole width
    assert [(panel["width"], panel["aspect"]) for panel in panels] == [(25, 0.5), (25, 0.25), (50, 0.5)]


def test_a_shift_moves_the_grid_by_as_much() -> None:
    template = box_template()
    places = np.indices(template.grid.shape, dtype=np.float32)
    places[0] += 1.5  # a voxel shows what lies 1.5 voxels to the right of it
    still, shifted = (
        columns_of(volumes(template, places=own), template, template.centre, Limits(1.0, 1.0))[6]["panels"][0]["lines"]
        for own in (np.indices(template.grid.shape, dtype=np.float32), places)
    )
    before, after = ({float(x) for x, _ in upright(path)} for path in (still, shifted))
    # lines every 10 mm are 5 voxels apart, and stand 1.5 voxels further left
    assert before == {5.5, 10.5, 15.5}
    assert after == {4.0, 9.0, 14.0, 19.0}


def upright(path: str) -> list[tuple[str, str]]:
    """Points of the lines of a path that go up."""
    lines = [re.findall(r"([\d.]+) ([\d.]+)", line) for line in path.split("M")[1:]]
    return [point for line in lines if len({x for x, _ in line}) == 1 for point in line]


def test_differences_ignore_gain_and_offset_of_the_subject(subject: SubjectVolumes, space: Template) -> None:
    before, after = differences(subject, space)
    other = volumes(space, image=3.0 * subject.image + 7.0, brain=subject.brain, warped=subject.warped)
    for one, same in zip((before, after), differences(other, space), strict=True):
        np.testing.assert_allclose(one, same, atol=1e-4)
    assert np.abs(after[space.brain]).mean() < 0.7 * np.abs(before[space.brain]).mean()
    flat = volumes(space, image=np.full(space.grid.shape, 2.0, np.float32))
    assert np.isfinite(differences(flat, space)[0]).all()


def test_limits_hold_99_of_100_voxels_of_every_subject() -> None:
    template = box_template()
    logs = np.full(template.grid.shape, np.nan, np.float32)
    inside = np.linspace(-0.412, 0.412, int(template.brain.sum()), dtype=np.float32)
    logs[template.brain] = inside
    # 99 of 100 absolute values lie below 0.408, rounded up to one digit: 0.5
    found = common_limits([volumes(template), volumes(template, log_jacobian=logs)], template)
    assert found.log_jacobian == 0.5
    assert found.difference == 1.0  # both are the template itself: nothing to show, and no bar of length 0
    folded = volumes(template, log_jacobian=np.full(template.grid.shape, np.nan, np.float32))
    assert common_limits([folded], template).log_jacobian == 1.0
    assert common_limits([], template) == Limits(1.0, 1.0)


def test_the_place_of_the_largest_difference_is_found() -> None:
    template = box_template()
    image = template.image.copy()
    image[12:15, 4:7, 8:11] += 2.0
    image[0, 0, 0] = 100.0  # outside the brain
    assert place_of_largest_difference(volumes(template, image=image), template) == (13, 5, 9)


def test_positions_are_said_in_the_world() -> None:
    # the middle of 20 x 24 x 22 voxels of 2 mm is (9.5, 11.5, 10.5): voxel (4, 12, 10) is at -11, 1 and -1 mm
    assert position_words((4, 12, 10), box_template().grid) == ["I 1 mm", "A 1 mm", "L 11 mm"]


# --- files


def turn(path: Path, turned: Path) -> None:
    """Store a volume or field with its axes flipped and permuted; its voxels stay where they are in the world."""
    turned.parent.mkdir(parents=True, exist_ok=True)
    image = nib.load(path)
    order = np.array([[1, -1], [2, 1], [0, -1]])
    data = nib.orientations.apply_orientation(np.asanyarray(image.dataobj), order)
    found = nib.Nifti1Image(data, image.affine @ nib.orientations.inv_ornt_aff(order, image.shape[:3]))
    found.header.set_intent(image.header.get_intent()[0])
    nib.save(found, turned)


def test_the_order_of_the_array_axes_changes_nothing(
    cohort: Path, out: Path, space: Template, subject: SubjectVolumes, tmp_path: Path
) -> None:
    """The world's millimetres count, for images and for the vectors of a field."""
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("warped", "field", "log_jacobian")}
    for name, path in subject_files(out, "sub-0001").items():
        turn(path, files[name])
    turn(cohort / "sub-0001/anat/sub-0001_T1w.nii.gz", tmp_path / "image.nii.gz")
    found = load_subject(tmp_path / "image.nii.gz", files, space)
    for name in ("image", "warped", "log_jacobian"):
        np.testing.assert_array_equal(getattr(found, name), getattr(subject, name))
    np.testing.assert_allclose(found.places, subject.places, atol=1e-4)


def test_places_are_where_the_field_leads(out: Path, subject: SubjectVolumes) -> None:
    displacement, _ = read_displacement(subject_files(out, "sub-0001")["field"])
    np.testing.assert_allclose(subject.places, np.indices(displacement.shape[1:]) + displacement, atol=1e-5)


def test_another_grid_is_refused(space: Template, tmp_path: Path) -> None:
    moved = Grid(space.grid.shape, space.grid.affine + np.eye(4, k=3) * 3.0)  # 3 mm to the right
    path = write_volume(tmp_path / "mask.nii.gz", space.brain, moved)
    template = write_volume(tmp_path / "template.nii.gz", space.image, space.grid)
    side = f"{space.grid.spacing_mm[0]:.3g}"
    said = f"28 x 34 x 28 voxels of {side} x {side} x {side} mm"
    with pytest.raises(GeometryError) as told:
        load_template(template, path)
    assert str(told.value) == (
        f"{path}: expected the template's grid, {said}, got {said}, corners up to 3 mm apart; "
        "give the files of one registration"
    )
    write_volume(path, np.zeros(space.grid.shape, np.uint8), space.grid)
    with pytest.raises(GeometryError, match=r"mask\.nii\.gz: expected a mask of the brain, got 0 in every voxel"):
        load_template(template, path)


def test_dice_of_labels_equals_an_independent_reference(cohort: Path, out: Path, space: Template) -> None:
    subjects = ["sub-0001", "sub-0003", "sub-0004"]
    labels = arguments(cohort)["labels"][0]
    found = dice_table(labels, subjects, out=out, dataset_dir=cohort, grid=space.grid, workers=1)
    template = read_labels(cohort / TRUTH / "template_dseg.nii.gz").array
    for label, row in zip(TISSUES, found["rows"], strict=True):
        before, after = [], []
        for name in subjects:
            own = read_labels(cohort / TISSUE_MAPS.format(subject_id=name)).array.ravel() == label
            field, _ = read_displacement(subject_files(out, name)["field"])
            after.append(f1_score(own, warped(template, field, mode="nearest").ravel() == label))
            before.append(f1_score(own, template.ravel() == label))
        assert row["name"] == TISSUES[label]
        assert row["n"] == "3"
        texts = [cell["text"] for cell in row["cells"]]
        assert texts == [f"{np.median(before):.3f}", f"{np.median(after):.3f}"]
        worst = f"worst {min(after):.3f}: {subjects[int(np.argmin(after))]}"
        assert row["cells"][1]["words"] == [worst]
    assert found["left_out"] == []


def test_subjects_whose_labels_cannot_be_read_are_named(cohort: Path, out: Path, space: Template) -> None:
    labels = LabelMap("Tissues", cohort / TRUTH / "template_dseg.nii.gz", "../{subject_id}.nii.gz")
    found = dice_table(labels, ["sub-0001"], out=out, dataset_dir=cohort, grid=space.grid, workers=1)
    assert found["rows"] == []
    assert len(found["left_out"]) == 1
    assert found["left_out"][0].startswith("sub-0001: ManifestError: image '../sub-0001.nii.gz': expected a path under")


# --- the page


def test_the_page_is_well_formed(page: str, neighbour: Callable[[str], Any]) -> None:
    parsed = neighbour("test_report_page").Page(page.strip())
    assert page.lstrip().startswith("<!doctype html>")
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    names = [tag for tag, _ in parsed.tags]
    assert names.count("table") == names.count("caption") == 4
    assert not {"script", "link", "iframe"} & set(names)
    sources = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    # three subjects, seven columns of three planes and a bar
    assert len(sources) == 3 * 7 * 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    figures = [attributes for _, attributes in parsed.tags if attributes.get("role") == "img"]
    assert len(figures) == 1 + 3 * 7
    assert all(len(attributes["aria-label"]) > 40 for attributes in figures)


def test_the_page_says_what_the_table_says(out: Path, page: str, neighbour: Callable[[str], Any]) -> None:
    words = neighbour("test_report_page").Page(page.strip()).words
    table = read_registration(out / "registration.csv")
    assert "5 registered 1 failed" in words
    assert f"{table['endpoint_error_mm'].median():.3f}\u00a0mm Endpoint error, median".replace("\u00a0", " ") in words
    assert "test 6 5 1" in words
    assert f"GeometryError: NaN {HOSTILE} 1 sub-0002" in words
    assert "6 codes of 16 numbers; network 4b1d." in words
    assert f"similarity {HOSTILE} steps 12" in words
    # the planted error grows with the number of the subject, and sub-0002 failed
    for heading in ("Best: sub-0001", "Median: sub-0004", "Worst: sub-0006"):
        assert heading in words
    assert "subject(x) = template(x + u(x))" in words
    assert HOSTILE not in page
    assert not re.search(r"\b(fair|unfair|unbiased|passed|good|excellent)\b", words, re.IGNORECASE)


def test_the_same_inputs_give_the_same_bytes(out: Path, cohort: Path, page: str) -> None:
    settings = {"similarity": HOSTILE, "steps": 12}
    assert write_registration_report(out, **arguments(cohort), settings=settings).read_text(encoding="utf-8") == page


def test_pictures_that_cannot_be_read_are_a_sentence(
    cohort: Path, tmp_path: Path, neighbour: Callable[[str], Any]
) -> None:
    broken = write_outputs(tmp_path, cohort)
    subject_files(broken, "sub-0001")["warped"].write_bytes(b"")
    text = write_registration_report(broken, **{**arguments(cohort), "labels": None}).read_text(encoding="utf-8")
    words = neighbour("test_report_page").Page(text.strip()).words
    assert "No pictures: " in words
    assert "sub-0001_space-T1w_desc-template_T1w.nii.gz: expected a " in words
    assert text.count('<div class="kinds">') == 2
    assert "Overlap of labels" not in words


def test_a_subject_that_is_not_in_the_manifest_is_said(cohort: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    table = pd.read_csv(cohort / "manifest.csv", dtype=str)
    write_table(manifest, table[table["subject_id"] != "sub-0006"])
    folder = write_outputs(tmp_path / "out", cohort)
    path = write_registration_report(folder, **arguments(cohort), manifest=manifest, through="difference")
    text = path.read_text(encoding="utf-8")
    assert "subject &#39;sub-0006&#39;: expected one image in the manifest, got 0" in text
    assert "differ most (differences smoothed over 4 mm)" in text


def test_when_all_failed_the_page_still_says_why(cohort: Path, tmp_path: Path, neighbour: Callable[[str], Any]) -> None:
    rows = {"subject_id": ["a", "b"], "status": "failed", "reason": ["x", "y"]}
    write_table(tmp_path / "registration.csv", pd.DataFrame(rows))
    text = write_registration_report(tmp_path, **arguments(cohort)).read_text(encoding="utf-8")
    words = neighbour("test_report_page").Page(text.strip()).words
    assert "0 registered 2 failed" in words
    assert "No subject was registered." in words
    assert "not said 2 0 2" in words


def test_splits_have_tables_of_their_own(space: Template) -> None:
    table = table_of(similarity=[0.9, 0.8, 0.7, 0.6], split=["train", "train", "test", "test"])
    view = registration_view(table, space, [Pictured("s0", "Best", None, "gone")], through="centre")
    assert [(each["split"], each["rows"][0]["cells"][0]["text"]) for each in view["summaries"]] == [
        ("train", "0.850"), ("test", "0.650")
    ]  # fmt: skip
    text = build_registration_page(view)
    assert "<h3>train</h3>" in text
    assert "No pictures: gone" in text


def test_wrong_options_and_codes_are_named(out: Path, cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match="through: expected one of centre, difference, got 'top'"):
        write_registration_report(out, **arguments(cohort), through="top")
    write_table(tmp_path / "registration.csv", pd.DataFrame({"subject_id": ["a"], "status": ["failed"]}))
    write_tensors(tmp_path / "codes.safetensors", {"latents": np.zeros(3, np.float32)})
    with pytest.raises(ArtifactError, match=r"expected a tensor 'codes' of shape \(N, K\), found none"):
        write_registration_report(tmp_path, **arguments(cohort))
