"""The report: results of an audit as one HTML page that loads nothing, and the same numbers as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_fair.data.artifacts import atomic_path, write_json
from monai_fair.report.features_view import features_view
from monai_fair.report.incidence_view import incidence_view
from monai_fair.report.model_card import model_card_block
from monai_fair.report.quantities import Record
from monai_fair.report.rendering import render
from monai_fair.report.sweep import sweep_view
from monai_fair.report.view import page_view


def build_page(
    results: dict[str, Any],
    *,
    show_small: bool = False,
    discovery: Record | None = None,
    stages: Sequence[Record] = (),
) -> str:
    """Return the report page of an audit: one HTML document without scripts, which loads nothing.

    Names of groups, attributes and runs come from data files; every one is escaped. Counts below the audit's
    ``min_count``, and values that stand for so few cases, are masked.

    Args:
        results: of :func:`monai_fair.metrics.audit`, as computed or as read back from ``metrics.json``;
            ``features`` (:func:`~monai_fair.report.feature_section.feature_section`), ``incidence``, ``sweep``
            (:func:`~monai_fair.report.sweep.read_sweep`) and ``provenance`` may have been added.
        show_small: show small cells instead of masking them.
        discovery: of :func:`~monai_fair.report.discovery_view.discovery_view`; stands before the summary of gaps.
        stages: of :func:`~monai_fair.report.discovery_view.stage_rows`; stands before the provenance.

    Returns:
        The document.
    """
    content = {
        **page_view(results, show_small=show_small),
        "features": features_view(results, show_small=show_small),
        "incidence": incidence_view(results, show_small=show_small),
        "sweep": sweep_view(results, show_small=show_small),
        "provenance": results.get("provenance"),
        "discovery": discovery,
        "stages": stages,
    }
    return render("page.html", content)


def write_report(
    results: dict[str, Any],
    out_dir: str | Path,
    *,
    show_small: bool = False,
    discovery: Record | None = None,
    stages: Sequence[Record] = (),
) -> Path:
    """Write ``metrics.json``, ``model_card.md`` and ``report.html``, each whole or not at all.

    Args:
        results: see :func:`build_page`. ``metrics.json`` has every count, small ones too.
        out_dir: the folder; it is made if it is missing.
        show_small: show small cells on the page and in the model card instead of masking them.
        discovery: see :func:`build_page`, as the following.
        stages: of the study.

    Returns:
        Path of the page.
    """
    folder = Path(out_dir)
    texts = {
        "model_card.md": model_card_block(results, show_small=show_small),
        "report.html": build_page(results, show_small=show_small, discovery=discovery, stages=stages),
    }
    write_json(folder / "metrics.json", "audit", results)
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "report.html"
