"""A sweep: what is refused, and where the marks of its figures stand."""

import copy
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from monai_fair.data.predictions import check_predictions
from monai_fair.errors import MonaiFairError
from monai_fair.metrics import audit
from monai_fair.report import build_page
from monai_fair.report.sweep import read_sweep

pytestmark = pytest.mark.usefixtures("bare_pages")

RUNS = ["erm", "a", "b", "c"]
BLUE, GREY, INK = "#0072b2", "#6b7883", "#22303c"
SHAPE = '{"parameter": NAME, "runs": {RUN: VALUE, ...}}'


@pytest.fixture(scope="module")
def swept(simulated: Any) -> dict[str, Any]:
    """Four runs of two seeds, three of them in a sweep that is not in the order of its values."""
    runs = {
        run: [check_predictions(simulated(10 * number + seed, gap=number * 0.8), "p.csv") for seed in range(2)]
        for number, run in enumerate(RUNS)
    }
    found = audit(runs, ["sex", "site"], permutations=50, resamples=100)
    return {**found, "sweep": {"parameter": "strength", "runs": {"c": 2.0, "a": 0.0, "b": 0.5}}}


def test_runs_stand_in_the_order_of_their_values(tmp_path: Path) -> None:
    sweep = {"parameter": "strength", "runs": {"b": 2, "a": 0.5, "c": -1}}
    expected = {"parameter": "strength", "runs": {"c": -1.0, "a": 0.5, "b": 2.0}}
    found = read_sweep(sweep, RUNS)
    assert found == expected
    assert list(found["runs"]) == ["c", "a", "b"]
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps({"kind": "sweep", **sweep}), encoding="utf-8")
    assert read_sweep(path, RUNS) == read_sweep(str(path), RUNS) == expected


def test_all_problems_are_named() -> None:
    with pytest.raises(MonaiFairError) as caught:
        read_sweep({"parameter": " ", "runs": {"a": 1, "b": 1.0, "d": "x", "c": True}}, RUNS)
    assert str(caught.value).splitlines() == [
        "sweep: 5 problems",
        f"  1. expected 'parameter' to be a name, got ' '; write {SHAPE}",
        "  2. run 'd': expected one of the audited runs erm, a, b, c; correct the name",
        "  3. run 'd': expected a number, got 'x'; correct it",
        "  4. run 'c': expected a number, got True; correct it",
        "  5. expected one run for each value, got a, b for 1; keep one",
    ]
    with pytest.raises(MonaiFairError, match=r"^sweep: expected at least two runs, got 1; name those that differ"):
        read_sweep({"parameter": "x", "runs": {"a": 1}}, RUNS)
    with pytest.raises(MonaiFairError, match=r"run 'a': expected a number, got nan; correct it"):
        read_sweep({"parameter": "x", "runs": {"a": float("nan"), "b": 1}}, RUNS)


@pytest.mark.parametrize("text", ["[]", "{}"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MonaiFairError) as caught:
        read_sweep(path, RUNS)
    assert str(caught.value).splitlines() == [
        f"{path}: 2 problems",
        f"  1. expected 'parameter' to be a name, got None; write {SHAPE}",
        f"  2. expected 'runs' to have a number for each run, got None; write {SHAPE}",
    ]
    path.write_text("{", encoding="utf-8")
    with pytest.raises(MonaiFairError, match=r"sweep.json: expected a JSON file with .*; Expecting property name"):
        read_sweep(path, RUNS)


def part_of(page: str) -> str:
    return page[page.index('<h2 id="sweep">') : page.index('<h2 id="summary">')]


def lines(svg: str, colour: str, more: str = "") -> list[list[tuple[float, float]]]:
    """Points of every open line of a colour."""
    paths = re.findall(rf'd="([^"]*)"[^>]*style="fill: none;[^"]* stroke: {colour};? ?{more}[^"]*"', svg)
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)] for path in paths]


def values_of(swept: dict[str, Any], key: str, part: str = "value") -> list[float]:
    table = swept["targets"][0]["tables"][-1]
    assert table["name"] == "sex & site"
    return [table["gaps"][run][key][part] for run in ("a", "b", "c", "erm")]


