"""Groups of training rows: the values of one attribute, split by label where a loss or a sampler asks for it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from monai_fair.errors import ManifestError

_SHOWN = 5


def row_group(item: Mapping[str, Any], attribute: str, *, by_label: bool = True) -> str:
    """Return the name of a row's group, such as ``S1, label 0``; an empty text if the attribute is missing.

    Args:
        item: a row of :func:`monai_fair.data.load_datalist`.
        attribute: column of the manifest.
        by_label: split every value by the label.
    """
    value = str(item["attributes"].get(attribute, ""))
    return f"{value}, label {int(item['label'])}" if value and by_label else value


def group_counts(datalist: Sequence[Mapping[str, Any]], attribute: str, *, by_label: bool = True) -> dict[str, int]:
    """Count the rows of every group that occurs.

    Args:
        datalist: training rows of :func:`monai_fair.data.load_datalist`.
        attribute: column of the manifest, such as ``subgroup`` or ``sex``.
        by_label: split every value by the label.

    Returns:
        Group to number of rows, in the order of the names.

    Raises:
        ManifestError: if there is no such attribute, or rows lack a value: a missing value is no group.
    """
    known = sorted({name for item in datalist for name in item["attributes"]})
    if attribute not in known:
        raise ManifestError(
            f"attribute '{attribute}': expected a column of that name in the manifest, found "
            f"{', '.join(known) or 'no attribute'}; name one of these, or add the column 'subgroup' with "
            "python -m monai_fair rebalance"
        )
    names = [row_group(item, attribute, by_label=by_label) for item in datalist]
    lacking = [str(item["subject_id"]) for item, name in zip(datalist, names, strict=True) if not name]
    if lacking:
        shown = ", ".join(lacking[:_SHOWN]) + (", ..." if len(lacking) > _SHOWN else "")
        raise ManifestError(
            f"attribute '{attribute}': expected a value in every training row, {len(lacking)} of {len(names)} have "
            f"none: {shown}; fill them, or leave these rows out of the manifest"
        )
    return dict(sorted(Counter(names).items()))
