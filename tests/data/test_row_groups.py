"""Groups of training rows by attribute and label."""

import pytest

from monai_fair.data import group_counts, row_group
from monai_fair.errors import ManifestError

ROWS = [
    {"subject_id": f"s{index}", "label": label, "attributes": {"sex": sex, "site": site}}
    for index, (label, sex, site) in enumerate(
        [(1, "male", "A"), (0, "female", ""), (1, "female", "B"), (1, "male", "A")]
    )
]


def test_rows_are_counted_by_attribute_and_label() -> None:
    assert list(group_counts(ROWS, "sex").items()) == [
        ("female, label 0", 1),
        ("female, label 1", 1),
        ("male, label 1", 2),  # no man has label 0: a group that does not occur is none
    ]
    assert group_counts(ROWS, "sex", by_label=False) == {"female": 2, "male": 2}


def test_the_name_of_a_row_is_the_one_that_is_counted() -> None:
    counts = group_counts(ROWS, "sex")
    assert [counts[row_group(row, "sex")] for row in ROWS] == [2, 1, 1, 2]


def test_errors() -> None:
    with pytest.raises(ManifestError) as caught:
        group_counts(ROWS, "subgroup")
    assert str(caught.value) == (
        "attribute 'subgroup': expected a column of that name in the manifest, found sex, site; name one of these, or "
        "add the column 'subgroup' with python -m monai_fair rebalance"
    )
    with pytest.raises(ManifestError) as caught:
        group_counts(ROWS, "site")
    assert str(caught.value) == (
        "attribute 'site': expected a value in every training row, 1 of 4 have none: s1; fill them, or leave these "
        "rows out of the manifest"
    )
    with pytest.raises(ManifestError, match="found no attribute"):
        group_counts([], "sex")
