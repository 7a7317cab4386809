"""The page of discovered subgroups: what it says, what it masks, its pictures, and its place on the audit's page."""

import base64
import io
import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats.contingency import odds_ratio

from monai_fair.data import write_volume
from monai_fair.data.artifacts import read_json, sha256, write_json
from monai_fair.data.predictions import write_predictions
from monai_fair.data.tables import write_table
from monai_fair.data.volumes import save_nifti
from monai_fair.errors import ArtifactError, GeometryError
from monai_fair.geometry import Axes, Grid
from monai_fair.report import audit_files, build_page, write_discovery_page
from monai_fair.report.discovery_pictures import (
    Place,
    difference_figure,
    overlay_uri,
    percent_change,
    place_of,
    round_limit,
    typical_figures,
)
from monai_fair.report.discovery_record import read_discovery, read_stages
from monai_fair.report.discovery_tables import attribute_rows, odds_cell, parts_of, ratio_text, size_rows
from monai_fair.report.discovery_view import discovery_view, stage_rows
from monai_fair.report.registration_volumes import Template, load_template
from monai_fair.simulation.brain_anatomy import load_brain_anatomy
from monai_fair.subgroups import attribute_associations, label_association

HOSTILE = "<script>alert(1)</script>"
PLACE_MM, RADIUS_MM = (30.0, -15.0, -5.0), 20.0
CHANGE = -0.25  # log ratio of S2 against the rest at the place: a volume exp(-0.25) = 0.78 times as large


def write_root(
    root: Path, *, anatomy: str = "phantom", shape: tuple[int, int, int] = (24, 28, 24), side: float = 7.0
) -> Any:
    """Write a template where prepared scans have it; return its anatomy."""
    found = load_brain_anatomy(anatomy, shape=shape, spacing_mm=side)
    write_volume(root / "template_T1w.nii.gz", found.image, found.grid)
    write_volume(root / "template_desc-brain_mask.nii.gz", found.mask, found.grid)
    return found


