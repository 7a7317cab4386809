"""The page of a study of several findings: averages over them, and everything that is averaged."""

from collections.abc import Mapping
from pathlib import Path

from monai_fair.data.artifacts import atomic_path, read_json, sha256, write_json
from monai_fair.data.tables import write_table
from monai_fair.metrics.finding_averages import average_findings, finding_table, finding_values
from monai_fair.report.findings_view import findings_view
from monai_fair.report.quantities import Record
from monai_fair.report.rendering import page_address, render


def write_findings_page(
    audits: Mapping[str, str | Path], *, out: str | Path, rule: str = "given", show_small: bool = False
) -> Path:
    """Average the audits of several findings: ``findings.csv``, ``findings.json`` and ``findings.html``.

    The page has no scripts and loads nothing.

    Args:
        audits: finding to the ``metrics.json`` of its audit; a ``report.html`` beside it is linked.
        out: folder of the results.
        rule: of the audits; accuracy and equalized odds are those at its thresholds.
        show_small: show values of few cases on the page instead of masking them.

    Returns:
        Path of the page. ``findings.csv`` has a row per finding, arm and repeat, see
        :func:`monai_fair.metrics.finding_averages.finding_table`; ``findings.json`` the averages, see
        :func:`monai_fair.metrics.finding_averages.average_findings`.

    Raises:
        ArtifactError: if a file is no audit.
        MonaiFairError: with every audit that cannot be averaged with the others.
    """
    folder = Path(out)
    results = {finding: read_json(path, "audit") for finding, path in audits.items()}
    values = finding_values(results, rule=rule)
    settings = next(iter(results.values()))["settings"]
    averages = average_findings(values, confidence=settings["confidence"])
    links = {finding: page_address(Path(path).with_name("report.html"), folder) for finding, path in audits.items()}
    view = findings_view(results, values, averages, rule=rule, links=links, show_small=show_small)
    content = {
        "rule": rule,
        "settings": {name: settings[name] for name in ("attributes", "split", "missing", "min_count", "confidence")},
        "metrics_sha256": {finding: sha256(path) for finding, path in audits.items()},
        "averages": averages.to_dict("records"),
    }
    write_table(folder / "findings.csv", finding_table(values))
    write_json(folder / "findings.json", "findings", content)
    with atomic_path(folder / "findings.html") as temporary:
        temporary.write_text(build_findings_page(view), encoding="utf-8")
    return folder / "findings.html"


def build_findings_page(view: Record) -> str:
    """Return the page as one HTML document without scripts.

    Args:
        view: of :func:`~monai_fair.report.findings_view.findings_view`; every text in it is escaped.
    """
    return render("findings.html", view)
