"""What is written of a discovery: its table, its figures, and what goes along with the subgroups."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data.predictions import SPLITS
from monai_fair.geometry import Axes
from monai_fair.subgroups.associations import attribute_associations, label_association
from monai_fair.subgroups.discovery import Discovery
from monai_fair.subgroups.discovery_inputs import CohortRows
from monai_fair.subgroups.nuisances import are_numbers
from monai_fair.subgroups.registered_rows import Cohort

_TYPICAL = 5  # subjects named for a subgroup
_MOST_LEVELS = 50  # of a categorical attribute, as in an audit


def membership_table(cohort: Cohort, found: Discovery) -> pd.DataFrame:
    """Return ``subgroups.csv``: a row per subject, a probability per subgroup."""
    table = pd.DataFrame(
        {
            "subject_id": found.subject_ids,
            "split": cohort.table["split"].to_numpy(),
            "fitted": found.fitted.astype(int),
            "subgroup": found.subgroup,
        }
    )
    return table.assign(**{f"membership_{name}": found.membership[:, place] for place, name in enumerate(found.names)})


def finding(cohort: Cohort, found: Discovery, alpha: float) -> dict[str, Any]:
    """Return what was tried, what was claimed, and the subgroups with their most typical subjects."""
    subgroup, split = np.array(found.subgroup), cohort.table["split"].to_numpy()
    parts = [name for name in SPLITS if (split == name).any()]
    subgroups = []
    for place, name in enumerate(found.names):
        member = subgroup == name
        rows = np.flatnonzero(member & found.fitted)
        typical = rows[np.argsort(-found.membership[rows, place], kind="stable")][:_TYPICAL]
        subgroups.append(
            {
                "name": name,
                "n_fitted": rows.size,
                "n_by_split": {part: int((member & (split == part)).sum()) for part in parts},
                "typical": [found.subject_ids[row] for row in typical],
            }
        )
    return {
        "n_fitted": int(found.fitted.sum()),
        "n": len(found.subject_ids),
        "failed": dict(cohort.failed),
        "claimed": found.chosen is not None,
        "alpha": alpha,
        "candidates": [asdict(candidate) for candidate in found.candidates],
        "chosen": found.chosen,
        "subgroups": subgroups,
    }


def place_record(found: Discovery, rows: CohortRows) -> dict[str, Any] | None:
    """Return where the subgroups differ, as the voxel of the template and in mm (RAS), and the region of volumes."""
    if found.place is None or found.column is None or found.chosen is None or rows.grid is None:
        return None
    voxel = np.rint(rows.grid.points(found.place, Axes.RAS, Axes.VOXEL)).astype(int)
    place = {"voxel": voxel.tolist(), "world_mm": found.place.tolist(), "radius_mm": found.radius}
    # by its column: regions may lie around one another and share their middle
    regional = found.candidates[found.chosen].representation == "regional_volumes"
    return place | ({"region": rows.region_names[found.column]} if regional else {})


def associations(cohort: Cohort, found: Discovery, attributes: Sequence[str] | None, seed: int) -> dict[str, Any]:
    """Compare the subgroups with the label in every part, and with attributes over all subjects."""
    names, split = found.names, cohort.table["split"].to_numpy()
    by_label = {}
    for part in SPLITS if "label" in cohort.table else ():
        rows = split == part
        if rows.any():
            labels = cohort.table.loc[rows, "label"].to_numpy()
            measured = label_association(found.membership[rows], labels, seed=seed)
            table = measured.by_subgroup.assign(subgroup=names)
            by_label[part] = {"rows": table.to_dict("records"), "overall": asdict(measured.overall)}
    wanted = list(cohort.attributes if attributes is None else attributes)
    numeric, crowded = _kinds(cohort.table, wanted)
    looked = [name for name in wanted if name not in crowded]
    by_attribute = attribute_associations(found.membership, cohort.table, looked, numeric=numeric, seed=seed)
    rows_of = by_attribute.to_dict("records")
    for row in rows_of:
        row["subgroup"] = None if row["subgroup"] is None else names[row["subgroup"]]
    return {
        "label_association": by_label,
        "attribute_associations": rows_of,
        "notes": [f"{name}: not compared, more than {_MOST_LEVELS} different values" for name in crowded],
    }


def _kinds(table: pd.DataFrame, attributes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return which attributes are numbers, and which have too many values to be categories."""
    numeric, crowded = [], []
    for name in attributes:
        values = table.loc[table[name] != "", name]
        if are_numbers(values):
            numeric.append(name)
        elif values.nunique() > _MOST_LEVELS:
            crowded.append(name)
    return numeric, crowded
