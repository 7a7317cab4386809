"""Options as they are typed, and as python-fire has already changed them."""

import pytest

from monai_fair.data.option_values import option_gaps, option_names, option_pairs
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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sex:female=0.16", {"sex": {"female": 0.16}}),
        (" sex : female = .16, age_group:>=60=-0.1", {"sex": {"female": 0.16}, "age_group": {">=60": -0.1}}),
        ("race:A=0.1,race:B=0.2", {"race": {"A": 0.1, "B": 0.2}}),
        (("sex:female=0.16", "age:<60=1e-2"), {"sex": {"female": 0.16}, "age": {"<60": 0.01}}),
        (
            {"race": {"White, Hispanic": 0.1}, "age": {60: "0.2"}},
            {"race": {"White, Hispanic": 0.1}, "age": {"60": 0.2}},
        ),
    ],
)
def test_gaps_are_read_with_the_signs_of_age_groups(given: object, expected: dict[str, dict[str, float]]) -> None:
    assert option_gaps("--gaps", given) == expected


@pytest.mark.parametrize(
    "given", ["", "sex", "sex=0.1", "sex:=0.1", ":female=0.1", "sex:female=a", 5, {"sex": 0.1}, True]
)
def test_what_is_no_gap_of_a_group(given: object) -> None:
    with pytest.raises(MonaiFairError, match=r"^--gaps: expected attribute:group=gap, such as sex:female=0\.16, got '"):
        option_gaps("--gaps", given)


def test_a_gap_is_given_once() -> None:
    with pytest.raises(MonaiFairError) as caught:
        option_gaps("--gaps", "sex:female=0.1,sex:female=0.2")
    assert str(caught.value) == "--gaps: expected one gap for sex:female, got several; keep one"
