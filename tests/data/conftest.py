"""Public datasets in miniature: files in the true layout, written by the tests themselves."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import yaml
from PIL import Image

from monai_fair.data import build_manifest
from monai_fair.errors import RecipeError

HAM_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
HAM_LESIONS = (  # lesion, image, diagnosis, age, sex
    (1, 1, "nv", "60.0", "male"),
    (1, 2, "nv", "60.0", "male"),
    (2, 3, "mel", "55.0", "female"),
    (3, 4, "akiec", "75.0", "male"),
    (4, 5, "bcc", "80.0", "female"),
    (5, 6, "bkl", "", "male"),
    (6, 7, "df", "0.0", "female"),
    (7, 8, "vasc", "45.0", "unknown"),
    (8, 9, "nv", "30.0", "female"),
    (9, 10, "mel", "", "unknown"),
)


def ham_row(lesion: int, image: int, dx: str, age: str, sex: str) -> tuple[str, ...]:
    return (f"HAM_{lesion:07d}", f"ISIC_{image:07d}", dx, "histo", age, sex, "back", "vidir_modern")


def jpeg(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


@pytest.fixture
def write_ham(tmp_path: Path) -> Callable[..., Path]:
    """Write HAM10000: the metadata file and the two folders of images."""

    def write(
        lesions: tuple[tuple[Any, ...], ...] = HAM_LESIONS,
        *,
        name: str = "HAM10000_metadata.csv",
        columns: tuple[str, ...] = HAM_COLUMNS,
        images: bool = True,
    ) -> Path:
        root = tmp_path / "HAM10000"
        separator, quote = ("\t", '"') if name.endswith(".tab") else (",", "")
        rows = [dict(zip(HAM_COLUMNS, ham_row(*lesion), strict=True)) for lesion in lesions]
        # Dataverse quotes the text cells of its .tab files
        lines = [separator.join(f"{quote}{row[name]}{quote}" for name in columns) for row in rows]
        for part in (1, 2):
            (root / f"HAM10000_images_part_{part}").mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join([separator.join(columns), *lines]) + "\n", encoding="utf-8")
        for number, row in enumerate(rows if images else []):
            folder = root / f"HAM10000_images_part_{1 if number < len(rows) / 2 else 2}"
            (folder / f"{row['image_id']}.jpg").write_bytes(jpeg(number))
        return root

    return write


@pytest.fixture
def write_subjects(tmp_path: Path) -> Callable[..., Path]:
    """Write one .npz file per subject, each with the arrays given and a small thickness map."""

    def write(subjects: Mapping[str, Mapping[str, Any]], *, size: int = 225) -> Path:
        root = tmp_path / "Harvard"
        for name, arrays in subjects.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            np.savez(root / name, rnflt=np.full((size, size), 90, dtype=np.int16), **arrays)
        return root

    return write


@pytest.fixture(scope="session")
def touch() -> Callable[..., None]:
    """Make empty files, of paths under a folder."""

    def make(root: Path, *names: str) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()

    return make


@pytest.fixture
def write_split(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Write the part of each subject."""

    def write(parts: Mapping[str, str]) -> Path:
        path = tmp_path / "split.csv"
        path.write_text("subject_id,split\n" + "".join(f"{who},{part}\n" for who, part in parts.items()))
        return path

    return write


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write a good recipe for images found by pattern, with some keys changed, or taken away by None."""
    content = {
        "name": "Tiny",
        "reference": "none",
        "licence": "none",
        "source": {"table": "rows.csv"},
        "subject_id": "who",
        "image": {"glob": "*.png", "match": "(?P<who>[a-z]+)"},
        "label": {"column": "dx", "groups": {"0": ["well"], "1": ["ill"]}},
        "attributes": {"sex": {"column": "sex", "groups": {"female": ["f"], "male": ["m"]}}},
        "split": {"column": "part", "groups": {"train": ["a"], "test": ["b"]}},
    }

    def write(**changed: Any) -> Path:
        path = tmp_path / "tiny.yaml"
        kept = {key: value for key, value in {**content, **changed}.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """What is said about a dataset of which a recipe makes no manifest."""

    def build(recipe: str | Path, root: Path, **options: Any) -> str:
        with pytest.raises(RecipeError) as caught:
            build_manifest(recipe, root, **options)
        return str(caught.value)

    return build


@pytest.fixture(scope="session")
def write_xlsx() -> Callable[..., None]:
    """Write a workbook of one sheet; numbers as numbers, empty text as no cell at all."""

    def write(path: Path, rows: Sequence[Sequence[str | float]], sheet: str = "Sheet1") -> None:
        lines = []
        for number, row in enumerate(rows, start=1):
            places = [(f"{chr(65 + column)}{number}", value) for column, value in enumerate(row) if value != ""]
            body = "".join(
                f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
                if isinstance(value, str)
                else f'<c r="{place}"><v>{value}</v></c>'
                for place, value in places
            )
            lines.append(f'<row r="{number}">{body}</row>')
        main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
        office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
        package = "http://schemas.openxmlformats.org/package/2006"
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
        parts = {
            "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
            f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
            f'<Relationship Id="rId1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}">'
            f'<sheets><sheet name="{sheet}" sheetId="1" r:id="rId1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
            f'<Relationship Id="rId1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{"".join(lines)}</sheetData>'
            "</worksheet>",
        }
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in parts.items():
                archive.writestr(name, '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>' + text)

    return write
