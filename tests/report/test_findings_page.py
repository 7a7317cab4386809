"""The page of several findings: its numbers, what is undefined or masked, and where its marks stand."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.data.artifacts import read_json, sha256, write_json
from monai_fair.data.predictions import check_predictions
from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.metrics import audit
from monai_fair.metrics.finding_averages import average_findings, finding_table, finding_values
from monai_fair.report.findings_page import write_findings_page

HOSTILE = "<script>alert(1)</script>"
BLUE, RED, INK = "#0072b2", "#d55e00", "#22303c"
GAPS = {"erm": 1.2, "fairread": 0.3}


@pytest.fixture(scope="module")
def audited(simulated: Any) -> dict[str, dict[str, Any]]:
    """Two findings of the same cases, two arms with two repeats each."""
    found = {}
    for number, finding in enumerate(("Oedema", "Fracture")):
        runs = {
            arm: [check_predictions(simulated(10 * number + 3 * place + r, gap=gap), "p.csv") for r in range(2)]
            for place, (arm, gap) in enumerate(GAPS.items())
        }
        found[finding] = audit(runs, ["sex", "site"], thresholds=["0.5"], permutations=20, resamples=100)
    return found


def written(folder: Path, audits: dict[str, dict[str, Any]], **options: Any) -> str:
    paths = {name: write_json(folder / str(place), "audit", own) for place, (name, own) in enumerate(audits.items())}
    page = write_findings_page(paths, out=folder / "out", rule="0.5", **options)
    assert page == folder / "out" / "findings.html"
    return page.read_text(encoding="utf-8")


def table_of(page: str, label: str) -> list[list[str]]:
    """Cells of a table as text, row by row, its head left out."""
    part = page[page.index(f'aria-label="{label}"') :]
    body = part[part.index("<tbody>") : part.index("</table>")]  # a finding's name is in its first row only
    rows = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in rows]
    return [[re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", cell)).strip() for cell in row] for row in cells]


def test_tables_have_the_averages_with_n_interval_and_chance(audited: dict[str, Any], tmp_path: Path) -> None:
    page = written(tmp_path, audited)
    averages = average_findings(finding_values(audited, rule="0.5"))
    rows = {row[0]: row for row in table_of(page, "Table of averages")}
    assert list(rows) == ["erm", "fairread"]
    assert rows["erm"][1:3] == ["2", "4"]
    assert rows["erm"][7:] == ["first arm", "first arm"]

    def expected(finding: str, quantity: str, scale: float, digits: int, *, chance: bool) -> str:
        keys = averages[["finding", "arm", "quantity"]].eq([finding, "fairread", quantity]).all(axis=1)
        own = averages[keys].iloc[0]
        value, low, high, by_chance = (
            f"{scale * own[key]:.{digits}f}".replace("-", "−") for key in ("value", "low", "high", "chance")
        )
        return f"{value} {low} to {high}" + (f" chance {by_chance}" if chance else "")

    shown = [("accuracy", 100, 1), ("auc", 1, 3), ("delta_eo", 100, 1), ("delta_auc", 1, 3), ("fate_eo", 1, 2)]
    for place, (quantity, scale, digits) in enumerate(shown, start=3):
        told = expected("", quantity, scale, digits, chance=quantity.startswith("delta"))
        assert rows["fairread"][place] == told
    by_finding = table_of(page, "Table by finding")
    assert [len(row) for row in by_finding] == [9, 8, 9, 8]
    assert by_finding[1][4] == expected("Oedema", "delta_eo", 100, 1, chance=True)
    assert by_finding[0][0].startswith("Oedema n 600, ")
    compared = re.escape("of 6 groups, 4 stand in delta EO, 4 in delta AUC")
    assert re.search(compared, by_finding[2][0])
    assert [row[-7] for row in table_of(page, "Table of every repeat")] == ["1", "2"] * 4


def test_the_files_have_the_rows_and_where_the_averages_come_from(audited: dict[str, Any], tmp_path: Path) -> None:
    written(tmp_path, audited)
    table = pd.read_csv(tmp_path / "out" / "findings.csv", dtype={"repeat": str})
    expected = finding_table(finding_values(audited, rule="0.5"))
    table["reason"] = table["reason"].fillna("")
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, rtol=0, atol=1e-12)
    record = read_json(tmp_path / "out" / "findings.json", "findings")
    assert record["metrics_sha256"] == {name: sha256(tmp_path / str(i)) for i, name in enumerate(audited)}
    assert record["rule"] == "0.5"
    assert len(record["averages"]) == 3 * 2 * 6
    assert str(tmp_path) not in (tmp_path / "out" / "findings.json").read_text()
    assert written(tmp_path, audited) == written(tmp_path, audited)


def points(page: str, colour: str) -> list[tuple[float, float]]:
    """Places of every mark of a colour, in the order they were drawn; ticks have a width."""
    found = re.findall(rf'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: {colour}(?![^"]*stroke-width)', page)
    return [(float(x), float(y)) for x, y in found]


def test_marks_stand_where_the_values_are(audited: dict[str, Any], tmp_path: Path) -> None:
    """Two repeats fix the scale of delta EO; the others of the same panel, and the mean, test it."""
    page = written(tmp_path, audited)
    values = finding_values(audited, rule="0.5")
    of_gap = values[values["quantity"] == "delta_eo"].set_index(["finding", "arm"])["value"]
    drawn = {name: points(page, colour) for name, colour in (("Oedema", BLUE), ("Fracture", RED))}
    # the legend has one of each colour more; delta EO of both arms, then FATE of the second
    assert [len(marks) for marks in drawn.values()] == [2 + 2 + 2 + 1] * 2
    first, second = of_gap[("Oedema", "erm")]
    (x0, y0), (x1, y1) = drawn["Oedema"][:2]
    assert y0 == y1
    unit = (x1 - x0) / (second - first)
    for name, marks in drawn.items():
        own = [*of_gap[(name, "erm")], *of_gap[(name, "fairread")]]
        assert [x for x, _ in marks[:4]] == pytest.approx([x0 + unit * (value - first) for value in own], abs=0.3)
    mean = average_findings(values).query("finding == '' and quantity == 'delta_eo'")["value"].to_numpy()
    diamonds = [x for x, _ in points(page, INK)][:2]
    assert diamonds == pytest.approx([x0 + unit * (value - first) for value in mean], abs=0.3)


def test_what_is_undefined_says_why_and_is_counted(audited: dict[str, Any], tmp_path: Path) -> None:
    broken = copy.deepcopy(audited)
    table = broken["Fracture"]["targets"][0]["tables"][-1]
    gap, fate = table["gaps"]["fairread"]["equalized_odds@0.5"], table["fate"]["fairread"]["equalized_odds@0.5"]
    gap |= {"by_seed": [float("nan"), 0.2], "reason": "fewer than two groups to compare"}
    fate |= {"by_seed": [float("nan"), 0.2], "reason": "the baseline or its gap is 0 or undefined"}
    page = written(tmp_path, broken)
    assert "2 of 12 values are undefined and not drawn" in page
    (row,) = [row for row in table_of(page, "Table of averages") if row[0] == "fairread"]
    assert row[5] == row[7] == "undefined undefined in 1 of 2 findings: Fracture"
    assert table_of(page, "Table by finding")[3][4] == (
        "undefined undefined in 1 of 2 repeats: fewer than two groups to compare"
    )
    assert table_of(page, "Table of every repeat")[6][4] == "undefined fewer than two groups to compare"
    assert ">nan<" not in page
    assert "12 values." in written(tmp_path / "whole", audited)


def test_one_finding_and_one_repeat_have_no_interval(simulated: Any, tmp_path: Path) -> None:
    runs = {arm: [check_predictions(simulated(place), "p.csv")] for place, arm in enumerate(GAPS)}
    one = {"Oedema": audit(runs, ["sex"], thresholds=["0.5"], permutations=20, resamples=100)}
    page = written(tmp_path, one)
    assert "one finding: the spread over findings is unknown" in table_of(page, "Table of averages")[1][3]
    assert "one repeat: the spread over repeats is unknown" in table_of(page, "Table by finding")[1][3]


def test_values_of_few_positives_are_masked_and_averages_that_would_tell_them(
    audited: dict[str, Any], tmp_path: Path
) -> None:
    few = copy.deepcopy(audited)
    few["Fracture"]["targets"][0]["overall"] |= {"n_positive": 7, "n_negative": 593}
    page = written(tmp_path, few)
    assert [row[3:5] for row in table_of(page, "Table of averages")] == [["masked"] * 2] * 2
    by_finding = table_of(page, "Table by finding")
    assert "n 600, &lt;10 positive" in by_finding[2][0]
    assert by_finding[3][2:4] == ["masked"] * 2
    assert "masked" not in " ".join(by_finding[0] + by_finding[1])
    assert "are masked, and so are averages" in page
    shown = written(tmp_path / "all", few, show_small=True)
    assert ">masked<" not in shown
    assert "n 600, 7 positive" in shown


def test_hostile_names_are_escaped_and_reports_near_are_linked(audited: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(audited["Oedema"]).replace("NaN", "null").replace('"fairread"', json.dumps(HOSTILE))
    study = tmp_path / "deep" / "study"
    near, far = (folder / "a b" / "metrics.json" for folder in (study, tmp_path / "far"))
    for path in (near, far):
        write_json(path, "audit", json.loads(text))
        (path.parent / "report.html").write_text("")
    for out, link in ((study, "a%20b/report.html"), (study / "c", "../a%20b/report.html")):
        page = write_findings_page({HOSTILE: near, "far": far}, out=out, rule="0.5").read_text(encoding="utf-8")
        assert "<script" not in page
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 4
        assert re.findall(r'href="([^#"][^"]*)"', page) == [link]


def test_what_is_no_audit_or_has_no_such_thresholds_is_refused(audited: dict[str, Any], tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", "audit", audited["Oedema"])
    with pytest.raises(MonaiFairError, match=r"^findings: a: expected thresholds by 'given', the audit has 0\.5;"):
        write_findings_page({"a": path}, out=tmp_path)
    other = write_json(tmp_path / "b.json", "discovery", {})
    with pytest.raises(ArtifactError, match="expected a file of kind 'audit', got 'discovery'"):
        write_findings_page({"a": path, "b": other}, out=tmp_path)
    assert not (tmp_path / "findings.html").exists()
