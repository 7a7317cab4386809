import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from monai_fair.data.artifacts import read_json
from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit
from monai_fair.report import build_page, write_report

# words of another audit than that of the whole page
BARE = pytest.mark.usefixtures("bare_pages")
ENDS = ("lowest", "highest")
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks nesting, and gathers tags, identifiers and text outside style and SVG."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.text, self.ids, self.links = [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self.stack):
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def page(results: dict[str, Any]) -> str:
    return build_page(results)


def test_page_is_well_formed_and_every_link_has_its_target(page: str) -> None:
    assert page.startswith("<!doctype html>\n")
    parsed = Page(page)
    assert ("html", {"lang": "en"}) in parsed.tags
    assert parsed.links
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))


def test_every_table_has_heads_with_scope_and_a_caption(page: str) -> None:
    parsed = Page(page)
    heads = [attributes for tag, attributes in parsed.tags if tag == "th"]
    assert heads
    assert all(attributes["scope"] in ("row", "col", "rowgroup", "colgroup") for attributes in heads)
    count = sum(tag == "table" for tag, _ in parsed.tags)
    assert sum(tag == "caption" for tag, _ in parsed.tags) == count


def test_every_figure_names_itself(page: str) -> None:
    figures = [attributes for tag, attributes in Page(page).tags if tag == "svg"]
    assert len(figures) == 6  # gaps, joint groups, and the curves of two attributes in two runs
    assert all(attributes["role"] == "img" and len(attributes["aria-label"]) > 20 for attributes in figures)
    assert "<dc:date>" not in page


def test_every_n_of_a_shown_group_is_on_the_page(results: dict[str, Any], page: str) -> None:
    words = Page(page).words
    assert f"{results['data']['n']:,} test cases" in words
    for table in results["targets"][0]["tables"]:
        for row in table["groups"]:
            if table["name"] == "sex" or row["name"] == "north":
                assert f"{row['name']} {row['n']:,} {row['n_positive']:,} " in words


def test_values_gaps_and_p_are_on_the_page(results: dict[str, Any], page: str) -> None:
    words = Page(page).words
    table = results["targets"][0]["tables"][0]
    for run in ("ERM", "NIR"):
        for row in table["groups"]:
            assert f"{row['cells'][run]['auc']['value']:.3f} {row['cells'][run]['auc']['low']:.3f} to" in words
            assert f"{100 * row['cells'][run]['tpr@youden']['value']:.1f} " in words
        gap = table["gaps"][run]["tpr@youden"]
        low, high = (next(row for row in table["groups"] if row["name"] == gap[end]["group"]) for end in ENDS)
        first, last = (row["cells"][run]["tpr@youden"] for row in (low, high))
        sentence = (
            f"{run} finds {100 * first['value']:.1f} % of the positive cases in {low['name']} (95 % interval "
            f"{100 * first['low']:.1f} to {100 * first['high']:.1f}; n positive {low['n_positive']}), and "
            f"{100 * last['value']:.1f} % in {high['name']} ({100 * last['low']:.1f} to {100 * last['high']:.1f}; "
            f"n positive {high['n_positive']}): a gap of {100 * gap['value']:.1f} percentage points "
            f"({100 * gap['low']:.1f} to {100 * gap['high']:.1f}). "
            f"By chance alone: {100 * gap['chance']:.1f} on average"
        )
        assert sentence in words
        assert f"95 of 100 up to {100 * gap['chance_high']:.1f}" in words
        assert f"shuffles of the groups (p {gap['p']:.3f}; {gap['p_holm']:.3f} adjusted for 3 comparisons)." in words
    change = table["gap_differences"]["NIR"]["tpr@youden"]
    cases = f"{100 * change['cases']['low']:.1f} to {100 * change['cases']['high']:.1f} over cases"
    assert (
        f"From ERM to NIR the gap changes by {100 * change['value']:.1f} percentage points ({cases}; ".replace("-", "−")
        in words
    )
    assert f"p {change['p']:.3f}, paired permutation of subjects; 3 shared seeds)." in words


def test_all_metrics_and_criteria_are_on_the_page(results: dict[str, Any], page: str) -> None:
    words = Page(page).words
    for metric in results["metrics"].values():
        assert metric["formula"] in words
        assert metric["undefined"] in words
    assert "Equalized odds" in words
    assert "Selection rate demographic parity percentage points" in words
    assert "TPR equal opportunity percentage points" in words
    ece = results["targets"][0]["tables"][0]["groups"][0]["cells"]["ERM"]["ece"]
    seeds = f"seeds {ece['seeds']['low']:.3f} to {ece['seeds']['high']:.3f}"
    assert f"{ece['value']:.3f} {seeds} {ece['by_chance']:.3f} by chance" in words


