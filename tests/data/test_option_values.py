"""Options as they are typed, and as python-fire has already changed them."""

import pytest

from monai_fair.data.option_values import option_names, option_pairs
from monai_fair.errors import MonaiFairError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", {}),
        ("label=akiec_mel", {"label": "akiec_mel"}),
        (" a = b , c=d=e,", {"a": "b", "c": "d=e"}),
        ({"a": 1}, {"a": "1"}),  # fire makes a dict of {a: 1}
        (("a=b", "c=d"), {"a": "b", "c": "d"}),
    ],
)
def test_options_are_pairs(given: object, expected: dict[str, str]) -> None:
    assert option_pairs("--options", given) == expected


@pytest.mark.parametrize("given", ["label", ("missing", "drop"), 5, True])
def test_options_that_are_no_pairs(given: object) -> None:
    with pytest.raises(MonaiFairError, match="--columns: expected name=value,name=value, got '"):
        option_pairs("--columns", given)


def test_names_come_as_text_or_as_fire_makes_them() -> None:
    assert option_names("sex, age_group") == option_names(("sex", "age_group")) == ["sex", "age_group"]
    assert option_names(5) == ["5"]
