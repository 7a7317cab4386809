"""The page of prepared scans: whole in itself, the failed ones first, then those least alike to the template."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from monai_fair.data import write_volume
from monai_fair.data.artifacts import write_json
from monai_fair.data.tables import write_table
from monai_fair.errors import ArtifactError
from monai_fair.geometry import Grid
from monai_fair.report.preparation import write_preparation_pages

GRID = Grid.isotropic((24, 28, 26), 6.0)
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def headings(self) -> list[str]:
        text = " ".join(" ".join(self.words).split())
        return re.findall(r"\bs_[a-z]+\b(?= Correlation| No picture)", text)


def row(name: str, ncc: float, **changed: object) -> dict[str, object]:
    return {
        "subject_id": f"s_{name}", "image": f"raw/{HOSTILE}{name}.nii.gz", "status": "prepared", "reason": "",
        "prepared_image": f"{name}.nii.gz", "ncc": ncc, "mutual_information": 0.5, "scale": 1.02, "determinant": 1.061,
        "mask_ml": 1400.4, "native_mask_ml": 1486.1, "coverage": 1.0, "edge_voxels": 0.0,
        "input_spacing_mm": "1 x 1 x 1.2", "input_orientation": "LPI", "affine_from": "file",
    } | changed  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a preparation leaves, made by hand: four prepared scans, one of them without its image, and a failure."""
    root = tmp_path_factory.mktemp("prepared")
    points = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in GRID.shape], indexing="ij"))
    brain = (points**2).sum(axis=0) < 0.6
    noise = np.random.default_rng(0).random(GRID.shape).astype(np.float32)
    write_volume(root / "template_desc-brain_mask.nii.gz", brain, GRID)
    for name in ("good", "bad", "undefined"):
        write_volume(root / f"{name}.nii.gz", noise * brain, GRID)
    failed = {"subject_id": "s_failed", "image": "raw/f.nii.gz", "status": "failed", "reason": f"Error: {HOSTILE}"}
    rows = [
        row("good", 0.91234),
        row("lost", 0.9),
        row("bad", 0.2, edge_voxels=12.0, coverage=0.875),
        row("undefined", float("nan")),
    ]
    write_table(root / "preparation.csv", pd.DataFrame([*rows, failed]))
    options = {"keep_scale": True, "masks": "", "template": HOSTILE}
    write_json(root / "preparation.json", "preparation", {"options": options, "template": "MNI152"})
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    (path,) = write_preparation_pages(folder, workers=1)
    assert path == folder / "preparation.html"
    return path.read_text(encoding="utf-8")


def test_the_failed_come_first_and_then_the_lowest_correlation(page: str) -> None:
    parsed = Page(page)
    assert parsed.headings() == ["s_undefined", "s_bad", "s_lost", "s_good"]
    assert page.index("s_failed") < page.index("s_undefined")
    words = " ".join(" ".join(parsed.words).split())
    assert "5 scans 4 prepared 1 failed 0.200 lowest correlation 0.900 median correlation" in words
    assert "Correlation with the template not defined" in words
    assert "Correlation with the template 0.912" in words
    assert "Brain mask in the scan, ml 1486" in words
    assert "The brain mask reaches the faces of the grid with 12 voxels." in words
    assert "12.5 % of the template's brain lies outside the scan." in words
    assert words.count("lies outside the scan") == 1
    assert "1 x 1 x 1.2 mm, LPI (from: file)" in words


def test_a_scan_that_cannot_be_drawn_is_a_line(page: str) -> None:
    assert "No picture: FileNotFoundError" in page
    assert len([tag for tag, _ in Page(page).tags if tag == "img"]) == 3


def test_pictures_are_small_and_show_three_planes(page: str) -> None:
    addresses = [attributes["src"] or "" for tag, attributes in Page(page).tags if tag == "img"]
    for address in addresses:
        kind, content = address.split(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.size == (640, 480)
            pixels = np.asarray(picture.convert("L"), dtype=float)
            colours = np.asarray(picture.convert("RGB"), dtype=float)
        # brain in each of the three rows and four columns, on black
        blocks = pixels.reshape(3, 160, 4, 160).mean(axis=(1, 3))
        assert (blocks > 10).all()
        assert (pixels < 10).mean() > 0.2
        # the contour is orange: much more red than blue
        assert (colours[..., 0] - colours[..., 2] > 80).sum() > 200
    assert len(page) / 4 < 60_000


def test_the_page_loads_nothing_and_hostile_names_stay_text(page: str) -> None:
    parsed = Page(page)
    assert not {tag for tag, _ in parsed.tags} & {"script", "iframe", "object", "embed", "link", "base", "form"}
    assert "<script" not in page.lower()
    assert f"raw/{HOSTILE}good.nii.gz" in "".join(parsed.words)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert any(attributes.get("content") == policy for _, attributes in parsed.tags)
    for _, attributes in parsed.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src"):
                assert (value or "").startswith(("#", "data:image/jpeg;base64,"))
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_no_word_of_judgement(page: str) -> None:
    text = " ".join(Page(page).words).lower()
    assert not re.search(r"\b(pass|passed|fair|unfair|biased|excellent|poor|bad quality)\b", text)


def test_a_large_cohort_has_several_pages(folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(folder, tmp_path / "many")
    (root / "preparation_9.html").write_text("of an earlier, larger cohort")
    paths = write_preparation_pages(root, per_page=2, workers=1)
    assert [path.name for path in paths] == ["preparation.html", "preparation_2.html"]
    assert sorted(path.name for path in root.glob("*.html")) == ["preparation.html", "preparation_2.html"]
    first, second = (Page(path.read_text(encoding="utf-8")) for path in paths)
    assert first.headings() == ["s_undefined", "s_bad"]
    assert second.headings() == ["s_lost", "s_good"]
    links = [attributes["href"] for tag, attributes in first.tags if tag == "a"]
    assert "preparation_2.html" in links
    assert "s_failed" not in "".join(second.words)


def test_equal_input_gives_equal_bytes(folder: Path, page: str, tmp_path: Path) -> None:
    root = shutil.copytree(folder, tmp_path / "copy")
    (path,) = write_preparation_pages(root, workers=2)
    assert path.read_text(encoding="utf-8") == page.replace(str(folder), str(root))


def test_a_folder_without_prepared_scans(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a readable JSON file of kind 'preparation'"):
        write_preparation_pages(tmp_path)