def test_the_worst_group_is_named(results: dict[str, Any], page: str) -> None:
    gap = results["targets"][0]["tables"][0]["gaps"]["ERM"]["fpr@youden"]
    # The FPR is best at 0, so its highest group is the worst.
    assert gap["worst"] == gap["highest"]
    assert f"lowest: {gap['lowest']['group']} highest: {gap['highest']['group']}, worst" in Page(page).words


def test_prevalence_has_its_interval(results: dict[str, Any], page: str) -> None:
    row = results["targets"][0]["tables"][0]["groups"][0]
    prevalence, low, high = (100 * row[key] for key in ("prevalence", "prevalence_low", "prevalence_high"))
    assert f"{row['n_positive']} {prevalence:.1f} {low:.1f} to {high:.1f}" in Page(page).words


def test_fate_is_told_in_words(results: dict[str, Any], page: str) -> None:
    fate = results["targets"][0]["tables"][0]["fate"]["NIR"]["equalized_odds@youden"]
    assert fate["value"] > 0
    sentence = f"FATE of accuracy and the gap in equalized odds, NIR against ERM: {fate['value']:.2f} (95 % interval"
    words = Page(page).words
    assert sentence in words
    assert "3 shared seeds). Relative to ERM, and with both taken together, gains outweigh losses" in words


def test_thresholds_have_method_seeds_and_validation_counts(results: dict[str, Any], page: str) -> None:
    record = results["targets"][0]["thresholds"]["NIR"]["youden"]
    values = ", ".join(f"{seed}: {value:.3f}" for seed, value in zip("123", record["by_seed"], strict=True))
    counts = f"{record['n_positive'][0]} {record['n_negative'][0]}"
    assert f"NIR youden the largest TPR − FPR (Youden) everyone {values} {counts} " in Page(page).words


def test_small_cells_are_masked_unless_asked(results: dict[str, Any], page: str) -> None:
    tiny = next(row for row in results["targets"][0]["tables"][1]["groups"] if row["name"] == "tiny")
    assert 0 < tiny["n"] < 10
    words = Page(page).words
    assert "tiny <10 <10 masked masked masked masked masked masked" in words
    # 600 cases minus north's would leave tiny's if south's were there.
    assert re.search(r"south masked masked 0\.\d{3} 0\.\d{3} to", words)
    assert "Counts below 10 are masked" in words
    shown = Page(build_page(results, show_small=True)).words
    assert f"tiny {tiny['n']} {tiny['n_positive']} " in shown
    assert "masked" not in shown.replace("unmasked", "")


def test_a_group_with_few_negatives_does_not_give_them_away(results: dict[str, Any]) -> None:
    few = copy.deepcopy(results)
    few["targets"][0]["tables"] = few["targets"][0]["tables"][:1]
    row = few["targets"][0]["tables"][0]["groups"][0]
    few["targets"][0]["overall"]["n_positive"] += row["n_negative"] - 4
    row["n_negative"], row["n_positive"] = 4, row["n"] - 4
    words = Page(build_page(few)).words
    assert f"{row['name']} {row['n']:,} masked masked masked" in words
    assert f"n positive {row['n'] - 4}" not in words


def test_an_empty_class_is_not_told_from_a_small_one_when_masked(simulated: Any) -> None:
    table = simulated(site="north")
    table.loc[(table["label"] == "0").to_numpy() & (table.index % 4 == 0), "site"] = "south"
    found = audit({"ERM": [check_predictions(table, "p.csv")]}, ["site"], permutations=20, resamples=100)
    page = build_page(found)
    assert "no positive in this group" not in page
    assert "AUC, TPR and Equalized odds: south (fewer than 10 positives or negatives)." in page
    assert "no positive in this group" in build_page(found, show_small=True)


def test_no_verdict_words(page: str) -> None:
    verdicts = r"\b(fair|unfair|fairness|unbiased|biased|debias\w*|pass(ed|es)?|fail(ed|s)?|good|bad|significant\w*)\b"
    assert re.findall(verdicts, Page(page).words, flags=re.IGNORECASE) == []


@BARE
def test_one_run_with_one_seed(simulated: Any) -> None:
    found = audit({"ERM": [check_predictions(simulated(), "p.csv")]}, ["sex"], permutations=20, resamples=100)
    words = Page(build_page(found)).words
    assert "ERM (1 seed) was audited on 600 test cases of 600 subjects." in words
    assert "Each run has one seed, so nothing is known about how much the numbers change" in words
    assert "Change" not in words.split("How to read this page")[1].split("By chance")[0]
    assert "seeds 0." not in words


