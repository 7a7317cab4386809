"""Results of an audit as what the page's template prints: texts, tables and figures, with small cells masked."""

from collections.abc import Sequence

from monai_fair.report.changes import changes_view, tests_used
from monai_fair.report.cohort_figures import joint_groups_figure
from monai_fair.report.curve_figures import curve_figure
from monai_fair.report.figures import gap_figure
from monai_fair.report.masking import Mask, masks_of
from monai_fair.report.quantities import (
    Quantity,
    Record,
    headline,
    headline_gaps,
    joined,
    level_text,
    others,
    primary_rule,
    quantity,
    rule_words,
)
from monai_fair.report.sentences import gap_sentences, what_was_compared
from monai_fair.report.short import short_view
from monai_fair.report.tables import matrix, overall_table, section, threshold_table, who_table


def page_view(results: Record, *, show_small: bool = False) -> Record:
    """Return everything the template prints, except incidence and provenance.

    Args:
        results: of :func:`monai_fair.metrics.audit`, as computed or as read back from JSON.
        show_small: show cells below the least count instead of masking them.

    Returns:
        Texts, tables and figures.
    """
    runs = [run["name"] for run in results["runs"]]
    return {
        "title": f"Differences between groups: {joined(runs)}",
        "runs": runs,
        "min_count": results["settings"]["min_count"],
        "masking": not show_small,
        "level": level_text(results["settings"]["confidence"]),
        "several_seeds": any(len(run["seeds"]) > 1 for run in results["runs"]),
        "several_images": results["data"]["n_subjects"] < results["data"]["n"],
        "settings": results["settings"],
        "notes": results["notes"],
        "metrics": results["metrics"],
        "targets": [_target_view(results, target, show_small=show_small) for target in results["targets"]],
    }


def _target_view(results: Record, target: Record, *, show_small: bool) -> Record:
    runs = [run["name"] for run in results["runs"]]
    rule = primary_rule(results, target)
    shown, gaps = headline(rule), headline_gaps(rule)
    masks = masks_of(target, results["settings"]["min_count"], show_small=show_small)
    tables = [(table, masks.tables[table["name"]]) for table in target["tables"]]
    single = [pair for pair in tables if len(pair[0]["attributes"]) == 1]
    several = [pair for pair in tables if len(pair[0]["attributes"]) > 1]
    return {
        "name": target["name"],
        "compared": what_was_compared(results, target, masks.overall),
        "short": short_view(target, [table for table, _ in single], runs, shown, masks.overall),
        "facts": _facts(results, target, masks.overall),
        "rule": rule_words(rule, target),
        "found": [_found(results, table, shown, mask) for table, mask in single],
        "gap_figure": gap_figure(results, target, shown),
        "cohort": _cohort(results, target, tables),
        "who": who_table(single, (target["overall"], masks.overall), results),
        "overall": overall_table(target, runs, shown, masks.overall),
        "overall_others": overall_table(target, runs, others(rule), masks.overall),
        "attributes": [_attribute(results, target, table, rule, mask) for table, mask in single],
        "changes": [changes_view(results, table, shown, gaps, mask) for table, mask in tables] if runs[1:] else [],
        "tests": tests_used(single[0][0], shown),
        "intersections": [section(table, runs, shown, gaps, mask) for table, mask in several],
        "other_rules": [_other_rule(target, other, runs, single) for other in _further(results, target, rule)],
        "thresholds": threshold_table(target, results["runs"], masks.overall),
    }


def _facts(results: Record, target: Record, mask: Mask) -> list[tuple[str, str]]:
    seeds = {len(run["seeds"]) for run in results["runs"]}
    low, high = min(seeds), max(seeds)
    prevalence, span = mask.prevalence(target["overall"])
    return [
        (f"{results['data']['n']:,}", f"{results['settings']['split']} cases"),
        (f"{results['data']['n_subjects']:,}", "subjects"),
        (mask.positives(target["overall"]), "positive"),
        (f"{prevalence}\u00a0%" if span else prevalence, f"prevalence ({span})" if span else "prevalence"),
        (str(low) if low == high else f"{low} to {high}", "seeds per run"),
    ]


def _cohort(results: Record, target: Record, tables: Sequence[tuple[Record, Mask]]) -> Record | None:
    """The figure of all attributes together, where the audit has them and some group's count may be shown."""
    attributes = list(results["settings"]["attributes"])
    for table, mask in tables:
        shown = any(not mask.hides_n(row) for row in table["groups"])
        if table["attributes"] == attributes and shown:
            return joint_groups_figure(target, table, mask, results["settings"]["confidence"])
    return None


def _found(results: Record, table: Record, quantities: Sequence[Quantity], mask: Mask) -> Record:
    items = [
        {"quantity": item.words, "sentences": gap_sentences(results, table, item, mask)}
        for item in (*quantities[1:], quantities[0])
    ]
    return {"attribute": table["name"], "items": items}


def _attribute(results: Record, target: Record, table: Record, rule: str, mask: Mask) -> Record:
    runs = [run["name"] for run in results["runs"]]
    gaps = headline_gaps(rule)
    folded = [item for item in others(rule) if item.key not in {shown.key for shown in gaps}]
    return {
        **section(table, runs, headline(rule), gaps, mask),
        "matrix": matrix(table, runs, others(rule), mask),
        "other_gaps": section(table, runs, [], folded, mask),
        "curves": [curve_figure(results, target, table, run, mask) for run in runs],
    }


def _further(results: Record, target: Record, rule: str) -> list[str]:
    """Rules beside the leading one that have a threshold in some run."""
    rules = [other for other in results["settings"]["rules"] if other != rule]
    return [other for other in rules if not all(run[other]["reason"] for run in target["thresholds"].values())]


def _other_rule(target: Record, rule: str, runs: Sequence[str], tables: Sequence[tuple[Record, Mask]]) -> Record:
    shown = [quantity(f"tpr@{rule}"), quantity(f"fpr@{rule}")]
    gaps = headline_gaps(rule)[1:]
    return {
        "words": rule_words(rule, target),
        "sections": [section(table, runs, shown, gaps, mask) for table, mask in tables],
    }
