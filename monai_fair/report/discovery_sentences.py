"""Discovered subgroups in plain sentences, built from numbers; no verdicts."""

import math
from collections.abc import Sequence

from monai_fair.report.discovery_record import FoundSubgroups
from monai_fair.report.discovery_tables import (
    METHODS,
    Part,
    fitted_splits,
    odds_cell,
    prevalence,
    stability_text,
    strength_cell,
)
from monai_fair.report.quantities import Record, as_float, counted, joined, level_text, p_text

_REPRESENTATIONS = {
    "log_jacobian": "local volume: how much larger or smaller each part of the brain is than in the template",
    "regional_volumes": "the volumes of regions of the brain, against those of the template",
    "displacement": "how each part of the brain has to be moved onto the template",
    "codes": "the registration's codes, a few numbers that say how a brain is shaped",
    "intensity": "the intensities of the images",
    "embeddings": "features of the images that were given in a file",
}


def found_sentences(found: FoundSubgroups, parts: Sequence[Part]) -> list[str]:
    """Say what was found and in whom, what was used for it and what was not; or that nothing is claimed."""
    record, chosen = found.record, found.chosen
    who = f"{counted(record['n_fitted'], 'subject')} of {joined(fitted_splits(found.rows) or ['no split'])}"
    if chosen is None:
        return ["No subgroup was claimed.", _nothing(record, who)]
    what = _REPRESENTATIONS.get(chosen["representation"], str(chosen["representation"]))
    region = (record["place"] or {}).get("region")
    what += f", around the region {region}" if region else ""
    unseen = [part.split for part in parts if part.fitted == "none"]
    where = f"the subjects of {joined(unseen)}, which the fit did not see" if unseen else "subjects the fit did not see"
    return [
        f"{counted(len(found.names), 'subgroup')}, {joined(found.names)}, were found among {who}.",
        f"They were found in {what}. {_unused(record, chosen)}",
        f"They are a hypothesis: what counts is whether what is said of them holds for {where}.",
    ]


def _unused(record: Record, chosen: Record) -> str:
    """Say that label and attributes were not used, as far as that is known."""
    words = "The label and recorded attributes were not used"
    if record.get("nuisances"):
        words += ", but for what was taken out before"
    if chosen["representation"] == "embeddings":
        words += "; the model that made the features may have used them"
    return f"{words}."


def taken_out_sentence(found: FoundSubgroups) -> str:
    """Say what was taken out before looking: the size of the brain, recorded attributes; empty for nothing."""
    settings = found.record.get("settings", {})
    names = []
    if settings.get("keep_scale") is False and {"log_jacobian", "regional_volumes"} & {
        *settings.get("representations", ())
    }:
        names.append("the overall size of the brain (of volumes)")
    for own in found.record.get("nuisances", ()):
        kind = f"{len(own['categories'])} categories" if own["categories"] else "as a number"
        names.append(f"{own['name']} ({kind})")
    return f"Taken out before looking: {joined(names)}." if names else ""


def _nothing(record: Record, who: str) -> str:
    tried = counted(len(record["candidates"]), "way") + " of looking"
    tested = [own for own in record["candidates"] if not math.isnan(as_float(own["p"]))]
    if not tested:
        return f"In {who} {tried} gave nothing that could be tested."
    best = min(tested, key=lambda own: (as_float(own["p_holm"]), as_float(own["p"])))
    return (
        f"In {who} the smallest p of {tried} is {p_text(best['p'])} ({best['representation']}, {_method(best)}), "
        f"adjusted for all of them {p_text(best['p_holm'])} (Holm). Why it is not claimed: {best['reason']}. "
        "This does not say that there are no subgroups, only that none of them met what a claim needs."
    )


def sureness(found: FoundSubgroups) -> list[tuple[str, str, str]]:
    """Return how sure the claim is: name, number, and what the number means."""
    chosen, record = found.chosen, found.record
    if chosen is None:
        return []
    ways = counted(len(record["candidates"]), "way")
    return [
        (
            "p",
            p_text(chosen["p"]),
            "How often one single population would give subgroups that stand out so much.",
        ),
        (
            "p, adjusted",
            p_text(chosen["p_holm"]),
            f"The same after Holm's adjustment for {ways} of looking; a claim needs at most {record['alpha']:g}.",
        ),
        (
            "Valley p",
            p_text(chosen["valley_p"]),
            "How often a single cloud would have so few subjects between the subgroups, in subjects left out of the "
            "fit in turn.",
        ),
        (
            "Stability",
            stability_text(chosen["stability"]),
            "Mean adjusted Rand index of fits to resampled subjects: 1, the same subgroups every time; 0, no more "
            "alike than by chance.",
        ),
        (
            "Found by",
            f"{chosen['representation']}, {chosen['method']}",
            f"Way of looking: {_method(chosen)}.",
        ),
    ]


def _method(candidate: Record) -> str:
    return METHODS.get(candidate["method"], str(candidate["method"]))


def label_sentences(parts: Sequence[Part], names: Sequence[str], confidence: float) -> list[str]:
    """Say for every split with labels how the smaller of two subgroups and the label go together.

    Args:
        parts: of :func:`~monai_fair.report.discovery_tables.parts_of`.
        names: of the subgroups; of more than two nothing is said, the table has them.
        confidence: of the intervals.
    """
    if len(names) != 2:
        return []
    return [
        f"{part.split} ({part.fitted_words}): {_label_words(part, part.labels, confidence)}"
        for part in parts
        if part.labels is not None
    ]


def _label_words(part: Part, labels: Sequence[Record], confidence: float) -> str:
    larger, smaller = labels
    if part.label_mask.hides_classes(larger) or part.label_mask.hides_classes(smaller):
        return f"masked, too few positives or negatives; n {part.n:,}."
    first, second = (prevalence(row, part.label_mask, confidence)[0] for row in (smaller, larger))
    if math.isnan(first) or math.isnan(second):
        return f"all {part.n:,} subjects are in one subgroup."
    odds = odds_cell(smaller)
    words = odds["words"][0] if odds["quiet"] else f"{level_text(confidence)} interval {odds['lines'][0]}"
    return (
        f"{first:.0f}\u00a0% of {smaller['name']} (n {smaller['n']:,}) and {second:.0f}\u00a0% of {larger['name']} "
        f"(n {larger['n']:,}) are positive; odds ratio {odds['text']} ({words})."
    )


def attribute_sentence(found: FoundSubgroups) -> str:
    """Say which recorded attribute goes along with the subgroups most surely, or that none was compared."""
    rows = [row for row in found.record["attribute_associations"] if not math.isnan(as_float(row["p"]))]
    if not rows:
        return "No recorded attribute could be compared."
    best = min(rows, key=lambda row: (as_float(row["p_holm"]), as_float(row["p"]), -as_float(row["value"])))
    return (
        f"Smallest p of {counted(len(rows), 'recorded attribute')}: {best['attribute']}, "
        f"{strength_cell(best)['text']}, p {p_text(best['p'])}; adjusted for all of them: {p_text(best['p_holm'])} "
        "(Holm)."
    )