@BARE
def test_without_validation_rows_the_page_uses_the_fixed_threshold(simulated: Any) -> None:
    found = audit(
        {"ERM": [check_predictions(simulated(split="test"), "p.csv")]}, ["sex"], permutations=20, resamples=100
    )
    words = Page(build_page(found)).words
    assert "There is no threshold by youden for ERM: no rows with split 'val'" in words
    assert "The same at" not in words
    assert "TPR and FPR at the fixed threshold 0.5." in words


@BARE
def test_several_classes_have_a_section_each(simulated: Any) -> None:
    table = simulated()
    table["score_0"], table["score_1"], table["score_2"] = table["score"], table["score"], table["score"]
    found = check_predictions(table.drop(columns="score"), "p.csv")
    page = Page(build_page(audit({"ERM": [found]}, ["sex"], permutations=20, resamples=100)))
    assert "Summary: class 2 versus the rest" in page.words
    assert len(page.ids) == len(set(page.ids))


@BARE
def test_missing_values_as_a_group(simulated: Any) -> None:
    runs = {"ERM": [check_predictions(simulated(), "p.csv")]}
    found = audit(runs, ["sex", "site"], missing="group", permutations=20, resamples=100)
    row = next(row for row in found["targets"][0]["tables"][0]["groups"] if row["name"] == "missing")
    words = Page(build_page(found)).words
    assert row["n"] == found["targets"][0]["tables"][0]["n_missing"] >= 10
    assert "sex missing: a group of their own" in words
    assert f"missing {row['n']} " in words


@BARE
def test_a_threshold_per_group_has_its_row(simulated: Any) -> None:
    runs = {"ERM": [check_predictions(simulated(), "p.csv")]}
    thresholds = ["youden by site", "sensitivity=0.9"]
    found = audit(runs, ["sex", "site"], thresholds=thresholds, permutations=20, resamples=100)
    record = found["targets"][0]["thresholds"]["ERM"]
    groups = record["youden by site"]["groups"][0]
    words = Page(build_page(found)).words
    north = next(group for group in groups if group["name"] == "north")
    # One of the sites has few validation cases: with the others' counts the total would tell them.
    assert min(group["n_positive"] for group in groups) < 10
    assert f"north 1: {north['threshold']:.3f} masked masked" in words
    assert "ERM sensitivity=0.9 a sensitivity of 0.9 everyone 1: " in words
    assert "The same at the threshold chosen on validation (sensitivity=0.9)" in words


@BARE
def test_subjects_are_counted_where_they_have_several_images(simulated: Any) -> None:
    twins = simulated(subject_id=[f"s{i // 2}" if i % 3 else f"v{i}" for i in range(900)])
    found = audit({"ERM": [check_predictions(twins, "p.csv")]}, ["sex"], permutations=20, resamples=100)
    row = found["targets"][0]["tables"][0]["groups"][0]
    assert row["n_subjects"] < row["n"]
    words = Page(build_page(found)).words
    assert f"{row['name']} {row['n']} {row['n_subjects']} " in words
    assert "Note: several images per subject (600 images of" in words


@BARE
def test_runs_without_a_shared_seed_have_no_change(simulated: Any) -> None:
    def seeds(names: str, first: int) -> list[Any]:
        return [check_predictions(simulated(first + i), f"seed_{name}/p.csv") for i, name in enumerate(names)]

    found = audit({"ERM": seeds("01", 0), "NIR": seeds("23", 5)}, ["sex"], permutations=20, resamples=100)
    words = Page(build_page(found)).words
    assert "From ERM to NIR the change of the gap is undefined, the runs share no seed." in words
    assert "FATE of the AUC and the gap in the AUC, NIR against ERM: undefined, the runs share no seed." in words


def test_names_in_other_scripts_are_drawn(simulated: Any) -> None:
    table = simulated()
    table["sex"] = table["sex"].replace({"female": "女性", "male": "ÄöÜ $x_1$ \\frac"})
    page = build_page(audit({"ERM": [check_predictions(table, "p.csv")]}, ["sex"], permutations=20, resamples=100))
    figure = page[page.index("<svg") : page.rindex("</svg>")]
    assert "女性" in figure
    assert "$x_1$ \\frac" in figure


def test_write_report_writes_all_files(results: dict[str, Any], page: str, tmp_path: Path) -> None:
    """The page is the same each time, and from JSON."""
    path = write_report(results, tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert path.read_text(encoding="utf-8") == page
    stored = read_json(tmp_path / "new" / "metrics.json", "audit")
    assert stored["targets"][0]["tables"][0]["name"] == "sex"
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["metrics.json", "model_card.md", "report.html"]
    assert build_page(stored) == page
