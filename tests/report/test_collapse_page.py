"""The page of a study of neural collapse: its numbers, what is undefined, where its marks stand, and any size of it."""

import functools
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.data.artifacts import read_json, write_json
from monai_fair.report import collapse_results
from monai_fair.report.collapse_difference_figure import difference_figure
from monai_fair.report.collapse_page import KIND, build_collapse_page, write_collapse_page
from monai_fair.report.collapse_sentences import power_sentences, short_findings
from monai_fair.report.collapse_test_rows import comparison_bodies
from monai_fair.report.collapse_view import collapse_view
from monai_fair.report.collapse_words import extent, significant, small
from monai_fair.simulation.collapse_toy import simulate_collapse_toy

HOSTILE = "<script>alert(1)</script>"
BLUE, RED = "#0072b2", "#d55e00"
COLUMNS = ("model", "measure", "group", "clean", "biased", "difference", "u", "p", "holm", "smallest", "seeds")
SHAPES = {"one": (1, 1), "six": (6, 10), "five groups": (2, 3, ("a", "b", "c", "d", "e"))}


@pytest.fixture(scope="module")
def made(neighbour: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    return neighbour("collapse_made").made_results  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def shaped(made: Callable[..., dict[str, Any]]) -> Callable[[str], tuple[dict[str, Any], str]]:
    """Results of a shape, with one very long name, and their page; made once."""

    @functools.cache
    def results_and_page(shape: str) -> tuple[dict[str, Any], str]:
        results = json.loads(json.dumps(made(*SHAPES[shape])).replace("skin: sex", "very_long_" * 9))
        return results, page_of(results)

    return results_and_page


@pytest.fixture(scope="module")
def three(made: Callable[..., dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """Results of one experiment with three seeds, not to be changed, and their page."""
    results = made(1, 3)
    return results, page_of(results)


def page_of(results: dict[str, Any], **links: str) -> str:
    return build_collapse_page(collapse_view(results, links=links))


def table_of(page: str, label: str) -> list[list[str]]:
    """Cells of a table as text, row by row, its head left out."""
    part = page[page.index(f'aria-label="{label}"') :]
    rows = re.findall(r"<tr>(.*?)</tr>", part[part.index("<tbody>") : part.index("</table>")], flags=re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in rows]
    return [[re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", cell)).strip() for cell in row] for row in cells]


def comparisons_of(page: str, label: str = "Table of differences") -> list[dict[str, str]]:
    return [dict(zip(COLUMNS, row[-len(COLUMNS) :], strict=True)) for row in table_of(page, label)]


def figure_of(page: str, label: str) -> str:
    return next(svg for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL) if f'aria-label="{label}' in svg)


def rows_of(results: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return [row for row in results["comparisons"] if all(row[name] == value for name, value in fields.items())]


def test_a_real_study_is_read_compared_and_written(
    neighbour: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From run folders to the three files; the page has the numbers of the JSON, written here in another way."""
    monkeypatch.setattr(collapse_results, "simulate_collapse_toy", lambda: simulate_collapse_toy(n=40, epochs=1))
    experiments = neighbour("collapse_runs").write_experiments(tmp_path / "runs", seeds=2, attributes=("sex",))
    out = tmp_path / "study"
    audit = tmp_path / "an audit" / "report.html"
    audit.parent.mkdir()
    audit.write_text("")
    path = write_collapse_page(experiments, out=out, links={"skin: sex": audit, "other": tmp_path / "absent.html"})
    assert path == out / "neural_collapse.html"
    page, text = path.read_text(encoding="utf-8"), (out / f"{KIND}.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in page + text
    assert re.findall(r'href="([^#"][^"]*)"', page) == ["../an%20audit/report.html"]
    results = read_json(out / f"{KIND}.json", KIND)
    table = pd.read_csv(out / "comparisons.csv", keep_default_na=False)
    assert table["checkpoint"].value_counts().to_dict() == {"early": 16, "final": 16, "window": 3}
    assert table["p"].astype(float).tolist() == [row["p"] for row in results["comparisons"] + results["window"]]
    shown = comparisons_of(page)
    assert len(shown) == 8
    of_f1 = [row for row in shown if row["measure"].startswith("F1 ")]
    for row, told in zip(rows_of(results, measure="f1"), of_f1, strict=True):
        assert [told["clean"], told["biased"]] == [f"{row['mean_first']:.3f}", f"{row['mean_later']:.3f}"]
        assert told["difference"].split()[0].replace("−", "-") == f"{row['difference']:+.3f}"
        assert told["group"].startswith(f"{row['group']} ")
        assert [told["model"], told["u"]] == [row["checkpoint"], f"{row['u']:g}"]
        assert [told["smallest"], told["seeds"]] == ["0.333", "2, 2"]  # 2 / C(4, 2): both ends of all orders


def test_a_page_is_the_same_from_results_and_from_their_file(shaped: Any, tmp_path: Path) -> None:
    """JSON has no NaN: what is undefined comes back as ``None``."""
    results, page = shaped("one")
    stored = read_json(write_json(tmp_path / "a.json", KIND, results), KIND)
    assert any(row["low"] is None for row in stored["comparisons"])
    assert page_of(stored) == page


@pytest.mark.parametrize("shape", SHAPES)
def test_figures_hold_any_number_of_experiments_seeds_and_groups(shaped: Any, shape: str) -> None:
    results, page = shaped(shape)
    names = re.findall(r'<svg role="img" aria-label="([^"]*)"', page)
    assert len(names) == len(set(names)) == 7
    assert all(len(name) > 60 for name in names)
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()
    n_groups = len(results["experiments"][0]["groups"])
    assert len(table_of(page, "Table of differences")) == len(results["experiments"]) * n_groups * 4
    assert len(table_of(page, "Table of other comparisons")) == len(results["experiments"]) * (12 + 6 * n_groups)
    assert "mathdefault" not in page  # labels of logarithmic axes are formulas unless they are told not to be


def test_what_is_undefined_says_why_and_is_counted(made: Any) -> None:
    results = made(1, 3)
    row = rows_of(results, measure="f1", checkpoint="final", group="male")[0]
    nan = float("nan")
    row |= dict.fromkeys(("mean_later", "difference", "low", "high", "u", "p", "p_holm"), nan)
    row["reason"] = "undefined in 1 of 3 seeds of the later arm: no positives"
    results["split"]["points"][0] |= {"split_mean": nan, "split_sd": nan, "reason": "SPLIT test failed"}
    curves = results["curves"]
    results["curves"] = [own for own in curves if not (own["measure"] == "nc1_pinv" and own["arm"] == "clean")]
    results["curves"][0]["mean"][0] = nan
    results["planes"][1] |= {
        "points": [],
        "label": [],
        "clean_label": [],
        "in_group": [],
        "means": [],
        "reason": "no plane",
    }
    page = page_of(results)
    assert "7 of 8 differences are drawn; the others are undefined, and the table says why." in page
    assert "3 of 4 points are drawn" in page
    assert "1 curves are undefined and not drawn. 1 points of curves are undefined and not drawn." in page
    (told,) = [own for own in comparisons_of(page) if row["reason"] in own["difference"]]
    assert [told[name] for name in ("biased", "difference", "u", "p", "holm")] == [
        "undefined", f"undefined {row['reason']}", "", "undefined", "",
    ]  # fmt: skip
    assert table_of(page, "Table of separability and SPLIT test")[0][-4] == "undefined SPLIT test failed"
    assert "no plane" in figure_of(page, "Features of train")
    final = short_findings(results)[3]
    assert "F1 of the other groups: lower in 0 of 1. Undefined in 1." in final["counts"]
    assert f"F1, male: undefined ({row['reason']})" in final["lines"][0][1]


def test_sentences_count_directions_and_name_those_that_go_the_other_way(made: Any) -> None:
    results = made(2, 10)
    for row in rows_of(results, measure="f1", checkpoint="final"):
        row |= {"difference": -0.05, "p": 0.01, "p_holm": 0.2}
    against = rows_of(results, measure="f1", checkpoint="final", experiment="skin: age", group="female")[0]
    against |= {"mean_first": 0.7, "mean_later": 0.75, "difference": 0.05, "low": -0.01, "high": 0.11, "p": 0.5}
    final = short_findings(results)[3]
    assert (
        "F1 of G1: lower in 1 of 2, p below 0.05 in 1, after Holm's adjustment in 0. "
        "Not lower: skin: age, female, p below 0.05 in 0, after Holm's adjustment in 0."
    ) in final["counts"]
    assert (
        "F1, female (G1): 0.700 clean, 0.750 biased (n 10 and 10); difference +0.050 (−0.010 to 0.110), p 0.500, "
        "Holm 0.200"
    ) in dict(final["lines"])["skin: age"]
    for row in rows_of(results, measure="f1", checkpoint="early"):
        row |= {"p": 0.2 if row["group"] == "female" else 0.04, "p_holm": 1.0}
    assert short_findings(results)[2]["counts"] == [
        "4 groups compared; p below 0.05 in 2 (skin: sex, male; skin: age, male), after Holm's adjustment in 0."
    ]
    assert short_findings(results)[1]["lines"][0][1][0] == (
        "clean, NC1, eq. 1: the maximum is 20.0 times (20 over seeds) the last value (0.0500, n 10)"
    )


def test_it_is_told_what_so_few_seeds_can_show(made: Any) -> None:
    """Two of the C(6, 3) = 20 orders of three and three seeds are the ends: p is at least 0.1. Of ten and ten
    at least 1.1e-5.
    """
    assert power_sentences(made(1, 3)) == [
        "With so many seeds the smallest p of one comparison without ties is 0.100, after Holm's adjustment for 16 of "
        "them 1.000: no p can be below 0.05 and no adjusted p can be below 0.05."
    ]
    told = power_sentences(made(1, 10))[0]
    assert told.endswith(f"is 1.1e−5, after Holm's adjustment for 16 of them {small(16 * 2 / math.comb(20, 10))}.")


def test_f1_of_few_cases_has_a_mark_and_a_note(three: Any) -> None:
    results, page = three
    marked = [row["measure"] for row in comparisons_of(page) if row["group"] == "male n 120, 8 positive"]
    assert sorted(marked) == ["F1 † test"] * 2 + ["NC1, normalised test, train means"] * 2
    assert "male †" in figure_of(page, "Fig. 4")
    assert "† Fewer than 10 test positives or negatives" in page
    for positives, few in ((9, True), (10, False), (110, False), (111, True)):  # of 120
        rows = [row | {"group_n_positive": positives} for row in results["comparisons"]]
        svg = difference_figure(rows, results["experiments"])["svg"]
        (body,) = comparison_bodies(rows, results["experiments"])
        assert ("female (G1) †" in svg) == ("fewer than 10" in svg) == few
        assert {row["few"] for row in body["rows"] if row["measure"] == "F1"} == {few}


def test_table_1_adds_groups_up_and_has_the_range_of_changed_labels(three: Any) -> None:
    assert table_of(three[1], "Table 1: cohorts") == [
        ["skin: sex", "all", "605 (201)", "100.0", "33.2", "404 (141)", "81 (28)", "120 (32)", "", ""],
        ["female (G1)", "300 (100)", "49.6", "33.3", "200 (70)", "40 (14)", "60 (16)", "17 to 18 of 70", "4 of 14"],
        ["male", "300 (100)", "49.6", "33.3", "200 (70)", "40 (14)", "60 (16)", "", ""],
        ["missing", "5 (1)", "0.8", "20.0", "4 (1)", "1 (0)", "0 (0)", "", ""],
    ]


def test_planes_count_who_is_nearer_to_the_true_mean(three: Any) -> None:
    page = three[1]
    assert "nearer to the mean of their true class: 6 of 6 early, 0 of 6 at the end." in page
    assert "nearer to the mean of their true class: skin: sex: 9 of 9 early, 0 of 9 at the end." in page
    assert "early, 90 of 900" in figure_of(page, "Features of train")


def test_numbers_keep_three_digits_and_undefined_is_a_word() -> None:
    written = {0.0: "0", 1.0: "1.00", -0.12345: "−0.123", 12.345: "12.3", 1234.5: "1234", 4e-5: "4.0e−5", 2e7: "2.0e7"}
    assert {value: significant(value) for value in written} == written
    assert [significant(value) for value in (None, float("nan"))] == ["undefined"] * 2
    assert [small(p) for p in (1.08e-5, 0.0123, 1.0, None)] == ["1.1e−5", "0.012", "1.000", "undefined"]
    assert [extent(own) for own in ([3, 3], [3, None, 7], [2.5, 3], [])] == ["3", "3 to 7", "2.50 to 3", "undefined"]


def test_hostile_names_are_text(made: Any) -> None:
    text = json.dumps(made(1, 3)).replace('"male"', json.dumps(HOSTILE)).replace("skin: sex", f"{HOSTILE}: sex")
    results = json.loads(text)
    results["toy"]["settings"] = results["undefined"][0]["reason"] = HOSTILE
    page = page_of(results)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 30


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_page_fits_the_screen_and_asks_for_nothing(
    browser: Any, shaped: Any, tmp_path: Path, shape: str, width: int
) -> None:
    path = tmp_path / "page.html"
    path.write_text(shaped(shape)[1], encoding="utf-8")
    browser.open(path, width)
    browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.requests() == [path.as_uri()]
    assert browser.said() == []
    inside = "Array.from(document.querySelectorAll('table, svg'), part => part.closest('.scroll') !== null)"
    assert all(browser.evaluate(inside))
    levels = browser.evaluate("Array.from(document.querySelectorAll('h1,h2,h3,h4,h5,h6'), h => +h.tagName[1])")
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
