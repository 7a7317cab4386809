"""A text in the place of a truth value."""

import pytest

from monai_fair.engines.switches import check_switches
from monai_fair.errors import MonaiFairError


def test_truth_values_and_nothing_are_taken() -> None:
    check_switches({"amp": True, "report": False, "progress": None})
    check_switches({})


@pytest.mark.parametrize(("value", "shown"), [("false", "'false'"), ("True", "'True'"), (0, "0"), (1.0, "1.0")])
def test_anything_else_is_named(value: object, shown: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        check_switches({"amp": True, "report": value})
    assert str(caught.value) == f"options: expected --report True or --report False, got {shown}; spell it so"


def test_all_are_named_at_once() -> None:
    with pytest.raises(MonaiFairError) as caught:
        check_switches({"amp": "true", "report": "no"})
    assert str(caught.value) == (
        "options: 2 problems\n"
        "  1. expected --amp True or --amp False, got 'true'; spell it so\n"
        "  2. expected --report True or --report False, got 'no'; spell it so"
    )
