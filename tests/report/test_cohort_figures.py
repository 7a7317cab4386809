"""The figure of joint groups: bars as long as their counts, and no mark of what the tables mask."""

import re
from typing import Any

import pytest

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit
from monai_fair.report import build_page
from monai_fair.report.cohort_figures import joint_groups_figure
from monai_fair.report.linked_counts import Hidden
from monai_fair.report.masking import Mask

ORANGE, PALE, GREY = "#d55e00", "#c3cbd2", "#8a97a3"


def row(name: str, n: int, positives: int) -> dict[str, Any]:
    rate = positives / n
    counts = {"n": n, "n_subjects": n, "n_positive": positives, "n_negative": n - positives}
    return {"name": name, **counts, "prevalence": rate, "prevalence_low": rate - 0.05, "prevalence_high": rate + 0.05}


def draw(*rows: dict[str, Any], mask: Mask | None = None) -> dict[str, Any]:
    return joint_groups_figure({"name": "label 1"}, {"name": "sex & site", "groups": rows}, mask or Mask(10), 0.95)


def widths(svg: str, colour: str) -> list[float]:
    """Width of every bar of a colour; the first two corners of its path are its lower ones."""
    bars = re.findall(rf'<path d="M (\S+) \S+ \s*L (\S+) [^"]*" clip-path="[^"]*" style="fill: {colour}"', svg)
    return [float(right) - float(left) for left, right in bars]


def test_bars_are_as_long_as_their_counts() -> None:
    svg = draw(row("a", 400, 100), row("b", 100, 50))["svg"]
    with_target, without = widths(svg, ORANGE), widths(svg, PALE)
    unit = with_target[0] / 100
    assert with_target == pytest.approx([100 * unit, 50 * unit], abs=0.11)
    assert without == pytest.approx([300 * unit, 50 * unit], abs=0.21)
    assert ">n 400, 100 positive<" in svg
    assert ">25.0 %<" in svg
    assert "both (positives masked)" not in svg


def test_masked_counts_have_no_bar() -> None:
    mask = Mask(10, hidden=Hidden({"b", "c"}, {"b", "c", "d"}))
    svg = draw(row("a", 400, 100), row("b", 300, 80), row("c", 7, 3), row("d", 90, 40), row("e", 80, 5), mask=mask)[
        "svg"
    ]
    assert len(widths(svg, ORANGE)) == len(widths(svg, PALE)) == 1
    assert len(widths(svg, GREY)) == 2
    words = re.findall(r">([^<>]+)</text>", svg)
    assert [text for text in words if text.startswith(("n ", "masked", "&lt;"))] == [
        "n 400, 100 positive",
        "masked",
        "&lt;10",
        "n 90, positives masked",
        "n 80, positives masked",
        *["masked"] * 4,
    ]
    shown = draw(row("a", 400, 100), row("c", 7, 3), mask=Mask(10, show_small=True))["svg"]
    assert ">n 7, 3 positive<" in shown


def test_of_many_groups_the_largest_are_drawn() -> None:
    found = draw(*(row(f"group {number}", 20 + number, 10) for number in range(70)))
    assert (found["n_groups"], found["shown"]) == (70, 60)
    assert ">group 9<" not in found["svg"]
    assert ">group 10<" in found["svg"]
    # of equals the first are drawn, and none of them takes the place of a larger one that stands after it
    alike = draw(*(row(f"group {number}", 900 if number == 69 else 20, 10) for number in range(70)))
    assert alike["shown"] == 60
    assert re.findall(r">(group \d+)<", alike["svg"]) == [f"group {number}" for number in (*range(59), 69)]


def test_the_page_has_the_joint_groups(results: dict[str, Any]) -> None:
    page = build_page(results)
    who = page[page.index('<h2 id="who">') : page.index('<h2 id="overall">')]
    groups = results["targets"][0]["tables"][-1]["groups"]
    assert f"The {len(groups)} groups of sex &amp; site in the test part" in who
    assert who.count("<svg ") == 1
    assert "female &amp; north" in who


def test_without_intersections_only_one_attribute_is_drawn(simulated: Any) -> None:
    runs = {"ERM": [check_predictions(simulated(), "p.csv")]}
    for attributes, count in ((["sex"], 1), (["sex", "site"], 0)):
        found = audit(runs, attributes, permutations=20, resamples=100, intersections=False)
        page = build_page(found)
        who = page[page.index('<h2 id="who">') : page.index('<h2 id="overall">')]
        assert who.count("<svg ") == count


def test_where_every_count_is_masked_there_is_no_figure(simulated: Any) -> None:
    runs = {"ERM": [check_predictions(simulated(), "p.csv")]}
    found = audit(runs, ["sex", "site"], permutations=20, resamples=100, min_count=100_000)
    page = build_page(found)
    assert "<svg " not in page[page.index('<h2 id="who">') : page.index('<h2 id="overall">')]