def test_values_chance_and_the_first_run_stand_where_they_are(swept: dict[str, Any]) -> None:
    """In the panel of the gap in the AUC three values fix the scale; chance and the first run test it."""
    svg = part_of(build_page(swept))
    values, chance = values_of(swept, "auc"), values_of(swept, "auc", "chance")
    panel = [own for own in lines(svg, BLUE, "stroke-width: 1.3") if len(own) == 3][-1]
    assert len({round(x2 - x1, 1) for (x1, _), (x2, _) in itertools.pairwise(panel)}) == 1
    (_, y0), (_, y1), (_, y2) = panel
    unit = (y0 - y2) / (values[2] - values[0])
    assert y1 == pytest.approx(y0 - unit * (values[1] - values[0]), abs=0.2)
    dotted = lines(svg, GREY)[-2]  # the last one is in the legend
    assert [y for _, y in dotted] == pytest.approx([y0 - unit * (own - values[0]) for own in chance[:3]], abs=0.2)
    dashed = [own for own in lines(svg, INK) if len(own) == 2 and own[0][1] == own[1][1]][-1]
    assert dashed[0][1] == pytest.approx(y0 - unit * (values[3] - values[0]), abs=0.2)
    seeds = [swept["targets"][0]["tables"][-1]["gaps"][run]["auc"]["seeds"] for run in ("a", "b", "c")]
    upright = [own for own in lines(svg, BLUE, "stroke-width: 1.2") if len(own) == 2][-3:]
    for (low, high), own in zip([(own[0][1], own[1][1]) for own in upright], seeds, strict=True):
        assert abs(low - high) == pytest.approx(unit * (own["high"] - own["low"]), abs=0.2)


def test_words_of_the_section(swept: dict[str, Any]) -> None:
    page = build_page(swept)
    part = re.sub(r"\s+", " ", part_of(page))
    assert "Runs in the order of their values: a (0), b (0.5), c (2). The values stand at even distances." in part
    assert "600 test cases. Gaps are between the groups of sex &amp; site." in part
    assert "where seeds are folds, they share training cases" in part
    assert "Dashed: erm, which is not part of the sweep." in part
    assert "none for runs of one seed" not in part
    assert '<a href="#sweep">' in page


def test_the_first_run_in_the_sweep_is_no_line_of_its_own(swept: dict[str, Any]) -> None:
    part = part_of(build_page({**swept, "sweep": {"parameter": "x", "runs": {"erm": 0.0, "a": 1.0}}}))
    assert "Dashed" not in part
    assert [own for own in lines(part, INK) if len(own) == 2 and own[0][1] == own[1][1]] == []


def test_without_joint_groups_each_attribute_has_its_line(swept: dict[str, Any]) -> None:
    single = copy.deepcopy(swept)
    single["targets"][0]["tables"] = single["targets"][0]["tables"][:2]
    part = part_of(build_page(single))
    assert "Gaps are between the groups of each attribute." in re.sub(r"\s+", " ", part)
    assert ">\u200bsex<" in part
    assert ">\u200bsite<" in part
    assert len([own for own in lines(part, "#d55e00", "stroke-width: 1.3") if len(own) == 3]) == 2


def test_one_seed_has_no_interval(simulated: Any) -> None:
    runs = {run: [check_predictions(simulated(number), "p.csv")] for number, run in enumerate("ab")}
    found = audit(runs, ["sex"], permutations=20, resamples=100)
    part = part_of(build_page({**found, "sweep": {"parameter": "x", "runs": {"a": 0.0, "b": 1.0}}}))
    assert "none for runs of one seed" in part
    assert [own for own in lines(part, BLUE, "stroke-width: 1.2") if own] == []


def test_values_of_few_positives_are_masked(swept: dict[str, Any]) -> None:
    few = copy.deepcopy(swept)
    few["targets"][0]["overall"] |= {"n_positive": 7, "n_negative": 593}
    assert part_of(build_page(few)).count(">masked<") == 2
    assert ">masked<" not in part_of(build_page(few, show_small=True))


def test_hostile_names_are_escaped_and_json_gives_the_same_page(swept: dict[str, Any]) -> None:
    hostile = {**swept, "sweep": {**swept["sweep"], "parameter": "<img src=x>"}}
    page = build_page(hostile)
    assert "<img" not in page
    assert "&lt;img src=x&gt;" in part_of(page)
    plain = json.loads(json.dumps(hostile, sort_keys=True).replace("NaN", "null"))
    assert part_of(build_page(plain)) == part_of(page)
