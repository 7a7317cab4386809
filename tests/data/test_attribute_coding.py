"""Attributes as numbers: levels of the training rows, numbers in their units, and what cannot be read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import default_collate

from monai_fair.data import AttributeCodes, attribute_codes, read_attribute_codes, with_attribute_codes
from monai_fair.data.artifacts import write_json
from monai_fair.errors import ArtifactError, ManifestError

NAN = float("nan")


def rows(*values: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [
        {"subject_id": str(place), "attributes": dict(zip(("sex", "race", "age"), own, strict=True))}
        for place, own in enumerate(values)
    ]


TRAIN = rows(("f", "White", "40"), ("m", "Asian", "60"), ("", "Black", "80"), ("f", "", ""))
KINDS = {"sex": None, "race": ["White", "Asian", "Black"], "age": "continuous"}


def test_levels_and_numbers_of_the_training_rows() -> None:
    codes = attribute_codes(TRAIN, KINDS)
    assert codes.levels == {"sex": ("f", "m"), "race": ("White", "Asian", "Black"), "age": ()}
    assert codes.counts == [2, 3, 0]
    assert codes.outputs == 5
    assert codes.categorical == ["sex", "race"]
    unit = np.sqrt(800 / 3)  # of 40, 60, 80
    assert codes.scales == {"age": (60.0, pytest.approx(unit))}
    coded = with_attribute_codes(TRAIN, codes)
    expected = [[0, 0, -20 / unit], [1, 1, 0], [NAN, 2, 20 / unit], [0, NAN, NAN]]
    np.testing.assert_allclose([row["attribute_codes"] for row in coded], expected, rtol=1e-6)
    assert [row["subject_id"] for row in coded] == ["0", "1", "2", "3"]
    batch = default_collate([row["attribute_codes"] for row in coded])
    assert batch.shape == (4, 3)
    assert batch.dtype.is_floating_point
    assert "attribute_codes" not in TRAIN[0]


def test_what_a_missing_attribute_could_be() -> None:
    values = [(sex, "Black", str(age)) for sex in "fm" for age in range(10)] + [("f", "White", "0"), ("f", "", "5")]
    codes = attribute_codes(rows(*values), {"sex": None, "race": None})
    assert codes.combinations == ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0))
    assert codes.frequencies == (10, 1, 10)
    of_age = attribute_codes(rows(*values), {"sex": None, "age": "continuous"})
    assert sum(of_age.frequencies) == 22
    assert len({age for _, age in of_age.combinations}) == 5  # means of fifths
    assert len(of_age.combinations) == 10


def test_what_may_be_missing() -> None:
    codes = attribute_codes(
        rows(("f", "White", "1"), ("m", "Black", "2"), ("", "White", "3")), {"sex": None, "race": None}
    )
    assert codes.lacking == (True, False)
    later = rows(("", "White", "1"), ("f", "", "1"), ("f", "", "1"))
    assert len(with_attribute_codes(later, codes)) == 3
    race = "race: expected a value in every row, 2 of 3 have none; leave these rows out; "
    with pytest.raises(ManifestError) as caught:
        with_attribute_codes(later, codes, missing="told")
    assert str(caught.value) == f"attributes: {race}no training row lacks it, so the model cannot know what that means"
    with pytest.raises(ManifestError) as caught:
        with_attribute_codes(later, codes, missing="error")
    assert str(caught.value) == (
        "attributes: 2 problems\n"
        "  1. sex: expected a value in every row, 1 of 3 have none; "
        "take missing_attributes True, or leave these rows out\n"
        f"  2. {race}the model could not learn what that means"
    )
    with pytest.raises(ManifestError, match="race: expected a value"):  # what is unseen is missing too
        with_attribute_codes(rows(("f", "Other", "1")), codes, unseen="missing", missing="told")


def test_a_model_s_codes_lie_beside_it(tmp_path: Path) -> None:
    codes = attribute_codes(TRAIN, KINDS)
    write_json(tmp_path / "model.json", "model", {"settings": {"attributes": codes.record()}})
    assert read_attribute_codes(tmp_path / "model.pt") == codes
    write_json(tmp_path / "other.json", "model", {"settings": {}})
    with pytest.raises(ArtifactError, match=r"other\.json: expected the attributes of a FairREAD model, found none"):
        read_attribute_codes(tmp_path / "other.pt")


def test_they_go_through_json() -> None:
    codes = attribute_codes(TRAIN, KINDS)
    assert AttributeCodes.from_record(json.loads(json.dumps(codes.record()))) == codes


def test_an_unseen_level_is_an_error_or_missing() -> None:
    codes = attribute_codes(TRAIN, KINDS)
    test = rows(("x", "Other", "50"), ("f", "Other", "old"), ("m", "White", "60"))
    with pytest.raises(ManifestError) as caught:
        with_attribute_codes(test, codes)
    more = "; correct the values, or take unseen 'missing'"
    assert str(caught.value) == (
        "attributes: 3 problems\n"
        f"  1. sex: expected one of f, m, 1 rows have another value, such as 'x'{more}\n"
        f"  2. race: expected one of White, Asian, Black, 2 rows have another value, such as 'Other'{more}\n"
        f"  3. age: expected a number, 1 rows have another value, such as 'old'{more}"
    )
    found = np.array([row["attribute_codes"] for row in with_attribute_codes(test, codes, unseen="missing")])
    np.testing.assert_array_equal(np.isnan(found), [[1, 1, 0], [0, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: attribute_codes(TRAIN, {}), "expected at least one attribute, got none"),
        (
            lambda: attribute_codes(TRAIN, {"site": None, "race": "continuous", "sex": ["f"]}),
            "attributes of the training rows: 3 problems\n"
            "  1. site: expected a recorded attribute (sex, race, age); correct the name\n"
            "  2. race: expected numbers, got 'White'; take levels instead of 'continuous'\n"
            "  3. sex: expected one of f, got m; add the levels",
        ),
        (
            lambda: attribute_codes(TRAIN[:1], {"sex": None, "age": "continuous"}),
            "attributes of the training rows: 2 problems\n"
            "  1. sex: expected at least two levels in the training rows, got f; leave it out\n"
            "  2. age: expected numbers that differ, got 1 different; leave it out",
        ),
        (lambda: attribute_codes(TRAIN, {"sex": ["f", "m", "f"]}), "sex: expected each level once, got f, m, f"),
        (
            lambda: with_attribute_codes([{"attributes": {"sex": "f"}}], attribute_codes(TRAIN, KINDS)),
            "attributes: 2 problems\n  1. race: expected a recorded attribute, found none\n"
            "  2. age: expected a recorded attribute, found none",
        ),
    ],
)
def test_bad_input(use: Callable[[], Any], message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        use()
    assert message in str(caught.value)
