"""Discovered subgroups as what the page prints: a plain dict of sentences, tables, a figure and pictures."""

import math
from collections.abc import Sequence
from pathlib import Path

from monai_fair.errors import MonaiFairError
from monai_fair.report.discovery_figures import prevalence_figure
from monai_fair.report.discovery_record import FoundSubgroups, read_discovery
from monai_fair.report.discovery_sentences import (
    attribute_sentence,
    found_sentences,
    label_sentences,
    sureness,
    taken_out_sentence,
)
from monai_fair.report.discovery_tables import attribute_rows, candidate_rows, label_bodies, parts_of, size_rows
from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Record, as_float, level_text, p_text

_NO_TEMPLATE = (
    "No pictures: there is no template to draw on. Give the data root, or the template and the mask of its brain."
)


def discovery_view(
    folder: str | Path,
    *,
    root: str | Path | None = None,
    registered: str | Path | None = None,
    template: str | Path | None = None,
    mask: str | Path | None = None,
    min_count: int = 10,
    show_small: bool = False,
) -> Record:
    """Return everything the section prints.

    Args:
        folder: of the discovery.
        root: data root, whose template is taken when none is given.
        registered: folder of the registration; its images of typical members are shown.
        template: image of the template.
        mask: of the template's brain.
        min_count: least count that is shown.
        show_small: show smaller ones too.

    Raises:
        MonaiFairError: if the folder, or a template that is given or found, cannot be used.
    """
    found = read_discovery(folder)
    parts = parts_of(found, min_count=min_count, show_small=show_small)
    confidence = float(found.record.get("settings", {}).get("confidence", 0.95))
    view = {
        "claimed": found.record["claimed"],
        "names": found.names,
        "said": found_sentences(found, parts),
        "short": _short(found),
        "taken_out": taken_out_sentence(found),
        "nuisances": ", ".join(own["name"] for own in found.record.get("nuisances", ())),
        "facts": _facts(found),
        "left_out": _left_out(found, Mask(min_count, show_small)),
        "sure": sureness(found),
        "sizes": size_rows(parts),
        "labels": label_bodies(parts, confidence),
        "label_sentences": label_sentences(parts, found.names, confidence),
        "label_figure": prevalence_figure(parts, found.names, confidence),
        "level": level_text(confidence),
        "attributes": attribute_rows(found, min_count=min_count, show_small=show_small),
        "attribute_sentence": attribute_sentence(found),
        "candidates": candidate_rows(found, parts, min_count=min_count, show_small=show_small),
        "notes": [str(note) for note in found.record.get("notes", ())],
        "min_count": min_count,
        "masking": not show_small,
        "pictures": [],
        "typical": [],
        "typical_bar": None,
        "picture_notes": [],
    }
    return view | (_pictures(found, root, registered, template, mask) if found.record["claimed"] else {})


def _short(found: FoundSubgroups) -> str:
    """Say how sure a claim is, and what it goes along with, in the fewest words."""
    if found.chosen is None:
        return ""
    numbers = {name: number for name, number, _ in sureness(found)}
    return f"Adjusted p {numbers['p, adjusted']}, stability {numbers['Stability']}. {attribute_sentence(found)}"


def _facts(found: FoundSubgroups) -> list[tuple[str, str]]:
    record, chosen = found.record, found.chosen
    facts = [(f"{record['n']:,}", "subjects"), (f"{record['n_fitted']:,}", "of them seen by the fit")]
    if chosen is None:
        adjusted = [as_float(own["p_holm"]) for own in record["candidates"]]
        smallest = min((p for p in adjusted if not math.isnan(p)), default=math.nan)
        ways = len(record["candidates"])
        return [
            ("0", "subgroups claimed"),
            *facts,
            (str(ways), "ways of looking"),
            (p_text(smallest), "smallest p, adjusted"),
        ]
    stability = next(number for name, number, _ in sureness(found) if name == "Stability")
    return [
        (str(len(found.names)), "subgroups"),
        *facts,
        (p_text(chosen["p_holm"]), "p, adjusted"),
        (stability, "stability (1: always the same)"),
    ]


def _left_out(found: FoundSubgroups, mask: Mask) -> str:
    failed = len(found.record["failed"])
    return mask.missing(failed) if failed else ""


def _pictures(
    found: FoundSubgroups,
    root: str | Path | None,
    registered: str | Path | None,
    template: str | Path | None,
    mask: str | Path | None,
) -> Record:
    """Return pictures and notes; a map that cannot be read is a note, a template that cannot be read is an error."""
    if root is None and (template is None or mask is None):
        return {"picture_notes": [_NO_TEMPLATE]}
    # what lies on grids needs torch
    from monai_fair.data.templates import find_template
    from monai_fair.report.discovery_pictures import difference_figure, typical_figures
    from monai_fair.report.registration_volumes import load_template

    if template is None or mask is None:
        try:
            near = find_template(root or "")
        except MonaiFairError:
            return {"picture_notes": [_NO_TEMPLATE]}
        template, mask = template or near.image, mask or near.mask
    space = load_template(template, mask)
    pictures, notes = [], []
    for name in found.names[1:]:
        try:
            picture = difference_figure(found, name, space)
        except MonaiFairError as error:
            # the page may travel: a reason names files under the folder, not where the folder lies
            notes.append(f"No picture of {name}: {str(error).replace(f'{found.folder}/', '')}")
        else:
            pictures.append({**picture, "sentence": _difference_words(picture)})
    view: Record = {"pictures": pictures, "picture_notes": notes}
    if registered is not None and pictures:
        view["typical"], view["typical_bar"] = typical_figures(found, Path(registered), space, pictures[0]["place"])
    return view


def _difference_words(picture: Record) -> str:
    """Say how large the difference is around the place, in per cent and in standard deviations."""
    from monai_fair.report.discovery_pictures import AROUND_MM, percent_change

    mean, spread = picture["mean"], picture["spread"]
    size = percent_change(abs(mean) if mean >= 0 else mean)[1:]
    words = f"{size} {'larger' if mean >= 0 else 'smaller'} in {picture['name']} than in the other fitted subjects"
    if spread:
        words += f" ({abs(mean) / spread:.1f} standard deviations of all fitted subjects)"
    at = "where they were told apart" if picture["place"].radius_mm else "where they differ most"
    return f"Around the point {picture['point']}, {at}, the brain is on average {words}; mean within {AROUND_MM:g} mm."


def stage_rows(stages: Sequence[Record]) -> list[Record]:
    """Return the stages of a study with their seconds, and their sum.

    Args:
        stages: of :func:`~monai_fair.report.discovery_record.read_stages`.
    """
    rows = [
        {
            "name": str(stage["name"]),
            "seconds": f"{as_float(stage['seconds']):,.1f}",
            "note": "finished before" if stage.get("skipped") else "",
        }
        for stage in stages
    ]
    total = sum(as_float(stage["seconds"]) for stage in stages)
    return [*rows, {"name": "all stages", "seconds": f"{total:,.1f}", "note": ""}]
