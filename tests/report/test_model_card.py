import copy
import json
import re
from typing import Any

import pytest

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit
from monai_fair.report import model_card_block
from monai_fair.report.model_card import escaped


def cells(line: str) -> list[str]:
    """Cells of a table's row; an escaped bar does not end one."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def rows(card: str, start: str) -> list[list[str]]:
    """Rows of the first table after a heading."""
    lines = card[card.index(f"### {start}\n") :].splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("|"))
    last = next(index for index, line in enumerate(lines) if index > first and not line.startswith("|"))
    return [cells(line) for line in lines[first:last]]


def test_groups_have_n_values_and_intervals(results: dict[str, Any]) -> None:
    table = rows(model_card_block(results), "By sex")
    assert table[0][:5] == ["Group", "n", "n positive", "ERM: AUC", "NIR: AUC"]
    group = results["targets"][0]["tables"][0]["groups"][0]
    auc = group["cells"]["ERM"]["auc"]
    written = f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    assert table[2][:4] == [group["name"], str(group["n"]), str(group["n_positive"]), written]
    assert [row[0] for row in table[2:]] == ["female", "male", "everyone"]


def test_gaps_have_chance_and_p(results: dict[str, Any]) -> None:
    table = rows(model_card_block(results), "Gaps between groups")
    gap = results["targets"][0]["tables"][0]["gaps"]["ERM"]["equalized_odds@youden"]
    row = next(row for row in table if row[:3] == ["sex", "ERM", "Equalized odds, points"])
    value, low, high, chance = (f"{100 * gap[key]:.1f}" for key in ("value", "low", "high", "chance"))
    assert row[5:] == [f"{value} ({low} to {high})", chance, f"{gap['p']:.3f}", f"{gap['p_holm']:.3f}"]


def test_every_table_is_a_rectangle(results: dict[str, Any]) -> None:
    widths = {}
    heading = ""
    for line in model_card_block(results).splitlines():
        heading = line if line.startswith("#") else heading
        if line.startswith("|"):
            widths.setdefault(heading, set()).add(len(cells(line)))
    assert len(widths) == 4
    assert all(len(found) == 1 for found in widths.values())


def test_small_cells_are_masked_like_on_the_page(results: dict[str, Any]) -> None:
    table = rows(model_card_block(results), "By site")
    found = {row[0]: row[1:] for row in table[2:]}
    assert found["tiny"] == ["&lt;10", "&lt;10", *["masked"] * 6]
    assert found["south"][:2] == ["masked", "masked"]
    assert found["south"][2] != "masked"
    shown = rows(model_card_block(results, show_small=True), "By site")
    assert shown[4][0] == "tiny"
    assert int(shown[4][1]) < 10


def test_thresholds_and_limits_are_there(results: dict[str, Any]) -> None:
    card = model_card_block(results)
    assert rows(card, "Thresholds")[2][:4] == ["ERM", "youden", "everyone", "the largest TPR − FPR (Youden)"]
    limits = card[card.index("### Limits") :]
    assert "They say nothing about other hospitals" in limits
    assert "Counts below 10, and counts and values that would tell them, are masked." in limits
    noted = copy.deepcopy(results)
    noted["notes"] = ["a note"]
    assert "- a note.\n" in model_card_block(noted)


def test_card_from_json_equals_card_from_numbers(results: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(results).replace("NaN", "null"))
    assert model_card_block(plain) == model_card_block(results)


def test_no_verdict_words_and_no_front_matter(results: dict[str, Any]) -> None:
    card = model_card_block(results)
    assert card.startswith("## Results by group\n\n")
    verdicts = r"\b(fair|unfair|unbiased|biased|debias\w*|pass(ed|es)?|fail(ed|s)?|good|bad|significant\w*)\b"
    assert re.findall(verdicts, card, flags=re.IGNORECASE) == []


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a | b", "a \\| b"),
        ("`x`", "\\`x\\`"),
        ("**x** _y_ ~z~", "\\*\\*x\\*\\* \\_y\\_ \\~z\\~"),
        ("![x](y)", "\\!\\[x\\](y)"),
        ("# x\n## y", "\\# x \\#\\# y"),
        ("https://x.org www.x.org me@x.org", "https&#58;//x.org www&#46;x.org me&#64;x.org"),
        ("&lt; \\|", "&amp;lt; \\\\\\|"),
        ("$x^2$ {{ y }}", "\\$x\\^2\\$ \\{\\{ y \\}\\}"),
        ("Méti 女性", "Méti 女性"),
    ],
)
def test_names_do_nothing_but_stand_there(name: str, written: str) -> None:
    assert escaped(name) == written


def test_hostile_names_in_every_place(simulated: Any) -> None:
    table = simulated()
    hostile = "<b>|`x`\n| 1 |"
    table["sex"] = table["sex"].replace({"female": hostile, "male": "m"})
    table = table.rename(columns={"sex": "se|x"})
    runs = {"a|<i>": [check_predictions(table, "p.csv")]}
    card = model_card_block(audit(runs, ["se|x"], permutations=20, resamples=100))
    assert "<" not in card
    assert "&lt;b&gt;\\|\\`x\\` \\| 1 \\|" in card
    assert len(rows(card, "By se\\|x")[2]) == 6