def rows_of(sizes: dict[str, tuple[int, int]], positives: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """One row per subject: of every split so many of S1 and S2, so many of each positive."""
    rows = []
    for split, counts in sizes.items():
        for name, n, hit in zip(("S1", "S2"), counts, positives[split], strict=True):
            rows += [{"split": split, "subgroup": name, "label": int(i < hit)} for i in range(n)]
    table = pd.DataFrame(rows)
    table.insert(0, "subject_id", [f"sub-{i:04d}" for i in range(len(table))])
    table["fitted"] = (table["split"] != "test").astype(int)
    return table


SIZES = {"train": (130, 110), "val": (22, 18), "test": (62, 58)}
POSITIVES = {"train": (39, 77), "val": (7, 12), "test": (31, 30)}


def write_folder(folder: Path, anatomy: Any = None, *, table: pd.DataFrame | None = None, **changed: Any) -> Path:
    """Write what a discovery leaves, of made-up numbers: two subgroups that differ in one place."""
    table = rows_of(SIZES, POSITIVES) if table is None else table
    random = np.random.default_rng(0)
    member = (table["subgroup"] == "S2").to_numpy()
    other = random.random(len(table)) < 0.04
    sex = np.where(member ^ other, "female", "male")
    sex[:3] = ""
    known = table.assign(sex=sex, age=random.normal(60, 8, len(table)).round(1))
    labels = {}
    for split, rows in table.groupby("split", sort=False):
        found = label_association(rows["subgroup"], rows["label"], permutations=200)
        labels[split] = {"rows": found.by_subgroup.to_dict("records"), "overall": asdict(found.overall)}
    attributes = attribute_associations(known["subgroup"], known, ["sex", "age"], numeric=["age"], permutations=200)
    fitted = table[table["fitted"] == 1]
    sizes = fitted["subgroup"].value_counts()
    candidate = {
        "representation": "log_jacobian", "method": "local", "n_components": 2, "p": 0.002, "p_holm": 0.008,
        "valley_p": 0.0004, "stability": 0.94, "sizes": [int(sizes["S1"]), int(sizes["S2"])], "reason": "",
    }  # fmt: skip
    others = [
        {"method": "mixture", "n_components": 1, "p": 1.0, "p_holm": 1.0, "valley_p": None, "stability": None,
         "sizes": [len(fitted)], "reason": "one component has the best held-out likelihood"},
        {"representation": "codes", "method": "mixture", "n_components": 2, "p": 0.21, "p_holm": 0.63, "valley_p": 0.21,
         "stability": 0.31, "sizes": [len(fitted) - 12, 12], "reason": "p 0.63, adjusted, is above 0.05"},
    ]  # fmt: skip
    record = {
        "settings": {"seed": 0, "fit_splits": ["train", "val"]},
        "inputs": [],
        "n_fitted": len(fitted),
        "n": len(table),
        "failed": {"sub-9001": "GeometryError: NaN", "sub-9002": "GeometryError: NaN"},
        "claimed": True,
        "alpha": 0.05,
        "candidates": [candidate, *({**candidate, **other} for other in others)],
        "chosen": 0,
        "subgroups": [
            {
                "name": name,
                "n_fitted": int((fitted["subgroup"] == name).sum()),
                "n_by_split": rows["split"].value_counts().to_dict(),
                "typical": fitted.loc[fitted["subgroup"] == name, "subject_id"].tolist()[:5],
            }
            for name, rows in table.groupby("subgroup")
        ],
        "place": {"voxel": [0, 0, 0], "world_mm": list(PLACE_MM), "radius_mm": RADIUS_MM},
        "label_association": labels,
        "attribute_associations": attributes.to_dict("records"),
        "maps": {"S1": "maps/S1_desc-logjacobian_map.nii.gz", "S2": "maps/S2_desc-logjacobian_map.nii.gz"},
    }
    write_json(folder / "discovery.json", "discovery", record | changed)
    membership = np.where(member, 0.97, 0.02)
    write_table(
        folder / "subgroups.csv",
        table.drop(columns="label").assign(membership_S1=1 - membership, membership_S2=membership),
    )
    if anatomy is not None:
        bump = bump_of(anatomy)
        for name, sign in (("S1", -1), ("S2", 1)):
            save_nifti(folder / f"maps/{name}_desc-logjacobian_map.nii.gz", sign * CHANGE * bump, anatomy.grid)
        spread = np.full(anatomy.grid.shape, 0.125, np.float32)
        save_nifti(folder / "maps/desc-spread_map.nii.gz", spread, anatomy.grid)
    return folder


def bump_of(anatomy: Any) -> np.ndarray:
    """1 at the place, falling off over 18 mm."""
    index = np.indices(anatomy.grid.shape).transpose(1, 2, 3, 0).astype(float)
    points = anatomy.grid.points(index, Axes.VOXEL, Axes.RAS)
    away = ((points - np.array(PLACE_MM)) ** 2).sum(axis=-1)
    return np.exp(-away / (2 * 18.0**2)).astype(np.float32)


def write_registered(out: Path, folder: Path, anatomy: Any) -> Path:
    """Write the two files of typical members that the page reads."""
    record, random = json.loads((folder / "discovery.json").read_text()), np.random.default_rng(1)
    for entry in record["subgroups"]:
        for who in entry["typical"]:
            noise = random.normal(size=anatomy.grid.shape)
            smooth = gaussian_filter(noise, 3.0)
            log = 0.06 * smooth / smooth.std() + bump_of(anatomy) * (0.12 + CHANGE * (entry["name"] == "S2"))
            image = anatomy.image * (1 + 0.03 * noise)
            write_volume(out / who / f"{who}_space-template_T1w.nii.gz", image.astype(np.float32), anatomy.grid)
            save_nifti(out / who / f"{who}_desc-logdetjacobian_map.nii.gz", log.astype(np.float32), anatomy.grid)
    return out


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data root, a registration and a discovery."""
    base = tmp_path_factory.mktemp("discovered")
    anatomy = write_root(base / "root")
    folder = write_folder(base / "found", anatomy)
    write_registered(base / "registered", folder, anatomy)
    return base


@pytest.fixture(scope="module")
def page(base: Path) -> str:
    path = write_discovery_page(base / "found", root=base / "root", registered=base / "registered")
    assert path == base / "found" / "discovery.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def space(base: Path) -> Template:
    return load_template(base / "root/template_T1w.nii.gz", base / "root/template_desc-brain_mask.nii.gz")


def words_of(page: str) -> str:
    """Text of a page without tags, styles and pictures, its spaces made one."""
    body = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).replace("\u00a0", " ").split())


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


# --- what it says


def test_the_page_says_what_was_found_and_how_sure(page: str) -> None:
    words = words_of(page)
    assert "2 subgroups, S1 and S2, were found among 280 subjects of train and val." in words
    assert "The label and recorded attributes were not used." in words
    assert "holds for the subjects of test, which the fit did not see." in words
    assert (
        "p, adjusted 0.008 The same after Holm&#39;s adjustment for 3 ways of looking; a claim needs at most 0.05"
        in words
    )
    assert "Valley p &lt; 0.001" in words
    assert "Stability 0.94" in words
    assert "400 subjects 280 of them seen by the fit" in words


def test_sections_stand_in_their_order(page: str) -> None:
    assert re.findall(r"<h[1-4][^>]*>([^<]*)<", page) == [
        "Subgroups found without attributes", "What was found", "How sure", "Where they differ", "How many",
        "Do they go along with the label?", "Do they go along with what is recorded?", "Typical members", "S1", "S2",
    ]  # fmt: skip


def test_label_and_subgroup_go_together_in_train_and_not_in_test(page: str) -> None:
    words = words_of(page)
    # train: 77 of 110 and 39 of 130; by SciPy, which does not know our interval: 5.40 (3.02 to 9.85)
    found = odds_ratio([[77, 33], [39, 91]])
    low, high = found.confidence_interval(0.95)
    said = f"odds ratio {found.statistic:.2f} (95 % interval {low:.2f} to {high:.2f})"
    assert f"train (the fit saw it): 70 % of S2 (n 110) and 30 % of S1 (n 130) are positive; {said}." in words
    # test: 30 of 58 are 51.7 %, 31 of 62 are 50 %
    assert (
        "test (the fit did not see it): 52 % of S2 (n 58) and 50 % of S1 (n 62) are positive; odds ratio 1.07" in words
    )


def test_sizes_have_their_share_of_the_split(base: Path) -> None:
    rows = size_rows(parts_of(read_discovery(base / "found"), min_count=10, show_small=False))
    assert [(row["split"], row["n"]) for row in rows] == [("train", "240"), ("val", "40"), ("test", "120")]
    assert [(item["text"], item["lines"]) for item in rows[0]["cells"]] == [
        ("130", ["54.2\u00a0%"]), ("110", ["45.8\u00a0%"])
    ]  # fmt: skip


def test_all_ways_of_looking_are_listed_and_folded(page: str) -> None:
    folded = page[page.index("<details") :]
    assert folded.startswith("<details>")
    assert words_of(folded).count("codes clouds in principal components 2 0.210 Holm 0.630 0.210 0.31") == 1
    assert "one component has the best held-out likelihood" in folded
    assert "Why not chosen" in folded


def test_nothing_claimed_says_so_and_what_was_tried(tmp_path: Path) -> None:
    table = rows_of(SIZES, POSITIVES)
    folder = write_folder(tmp_path, table=table, claimed=False, chosen=None, place=None, maps={})
    record = read_json(folder / "discovery.json", "discovery")
    record["candidates"][0] |= {"p": 0.02, "p_holm": 0.06, "reason": "p 0.06, adjusted, is above 0.05"}
    record["subgroups"] = [{"name": "S1", "n_fitted": 280, "typical": []}]
    write_json(folder / "discovery.json", "discovery", record)
    write_table(folder / "subgroups.csv", table.assign(subgroup="S1").drop(columns="label"))
    page = write_discovery_page(folder, root=tmp_path / "no template is looked for").read_text(encoding="utf-8")
    words = words_of(page)
    assert (
        "0 subgroups claimed 400 subjects 280 of them seen by the fit 3 ways of looking 0.060 smallest p, adjusted"
        in words
    )
    assert (
        "No subgroup was claimed. In 280 subjects of train and val the smallest p of 3 ways of looking is 0.020"
        in words
    )
    assert "Why it is not claimed: p 0.06, adjusted, is above 0.05." in words
    assert "<details open>" in page
    assert "How sure" not in words
    assert "img-src" not in page


def test_what_was_taken_out_is_said(tmp_path: Path) -> None:
    nuisances = [
        {"name": HOSTILE, "kind": "categorical", "categories": ["A", "B", "C"]},
        {"name": "age", "kind": "numeric", "categories": []},
    ]
    settings = {"keep_scale": False, "representations": ["codes", "log_jacobian"]}
    folder = write_folder(tmp_path, nuisances=nuisances, settings=settings)
    page = write_discovery_page(folder).read_text(encoding="utf-8")
    assert (
        "Taken out before looking: the overall size of the brain (of volumes), &lt;script&gt;alert(1)&lt;/script&gt; "
        "(3 categories) and age (as a number)."
    ) in page
    assert "The label and recorded attributes were not used, but for what was taken out before." in page
    assert (
        "The attributes were looked at after the subgroups were found, but for &lt;script&gt;alert(1)&lt;/script&gt;, "
        "age, taken out before."
    ) in page


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep_scale": True, "representations": ["log_jacobian"]}, ""),
        ({"keep_scale": False, "representations": ["codes"]}, ""),
        (
            {"keep_scale": False, "representations": ["regional_volumes"]},
            "Taken out before looking: the overall size of the brain (of volumes).",
        ),
    ],
)
def test_nothing_taken_out_is_no_sentence(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    assert discovery_view(write_folder(tmp_path, settings=settings))["taken_out"] == said


def test_features_and_regions_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    record = read_json(folder / "discovery.json", "discovery")
    record["candidates"][0]["representation"] = "embeddings"
    write_json(folder / "discovery.json", "discovery", record)
    assert discovery_view(folder)["said"][1] == (
        "They were found in features of the images that were given in a file. The label and recorded attributes were "
        "not used; the model that made the features may have used them."
    )
    record["candidates"][0]["representation"] = "regional_volumes"
    record["place"]["region"] = "Left Hippocampus"
    write_json(folder / "discovery.json", "discovery", record)
    assert discovery_view(folder)["said"][1] == (
        "They were found in the volumes of regions of the brain, against those of the template, around the region Left "
        "Hippocampus. The label and recorded attributes were not used."
    )


def test_more_than_two_subgroups_have_a_picture_and_a_row_each(tmp_path: Path) -> None:
    anatomy = write_root(tmp_path / "root")
    table = rows_of(SIZES, POSITIVES)
    table.loc[table.index[::5], "subgroup"] = "S3"
    maps = {f"S{k}": "maps/S2_desc-logjacobian_map.nii.gz" for k in (1, 2, 3)}
    folder = write_folder(tmp_path / "found", anatomy, table=table, maps=maps, place=None)
    view = discovery_view(folder, root=tmp_path / "root")
    assert [picture["name"] for picture in view["pictures"]] == ["S2", "S3"]
    assert all("where they differ most" in picture["sentence"] for picture in view["pictures"])
    assert view["label_sentences"] == []
    assert [len(body["rows"]) for body in view["labels"]] == [3, 3, 3]


def test_no_verdict_and_no_subject_is_on_the_page(page: str) -> None:
    words = words_of(page).lower()
    assert not re.search(
        r"\b(fair|unfair|biased|unbiased|pass|passed|fail|significant)\b", words.replace("monai_fair", "")
    )
    assert not re.search(r"sub-\d", page)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    table = rows_of(SIZES, POSITIVES).replace({"split": {"test": HOSTILE}})
    folder = write_folder(tmp_path, table=table, notes=[f"{HOSTILE}: not compared"])
    page = write_discovery_page(folder).read_text(encoding="utf-8")
    assert "<script" not in page
    # two sentences, the figure, two tables, and the note
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    assert "Note: &lt;script&gt;alert(1)&lt;/script&gt;: not compared." in page


def test_without_a_template_there_are_no_pictures(base: Path) -> None:
    view = discovery_view(base / "found", registered=base / "registered")
    assert view["pictures"] == view["typical"] == []
    assert view["picture_notes"] == [
        "No pictures: there is no template to draw on. Give the data root, or the template and the mask of its brain."
    ]


# --- what it masks


def test_small_counts_are_masked_with_what_would_give_them_away(tmp_path: Path) -> None:
    sizes = {"train": (130, 110), "val": (40, 8), "test": (62, 58)}
    positives = {"train": (39, 77), "val": (13, 3), "test": (31, 5)}
    folder = write_folder(tmp_path, table=rows_of(sizes, positives))
    page = words_of(write_discovery_page(folder).read_text(encoding="utf-8"))
    parts = {part.split: part for part in parts_of(read_discovery(folder), min_count=10, show_small=False)}
    # 48 in val less 40 would be 8
    assert [item["text"] for item in size_rows([parts["val"]])[0]["cells"]] == ["masked", "<10"]
    assert "val (the fit saw it): masked, too few positives or negatives; n 48." in page
    # 5 positives of 58: both prevalences are masked, because 36 in all less 31 would be 5; the sizes are not
    test = discovery_view(folder)["labels"][2]
    assert [(row["n"], row["n_positive"], row["odds"]["text"]) for row in test["rows"]] == [
        ("62", "masked", "masked"), ("58", "<10", "masked")
    ]  # fmt: skip
    assert test["strength"] == "Cramer's V masked"
    # sizes of all fitted rows less those of train would tell val
    assert all(row["sizes"] == "masked" for row in discovery_view(folder)["candidates"])
    shown = discovery_view(folder, show_small=True)
    assert shown["candidates"][0]["sizes"] == "170, 118"
    assert [row["n_positive"] for row in shown["labels"][2]["rows"]] == ["31", "5"]
    assert shown["left_out"] == "2"
    assert discovery_view(folder)["left_out"] == "<10"


def test_a_small_number_of_missing_values_does_not_follow_from_n(base: Path) -> None:
    found = read_discovery(base / "found")
    sex, age = attribute_rows(found, min_count=10, show_small=False)
    assert (sex["n"], sex["missing"]) == ("masked", "<10")
    assert (age["n"], age["missing"]) == ("400", "0")
    assert attribute_rows(found, min_count=10, show_small=True)[0]["n"] == "397"


def test_a_subgroup_without_rows_in_a_split_has_a_reason(tmp_path: Path) -> None:
    sizes = {"train": (130, 110), "val": (22, 18), "test": (60, 0)}
    folder = write_folder(tmp_path, table=rows_of(sizes, {**POSITIVES, "test": (20, 0)}))
    shown = discovery_view(folder, show_small=True)
    rows = shown["labels"][2]["rows"]
    assert [row["odds"]["words"] for row in rows] == [["every row is in the subgroup"], ["no row in the subgroup"]]
    assert shown["label_sentences"][2] == "test (the fit did not see it): all 60 subjects are in one subgroup."
    assert "Cramer's V undefined" in shown["labels"][2]["strength"]


def test_infinite_odds_are_told_from_undefined_ones() -> None:
    # JSON has neither: both are null, and only an undefined one has a reason
    infinite = {"odds_ratio": None, "low": 3.5, "high": None, "reason": ""}
    assert odds_cell(infinite)["text"] == "infinite"
    assert odds_cell(infinite)["lines"] == ["3.50 to infinite"]
    assert odds_cell({**infinite, "reason": "no positive row"})["words"] == ["no positive row"]
    assert [ratio_text(value) for value in (0.0, 0.187, 12.3, 1234.5)] == ["0.00", "0.19", "12", "1,234"]


# --- pictures


def test_colours_lie_over_the_picture_as_strongly_as_the_value() -> None:
    values = np.array([[0.2, -0.2, 0.1], [0.0, np.nan, 0.9]])
    inside = np.array([[True, True, True], [True, True, False]])
    found = pixels(overlay_uri(values, 0.2, inside=inside))
    # half of the limit is half of 230, outside and NaN are clear
    assert found[..., 3].tolist() == [[230, 230, 115], [0, 0, 0]]
    assert found[0, 0, :3].tolist() == found[0, 2, :3].tolist() == [213, 94, 0]
    assert found[0, 1, :3].tolist() == [86, 180, 233]


@pytest.mark.parametrize(
    ("log", "percent"), [(0.27, 40), (-0.27, 40), (0.048, 5), (0.0, 1), (math.log(1.3) - 1e-9, 30)]
)
def test_the_colour_bar_ends_at_a_round_per_cent(log: float, percent: int) -> None:
    # exp(0.27) = 1.31 is rounded up to 40 %, exp(0.048) = 1.049 to 5 %
    values = np.array([0.0, log, np.nan], np.float64)
    assert 100 * math.expm1(round_limit(values, percentile=100)) == pytest.approx(percent)


def test_changes_of_volume_are_written_in_per_cent() -> None:
    logs = [math.log(1.22), -0.25, 0.0, math.log(0.981)]
    assert [percent_change(log) for log in logs] == ["+22\u00a0%", "−22\u00a0%", "+0.0\u00a0%", "−1.9\u00a0%"]


def test_the_place_is_that_of_the_discovery(base: Path, space: Template) -> None:
    found = read_discovery(base / "found")
    expected = np.linalg.solve(space.grid.affine, [*PLACE_MM, 1])[:3]
    place = place_of(found, np.zeros(space.grid.shape, np.float32), space)
    assert place == Place(tuple(np.rint(expected).astype(int).tolist()), RADIUS_MM)
    # without one, where the map is largest in the brain; a larger value outside does not count
    found.record["place"] = None
    middle = space.centre
    difference = np.zeros(space.grid.shape, np.float32)
    difference[middle], difference[0, 0, 0] = -0.4, 9.0
    assert place_of(found, difference, space) == Place(middle, 0.0)


def test_the_number_in_words_is_the_mean_around_the_place(base: Path, space: Template) -> None:
    figure = difference_figure(read_discovery(base / "found"), "S2", space)
    voxel = figure["place"].voxel
    # the grid's step is 7 mm, so that no other voxel is within 5 mm
    expected = CHANGE * bump_of(space)[voxel]
    assert figure["mean"] == pytest.approx(expected, abs=1e-6)
    assert figure["spread"] == pytest.approx(0.125)
    sentence = discovery_view(base / "found", root=base / "root")["pictures"][0]["sentence"]
    change = -100 * math.expm1(expected)
    assert f"on average {change:.0f}\u00a0% smaller in S2" in sentence
    assert f"({-expected / 0.125:.1f} standard deviations" in sentence
    assert re.match(r"Around the point \d+\u00a0mm right of, \d+\u00a0mm behind and \d+\u00a0mm below the", sentence)


def test_planes_go_through_the_place(base: Path, space: Template) -> None:
    figure = difference_figure(read_discovery(base / "found"), "S2", space)
    voxel, box = figure["place"].voxel, space.box
    log = CHANGE * bump_of(space)
    axial, coronal, sagittal = figure["panels"]
    assert axial["letters"] == ("L", "R", "P", "A")
    assert sagittal["letters"] == ("P", "A", "I", "S")
    own = log[box[0], voxel[1], box[2]].T[::-1]
    limit = round_limit(log[space.brain], percentile=100)
    alpha = np.clip(np.abs(own) / limit, 0, 1) * 230 * space.brain[box[0], voxel[1], box[2]].T[::-1]
    np.testing.assert_allclose(pixels(coronal["over"])[..., 3], alpha, atol=0.51)
    # the circle's centre is where the place is: columns from the left, rows from the top
    assert coronal["centre"] == (voxel[0] - box[0].start + 0.5, box[2].stop - voxel[2] - 0.5)
    assert coronal["radii"] == [pytest.approx(RADIUS_MM / 7.0, abs=0.01)] * 2


def test_pictures_are_the_same_in_any_order_of_axes(tmp_path: Path, base: Path, space: Template) -> None:
    """Files whose arrays run from right to left give the pixels of files that run from left to right."""
    anatomy = load_brain_anatomy("phantom", shape=(24, 28, 24), spacing_mm=7.0)
    affine = anatomy.grid.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (anatomy.grid.shape[0] - 1)
    affine[:3, 0] *= -1
    flipped = replace(
        anatomy, grid=Grid(anatomy.grid.shape, affine), image=anatomy.image[::-1], mask=anatomy.mask[::-1]
    )
    folder = write_folder(tmp_path / "found", flipped)
    first, second = (difference_figure(read_discovery(path), "S2", space) for path in (base / "found", folder))
    assert first["panels"] == second["panels"]


def test_typical_members_are_shown_without_their_names(base: Path, space: Template) -> None:
    found = read_discovery(base / "found")
    place = place_of(found, np.zeros(space.grid.shape, np.float32), space)
    figures, bar = typical_figures(found, base / "registered", space, place)
    assert [(figure["name"], len(figure["members"])) for figure in figures] == [("S1", 3), ("S2", 3)]
    assert all(len(member["panels"]) == 3 for figure in figures for member in figure["members"])
    assert bar["ends"][1] == "0"


def test_an_image_that_is_missing_is_a_sentence_without_a_name(base: Path, space: Template) -> None:
    found = read_discovery(base / "found")
    first = found.record["subgroups"][0]
    first["typical"] = ["sub-7777", "x/../../found", *first["typical"][:1]]
    figures, _ = typical_figures(found, base / "registered", space, Place(space.centre, 0.0))
    problems = [member["problem"] for member in figures[0]["members"]]
    assert problems[0].startswith("sub-…_space-template_T1w.nii.gz: expected")
    assert "7777" not in problems[0]
    assert "leads outside" in problems[1]
    assert str(base) not in " ".join(problems)
    assert problems[2] == ""


def test_a_map_that_cannot_be_read_is_a_note(tmp_path: Path, base: Path) -> None:
    maps = {"S1": "maps/S1.nii.gz", "S2": "maps/none.nii.gz"}
    folder = write_folder(tmp_path / "found", maps=maps)
    view = discovery_view(folder, root=base / "root", registered=base / "registered")
    assert view["pictures"] == view["typical"] == []
    assert len(view["picture_notes"]) == 1
    assert view["picture_notes"][0].startswith("No picture of S2: maps/none.nii.gz: expected")
    write_folder(folder, maps={"S2": "../elsewhere.nii.gz"})
    assert "leads outside" in discovery_view(folder, root=base / "root")["picture_notes"][0]


def test_a_template_that_is_given_must_be_there(base: Path, tmp_path: Path) -> None:
    (note,) = discovery_view(base / "found", root=tmp_path)["picture_notes"]  # a data root may have none
    assert note.startswith("No pictures: there is no template to draw on.")
    with pytest.raises(GeometryError, match=r"none\.nii\.gz: expected"):
        discovery_view(base / "found", template=tmp_path / "none.nii.gz", mask=tmp_path / "none.nii.gz")


# --- files


def test_every_problem_of_a_record_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    record = read_json(folder / "discovery.json", "discovery")
    del record["candidates"][0]["stability"], record["label_association"]["val"]["overall"]
    record["chosen"] = 3
    write_json(folder / "discovery.json", "discovery", record)
    with pytest.raises(ArtifactError) as caught:
        read_discovery(folder)
    assert str(caught.value).splitlines() == [
        f"{folder}/discovery.json: 3 problems",
        "  1. candidate 1: expected a key 'stability', found none; write it again",
        "  2. label_association val: expected a key 'overall', found none; write it again",
        "  3. chosen: expected the number of a candidate, 0 to 2, got 3; run discover again",
    ]
    write_json(folder / "discovery.json", "discovery", {})
    with pytest.raises(ArtifactError, match="12 problems"):
        read_discovery(folder)


def test_rows_belong_to_the_record(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    table = pd.read_csv(folder / "subgroups.csv", dtype=str)
    write_table(folder / "subgroups.csv", table.iloc[1:].replace({"subgroup": {"S2": "S9"}}))
    with pytest.raises(ArtifactError) as caught:
        read_discovery(folder)
    assert str(caught.value).splitlines() == [
        f"{folder}/subgroups.csv: 2 problems",
        "  1. expected subgroups of discovery.json, got 'S9'; run discover again",
        "  2. expected the 400 rows of discovery.json, got 399; run discover again",
    ]


def test_stages_have_names_seconds_and_a_sum(tmp_path: Path) -> None:
    stages = [{"name": "registration", "seconds": 1041.26}, {"name": "audit", "seconds": 3.02, "skipped": True}]
    rows = stage_rows(read_stages(write_json(tmp_path / "stages.json", "stages", {"stages": stages})))
    assert [tuple(row.values()) for row in rows] == [
        ("registration", "1,041.3", ""), ("audit", "3.0", "finished before"), ("all stages", "1,044.3", "")
    ]  # fmt: skip
    write_json(tmp_path / "stages.json", "stages", {"stages": [{"name": "audit"}]})
    with pytest.raises(ArtifactError, match=r"stages\.json: stage 1: expected a key 'seconds', found none"):
        read_stages(tmp_path / "stages.json")


# --- on the audit's page


def test_the_audit_page_has_them_and_is_otherwise_the_same(base: Path, results: dict[str, Any]) -> None:
    view = discovery_view(base / "found", root=base / "root", registered=base / "registered")
    stages = stage_rows([{"name": "registration", "seconds": 41.2}])
    before = build_page({**results, "provenance": None})
    after = build_page({**results, "provenance": None}, discovery=view, stages=stages)
    assert after.index('id="discovered"') < after.index('id="summary"') < after.index('id="stages"')
    for part in (
        r"; img-src data:",
        r"dt, dd \{ min-width.*?(?=</style>)",
        r'<a href="#(discovered|stages)">[^<]*</a>',
        r'<section aria-labelledby="(discovered|stages)">.*?</section>',
        r"<p><strong>2 subgroups, .*?</p>\n",  # in short
        r" It names no subject, but shows slices of images of some\.",
    ):
        after, count = re.subn(part, "", after, flags=re.DOTALL)
        assert count in (1, 2)
    assert after == before


def test_an_audit_takes_subgroups_and_stages(base: Path, tmp_path: Path, simulated: Any) -> None:
    write_predictions(tmp_path / "erm" / "predictions.csv", simulated(0, 300))
    stages = write_json(tmp_path / "stages.json", "stages", {"stages": [{"name": "registration", "seconds": 41.2}]})
    page = audit_files(
        f"{tmp_path}/erm/predictions.csv",
        attributes="sex",
        out=tmp_path / "out",
        permutations=20,
        resamples=100,
        subgroups=base / "found",
        registered=base / "registered",
        root=base / "root",
        stages=stages,
    )
    text = page.read_text(encoding="utf-8")
    assert text.count('role="img"') > 8
    assert '<th scope="row">registration</th><td>41.2</td>' in text
    assert str(base) not in text
    stored = read_json(tmp_path / "out/metrics.json", "audit")["provenance"]
    assert stored["command"].endswith("--subgroups found --registered registered --root root --stages stages.json")
    files = {file["name"]: file["sha256"] for file in stored["files"]}
    assert files["found/discovery.json"] == sha256(base / "found/discovery.json")
    assert f"{tmp_path.name}/stages.json" in files
