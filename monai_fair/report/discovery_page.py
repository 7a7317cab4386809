"""The page of discovered subgroups: what was found without attributes, how sure that is, what goes along with it."""

from pathlib import Path

from monai_fair.data.artifacts import atomic_path
from monai_fair.report.discovery_view import discovery_view
from monai_fair.report.quantities import Record
from monai_fair.report.rendering import render


def write_discovery_page(
    folder: str | Path,
    *,
    root: str | Path | None = None,
    registered: str | Path | None = None,
    template: str | Path | None = None,
    mask: str | Path | None = None,
    min_count: int = 10,
    show_small: bool = False,
) -> Path:
    """Write ``discovery.html`` into a folder of discovered subgroups: one page without scripts, which loads nothing.

    It names no subject; with ``registered`` it shows slices of images of typical members.

    Args:
        folder: written by ``python -m monai_fair discover``.
        root: data root, whose template is taken when none is given; without either the page has no pictures.
        registered: folder of the registration, for pictures of typical members.
        template: image of the template.
        mask: of the template's brain.
        min_count: smaller counts are masked.
        show_small: show them instead.

    Returns:
        Path of the page.

    Raises:
        MonaiFairError: if the folder, or a template that is given or found, cannot be used. A map or an image that
            cannot be read is a sentence on the page.
    """
    view = discovery_view(
        folder,
        root=root,
        registered=registered,
        template=template,
        mask=mask,
        min_count=min_count,
        show_small=show_small,
    )
    path = Path(folder) / "discovery.html"
    with atomic_path(path) as temporary:
        temporary.write_text(build_discovery_page(view), encoding="utf-8")
    return path


def build_discovery_page(view: Record) -> str:
    """Return the page of discovered subgroups as one HTML document.

    Args:
        view: of :func:`~monai_fair.report.discovery_view.discovery_view`; every text in it is escaped.
    """
    return render("discovery.html", {"discovery": view})
