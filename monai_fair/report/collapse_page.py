"""The page of a study of neural collapse under label bias: its numbers, its table of comparisons, and its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from monai_fair.data.artifacts import atomic_path, write_json
from monai_fair.data.tables import write_table
from monai_fair.report.collapse_results import collapse_results
from monai_fair.report.collapse_view import collapse_view
from monai_fair.report.quantities import Record
from monai_fair.report.rendering import page_address, render

KIND = "neural_collapse_study"


def write_collapse_page(
    experiments: Sequence[Record],
    *,
    out: str | Path,
    confidence: float = 0.95,
    threshold: float = 0.5,
    links: Mapping[str, str | Path] | None = None,
) -> Path:
    """Evaluate a study of neural collapse: numbers, a table of all comparisons, and a page.

    The page has no scripts and loads nothing.

    Args:
        experiments: of the study, see :func:`~monai_fair.report.collapse_results.collapse_results`.
        out: folder of the results.
        confidence: of intervals, in (0, 1).
        threshold: of scores, for F1.
        links: experiment (``dataset: attribute``) to a page about it, such as its audit; linked where the page can
            travel with it, which is below the folder that ``out`` is in.

    Returns:
        Path of ``neural_collapse.html``. Beside it ``neural_collapse_study.json`` has all numbers, and
        ``comparisons.csv`` a row per comparison of the arms: of early and final models, and of the early epochs.

    Raises:
        ArtifactError: with every file that is missing or of another kind.
        MonaiFairError: with everything that cannot be compared.
    """
    folder = Path(out)
    results = collapse_results(experiments, confidence=confidence, threshold=threshold)
    addresses = {name: page_address(Path(path), folder) for name, path in (links or {}).items()}
    page = build_collapse_page(collapse_view(results, links=addresses))
    write_json(folder / "neural_collapse_study.json", KIND, results)
    write_table(folder / "comparisons.csv", pd.DataFrame([*results["comparisons"], *results["window"]]))
    with atomic_path(folder / "neural_collapse.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "neural_collapse.html"


def build_collapse_page(view: Record) -> str:
    """Return the page as one HTML document without scripts.

    Args:
        view: of :func:`~monai_fair.report.collapse_view.collapse_view`; every text in it is escaped.
    """
    return render("neural_collapse.html", view)
