import copy
import re
from typing import Any

import pytest

from monai_fair.report.curve_figures import curve_figure
from monai_fair.report.masking import Mask, masks_of


def draw(results: dict[str, Any], table: int, *, show_small: bool = False) -> dict[str, Any]:
    target = results["targets"][0]
    own = target["tables"][table]
    mask = masks_of(target, 10, show_small=show_small).tables[own["name"]]
    return curve_figure(results, target, own, "ERM", mask)


def points(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """Points of every line of one colour that has no fill."""
    paths = re.findall(rf'd="([^"]*)"[^>]*style="fill: none; stroke: {colour}; stroke-width: 1.3', svg)
    return [[(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)] for path in paths]


def test_the_roc_curve_is_drawn_where_it_is(results: dict[str, Any]) -> None:
    """The first group has three lines without dashes: ROC, precision and TPR."""
    svg = draw(results, 0)["svg"]
    lines = points(svg, "#0072b2")
    assert len(lines) == 3
    value = results["targets"][0]["tables"][0]["groups"][0]["curves"]["ERM"]["roc"]["value"]
    # The curve ends at (1, 1) and begins at (0, value[0]); both fix the panel's scale, any other point tests it.
    (left, bottom), (right, top) = lines[0][0], lines[0][-1]
    scale = (bottom - top) / (value[-1] - value[0])
    for x, y in lines[0]:
        place = round((x - left) / (right - left) * 100)
        assert (bottom - y) / scale + value[0] == pytest.approx(value[place], abs=0.01)


def test_groups_with_masked_values_are_not_drawn_and_named(results: dict[str, Any]) -> None:
    found = draw(results, 1)
    assert found["absent"] == ["tiny"]
    assert "tiny" not in found["svg"]
    assert ">south (n masked)<" in found["svg"]
    shown = draw(results, 1, show_small=True)
    assert shown["absent"] == []
    assert ">tiny (n 6, 2 positive)<" in shown["svg"]


def test_without_any_group_there_is_no_figure(results: dict[str, Any]) -> None:
    target = results["targets"][0]
    small = {**target["tables"][1], "groups": [row for row in target["tables"][1]["groups"] if row["name"] == "tiny"]}
    assert curve_figure(results, target, small, "ERM", Mask(10)) == {"run": "ERM", "svg": None, "absent": ["tiny"]}


def test_many_groups_have_a_row_each(results: dict[str, Any]) -> None:
    """With more than three groups every group has its own four panels, so each keeps its band readable."""
    target = results["targets"][0]
    first = target["tables"][0]["groups"][0]
    groups = [{**first, "name": f"group {number}"} for number in range(8)]
    svg = curve_figure(results, target, {**target["tables"][0], "groups": groups}, "ERM", Mask(10))["svg"]
    assert svg.count("<clipPath") == 4 * 8
    assert all(f">group {number} (n {first['n']}, {first['n_positive']} positive)<" in svg for number in range(8))


def test_tenths_with_few_cases_are_not_drawn(results: dict[str, Any]) -> None:
    target = results["targets"][0]
    row = copy.deepcopy(target["tables"][0]["groups"][0])
    bins = row["curves"]["ERM"]["calibration"]
    bins[0]["n"], bins[1]["n"] = 9.7, 10.0
    few = sum(own["n"] < 10 for own in bins)
    table = {**target["tables"][0], "groups": [row]}

    def dots(mask: Mask) -> int:
        svg = str(curve_figure(results, target, table, "ERM", mask)["svg"])
        return len(re.findall(r'<use xlink:href="#[^"]*" x="[^"]*" y="[^"]*" style="fill: #0072b2', svg))

    assert few
    assert dots(Mask(10, show_small=True)) - dots(Mask(10)) == few


def test_thresholds_are_lines(results: dict[str, Any]) -> None:
    """Three seeds chose a threshold each, and 0.5 is fixed."""
    svg = draw(results, 0)["svg"]
    grey = re.findall(r'd="M ([\d.]+) [\d.]+ \s*L ([\d.]+) [\d.]+ \s*"[^>]*stroke: #8a97a3; stroke-width: 0.6', svg)
    upright = [float(x) for x, same in grey if x == same]
    chosen = results["targets"][0]["thresholds"]["ERM"]["youden"]["by_seed"]
    places = sorted([*chosen, 0.5])
    assert len(upright) == 4
    unit = (upright[-1] - upright[0]) / (places[-1] - places[0])
    expected = [upright[0] + unit * (place - places[0]) for place in places]
    assert sorted(upright) == pytest.approx(expected, abs=0.3)
