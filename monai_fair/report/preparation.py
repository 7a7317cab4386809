"""Pages to look at prepared scans: every subject in three planes, the least alike to the template first."""

import base64
import io
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from monai_fair.data.artifacts import atomic_path, read_json
from monai_fair.data.tables import read_table
from monai_fair.errors import ArtifactError
from monai_fair.parallel import run_all
from monai_fair.report.rendering import render
from monai_fair.report.svg import COLOURS

PER_PAGE = 200
_SHARES = (0.2, 0.4, 0.6, 0.8)  # of the template's brain along each axis: where the planes cut
_WIDTH, _HEIGHT, _DPI = 6.4, 4.8, 100
_LARGEST = 44_000  # bytes; 60 kB as text with the measures
_QUALITIES = (85, 75, 65, 55, 45, 35, 25)
_MEASURES = {
    "ncc": ("Correlation with the template", "{:.3f}", 1.0),
    "mutual_information": ("Mutual information, nats", "{:.3f}", 1.0),
    "scale": ("Size over the template's (length)", "{:.3f}", 1.0),
    "determinant": ("Size over the template's (volume)", "{:.3f}", 1.0),
    "native_mask_ml": ("Brain mask in the scan, ml", "{:.0f}", 1.0),
    "mask_ml": ("Brain mask as prepared, ml", "{:.0f}", 1.0),
    "coverage": ("Template's brain inside the scan, %", "{:.1f}", 100.0),
    "edge_voxels": ("Mask voxels on the grid's faces", "{:.0f}", 1.0),
}


def mosaic(image: str | Path, mask: str | Path) -> str:
    """Return a prepared scan in four sagittal, coronal and axial planes, with the template's brain as a contour.

    Args:
        image: NIfTI file of the prepared scan, values in [0, 1].
        mask: NIfTI file of the template's brain mask; its box sets the planes.

    Returns:
        A JPEG of at most 44 kB as a ``data:`` address.
    """
    # over a second to import, and it needs scikit-learn
    import nibabel as nib
    from nibabel.affines import apply_affine
    from nilearn.plotting import plot_anat

    scan, contour = nib.load(image), nib.load(mask)
    inside = apply_affine(contour.affine, np.argwhere(np.asarray(contour.dataobj) > 0))
    low, high = inside.min(axis=0), inside.max(axis=0)
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    for row, plane in enumerate("xyz"):
        axes = figure.add_axes((0.0, 1 - (row + 1) / 3, 1.0, 1 / 3))
        cuts = [float(low[row] + share * (high[row] - low[row])) for share in _SHARES]
        display = plot_anat(
            scan,
            display_mode=plane,
            cut_coords=cuts,
            axes=axes,
            annotate=False,
            draw_cross=False,
            black_bg=True,
            colorbar=False,
            vmin=0.0,
            vmax=1.0,
        )
        display.add_contours(contour, levels=[0.5], colors=[COLOURS[5]], linewidths=0.7)
    canvas.draw()
    return _address(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def _address(picture: Image.Image) -> str:
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _LARGEST:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_preparation_pages(
    folder: str | Path, *, per_page: int = PER_PAGE, workers: int | None = None, ray_address: str | None = None
) -> list[Path]:
    """Write ``preparation.html`` (and ``preparation_2.html``, ...) into a folder of prepared scans.

    Failed scans come first with their reasons, then all others by their correlation with the template, lowest first.
    The pages have no scripts and load nothing.

    Args:
        folder: written by :func:`monai_fair.preparation.prepare_cohort`.
        per_page: scans on one page.
        workers: processes that draw; by default one per core.
        ray_address: as in :func:`monai_fair.parallel.run_all`.

    Returns:
        Paths of the pages, the first one first.

    Raises:
        ArtifactError: if the folder has no ``preparation.csv``, or its record is of another kind.
    """
    root = Path(folder)
    record = read_json(root / "preparation.json", "preparation")
    table = read_table(root / "preparation.csv", ArtifactError)
    failed = table[table["status"] != "prepared"]
    scans = table[table["status"] == "prepared"].copy()
    for name in _MEASURES:
        scans[name] = pd.to_numeric(scans[name])
    scans = scans.sort_values(["ncc", "subject_id"], na_position="first", kind="stable")
    pages = max(1, math.ceil(len(scans) / per_page))
    names = ["preparation.html", *(f"preparation_{number}.html" for number in range(2, pages + 1))]
    for old in root.glob("preparation_*.html"):
        old.unlink()
    for number, name in enumerate(names):
        part = scans.iloc[number * per_page : (number + 1) * per_page]
        pictures = _pictures(root, part["prepared_image"].tolist(), workers, ray_address)
        view = _view(record, table, part, pictures, failed if number == 0 else failed.iloc[:0], scans)
        text = render("preparation.html", view | {"pages": names, "this_page": name})
        with atomic_path(root / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [root / name for name in names]


def _pictures(root: Path, images: Sequence[str], workers: int | None, ray_address: str | None) -> list[dict[str, str]]:
    draw = partial(_draw, root)
    outcomes = run_all(draw, images, workers=workers, ray_address=ray_address, description="draw", unit="scan")
    return [{"address": outcome.value or "", "problem": outcome.error} for outcome in outcomes]


def _draw(root: Path, image: str) -> str:
    return mosaic(root / image, root / "template_desc-brain_mask.nii.gz")


def _view(
    record: dict[str, Any],
    table: pd.DataFrame,
    part: pd.DataFrame,
    pictures: Sequence[dict[str, str]],
    failed: pd.DataFrame,
    scans: pd.DataFrame,
) -> dict[str, Any]:
    """Everything the template shows, as text."""
    ncc = scans["ncc"].dropna()
    facts: list[tuple[object, str]] = [
        (len(table), "scans"),
        (len(scans), "prepared"),
        (len(table) - len(scans), "failed"),
    ]
    if len(ncc):
        facts += [(f"{ncc.min():.3f}", "lowest correlation"), (f"{ncc.median():.3f}", "median correlation")]
    return {
        "facts": facts,
        "failed": failed[["subject_id", "image", "reason"]].to_dict("records"),
        "scans": [
            {
                "subject_id": row["subject_id"],
                "image": row["image"],
                "input": f"{row['input_spacing_mm']} mm, {row['input_orientation']} (from: {row['affine_from']})",
                "measures": _measures(row),
                "notes": _notes(row),
                **picture,
            }
            for row, picture in zip(part.to_dict("records"), pictures, strict=True)
        ],
        "options": [(name, str(value)) for name, value in record["options"].items() if value != ""],
        "template": record["template"],
    }


def _measures(row: dict[Any, Any]) -> list[tuple[str, str]]:
    shown = []
    for name, (title, form, factor) in _MEASURES.items():
        value = float(row[name]) * factor
        shown.append((title, "not defined" if math.isnan(value) else form.format(value)))
    return shown


def _notes(row: dict[Any, Any]) -> list[str]:
    notes = []
    if row["edge_voxels"] > 0:
        notes.append(f"The brain mask reaches the faces of the grid with {row['edge_voxels']:.0f} voxels.")
    if row["coverage"] < 0.995:
        notes.append(f"{100 * (1 - row['coverage']):.1f} % of the template's brain lies outside the scan.")
    return notes
