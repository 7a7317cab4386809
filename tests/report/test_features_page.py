"""The section of features on the page: values over seeds, what is masked, and dots that tell nobody apart."""

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit, t_interval
from monai_fair.report import build_page
from monai_fair.report.embedding_figures import embedding_figure

pytestmark = pytest.mark.usefixtures("bare_pages")

HOSTILE = "<script>alert(1)</script>"
CASES = 200
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


def probe(layer: str, seed: str, attribute: str, stratum: str, auc: float, **more: Any) -> dict[str, Any]:
    counts = {"n": 590, "n_fitted": 280, "n_missing_fitted": 20, "reason": None}
    return {"seed": seed, "layer": layer, "attribute": attribute, "stratum": stratum, "auc": auc, **counts, **more}


def record(
    aucs: Mapping[str, tuple[float, ...]],
    *,
    alone: float = 0.6,
    attributes: tuple[str, ...] = ("sex", "site"),
    pictured: bool = True,
) -> dict[str, Any]:
    """A run with an AUC per seed in every layer, within label 0.1 lower."""
    seeds = [str(number) for number in range(1, 1 + max(len(own) for own in aucs.values()))]
    plane = {axis: list(range(0, 5 * CASES, 5)) for axis in "xy"}
    drawn = {"reason": None, "variance": [0.4, 0.2], "pca": plane, "tsne": plane}
    none = {"reason": "fewer than 10 cases"}
    return {
        "files": ["layers.safetensors"] * len(seeds),
        "seeds": seeds,
        "probes": [
            probe(layer, seed, name, stratum, value - (0.1 if stratum == "label" else 0.0))
            for layer, values in aucs.items()
            for seed, value in zip(seeds, values, strict=False)
            for name in attributes
            for stratum in ("all", "label")
        ],
        "label_alone": [probe("", seed, name, "all", alone) for seed in seeds for name in attributes],
        "pictures": [{"seed": "1", "layer": layer, **(drawn if pictured else none)} for layer in aucs],
    }


def cases_of(n_joint: list[int] | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "n": 600,
        "label": rng.integers(2, size=CASES).tolist(),
        "attributes": {"sex": rng.choice(["female", "male"], CASES).tolist(), "site": ["north"] * CASES},
        "n_joint": n_joint or [50] * CASES,
        "panel": (np.arange(CASES) % 4).tolist(),
    }


def with_features(results: dict[str, Any], runs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**results, "features": {"most_fitted": 2000, "cases": cases_of(), "runs": runs, **more}}


def part_of(page: str) -> str:
    return page[page.index('<h2 id="features">') : page.index('id="read"')]


def words_of(page: str) -> str:
    part = re.sub(r"<svg.*?</svg>", "", part_of(page), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", part))


def dots(svg: str) -> list[tuple[str, str]]:
    """Place and colour of every dot."""
    found = []
    for path, colour in re.findall(
        r'<path d="([^"]*)"[^>]*style="fill: none; stroke: (#[0-9a-f]{6}); stroke-width: 3', svg
    ):
        found += [(f"{x} {y}", colour) for x, y in re.findall(r"M (\S+) (\S+) \s*L \1 \2", path)]
    return found


@pytest.fixture(scope="module")
def page(results: dict[str, Any]) -> str:
    runs = {"ERM": record({"embedding": (0.8, 0.82, 0.9)}), "NIR": record({"embedding": (0.6, 0.6, 0.6), "mu": (0.7,)})}
    return build_page(with_features(results, runs))


def test_mean_and_interval_over_seeds(page: str) -> None:
    mean, low, high = t_interval([0.8, 0.82, 0.9])
    words = words_of(page)
    assert f"embedding {mean:.3f} {low:.3f} to {high:.3f}" in words
    assert "NIR embedding 0.600 every seed 0.500 every seed" in words
    assert "mu 1 seed of 3 0.700 one seed 0.600 one seed" in words
    assert "fitted on at most 2,000 cases" in words
    assert "n 590; fitted on 280" in words


def test_the_label_alone_stands_once_where_it_is_the_same(results: dict[str, Any], page: str) -> None:
    words = words_of(page)
    assert "all runs the label alone 0.600 every seed 0.5 by definition masked 0.5 by definition ERM embedding" in words
    assert words.count("the label alone 0.") == 1
    runs = {
        "ERM": record({"mu": (0.8,)}, pictured=False),
        "NIR": record({"mu": (0.8,)}, alone=0.7, pictured=False),
    }
    words = words_of(build_page(with_features(results, runs)))
    assert "ERM the label alone 0.600" in words
    assert "NIR the label alone 0.700" in words
    words = words_of(build_page(with_features(results, {"ERM": runs["ERM"]})))
    assert "all runs" not in words


def test_an_attribute_with_a_small_group_is_masked_unless_asked(results: dict[str, Any]) -> None:
    """Of site's levels one has 6 cases."""
    found = with_features(results, {"ERM": record({"mu": (0.8, 0.82, 0.9)}, pictured=False)})
    words = words_of(build_page(found))
    assert "site n masked; fitted on 280" in words
    assert re.search(r"ERM the label alone .* mu 0\.840 \S+ to \S+ 0\.740 \S+ to \S+ masked masked", words)
    shown = words_of(build_page(found, show_small=True))
    assert "site n 590; fitted on 280" in shown
    assert "masked" not in shown


def test_few_positives_mask_what_is_told_within_the_label_only(simulated: Any) -> None:
    table = simulated()
    table.loc[(table["sex"] == "male").to_numpy() & (table.index % 100 > 0), "label"] = "0"
    found = audit({"ERM": [check_predictions(table, "p.csv")]}, ["sex"], permutations=20, resamples=100)
    assert found["targets"][0]["tables"][0]["groups"][1]["n_positive"] < 10
    own = with_features(found, {"ERM": record({"mu": (0.8,)}, attributes=("sex",))})
    own["features"]["cases"]["attributes"].pop("site")
    assert "mu 0.800 one seed masked" in words_of(build_page(own))


def test_few_fitted_cases_without_a_value_are_not_told(results: dict[str, Any]) -> None:
    few = record({"mu": (0.8,)}, pictured=False)
    for row in few["probes"]:
        row["n_missing_fitted"] = 3
    assert "sex n 590; fitted on masked" in words_of(build_page(with_features(results, {"ERM": few})))


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("expected two levels with 5 rows in val, got f 996, m 4", "too few fitted or audited cases of a level"),
        ("class 0: expected every level in test, got 1", "too few fitted or audited cases of a level"),
        ("expected two levels with 5 rows in val, got none", None),
        ("class 0: expected two levels in val, got none; class 1: expected two levels in val, got none", None),
        ("the audited rows ('val') are those a probe is fitted on", None),
    ],
)
def test_undefined_has_its_reason_without_small_counts(results: dict[str, Any], reason: str, shown: str | None) -> None:
    own = record({"mu": (0.8, 0.7, 0.6)}, pictured=False)
    own["probes"][0] |= {"auc": None, "reason": reason}
    found = with_features(results, {"ERM": own})
    assert f"mu undefined {(shown or reason).replace(chr(39), '&#39;')} 0.600" in words_of(build_page(found))
    assert reason.replace("'", "&#39;") in words_of(build_page(found, show_small=True))


def test_a_page_from_json_is_the_same(results: dict[str, Any]) -> None:
    own = record({"mu": (0.8, float("nan"), 0.6)})
    own["probes"][4]["reason"] = "expected two levels with 5 rows in val, got none"
    found = with_features(results, {"ERM": own})
    plain = json.loads(json.dumps(found).replace("NaN", "null"))
    assert build_page(plain) == build_page(found)


def test_one_layer_of_a_run_is_open_and_the_others_are_folded(results: dict[str, Any]) -> None:
    own = record({"attribute_embedding": (0.8,), "embedding": (0.8,), "mu": (0.9,)})
    own["pictures"][2] = {"seed": "1", "layer": "mu", "reason": "most cases have the same features as others"}
    part = part_of(build_page(with_features(results, {"ERM": own})))
    opened, folded = part.split("<details>")
    assert "ERM, seed 1: embedding." in opened
    assert "ERM, seed 1: attribute_embedding." in folded.split("</details>")[0]
    assert "No picture of ERM: mu (most cases have the same features as others)." in folded
    assert part.count("<svg ") == 2


def test_hostile_names_are_escaped(results: dict[str, Any]) -> None:
    found = with_features(results, {HOSTILE: record({HOSTILE: (0.8,)})})
    found["features"]["cases"]["attributes"]["sex"] = [HOSTILE] * CASES
    part = part_of(build_page(found))
    assert HOSTILE not in part
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in part


def draw(cases: dict[str, Any], *, least: int = 10, show_small: bool = False, **changed: Any) -> str | None:
    picture = {**record({"mu": (0.8,)})["pictures"][0], **changed}
    return embedding_figure(picture, cases, name="mu of ERM", least=least, show_small=show_small)


def test_a_case_is_in_one_panel_only() -> None:
    """Three of four parts of the cases are drawn, each in one panel of the two methods: other places in each."""
    svg = draw(cases_of())
    assert svg is not None
    # the title of a panel comes after its dots
    panels = [dots(part) for part in re.split(r"by (?:label|sex|site)<", svg)[:-1]]
    assert [len(panel) for panel in panels] == [CASES // 4] * 6
    left = [min(float(place.split()[0]) for place, _ in panel) for panel in panels[:3]]
    assert left[0] < left[1] < left[2]
    shown = draw(cases_of(), show_small=True)
    assert shown is not None
    assert len(dots(shown)) == 2 * 3 * CASES


def test_dots_have_the_colour_of_their_level() -> None:
    cases = cases_of()
    cases["panel"] = [1] * CASES
    svg = draw(cases)
    assert svg is not None
    colours = [colour for _, colour in dots(svg)]
    female = cases["attributes"]["sex"].count("female")
    assert (colours.count(COLOURS[0]), colours.count(COLOURS[1])) == (2 * female, 2 * (CASES - female))
    # from left to right the places of one method are those of the cases
    first = sorted((float(place.split()[0]), colour) for place, colour in dots(svg.split("t-SNE, by label")[0]))
    levels = [COLOURS[("female", "male").index(level)] for level in cases["attributes"]["sex"]]
    assert [colour for _, colour in first] == levels


def test_cases_of_small_joint_groups_are_not_drawn() -> None:
    n_joint = [9 if number < 60 else 10 for number in range(CASES)]
    svg = draw(cases_of(n_joint))
    assert svg is not None
    assert len(dots(svg)) == 2 * (CASES - 60) * 3 // 4
    assert draw(cases_of([9] * CASES)) is None
    assert draw(cases_of([9] * CASES), show_small=True) is not None


def test_levels_of_cases_that_are_not_drawn_are_not_named() -> None:
    cases = cases_of([3] + [10] * (CASES - 1))
    cases["attributes"]["site"][0] = "rare"
    assert "rare" not in str(draw(cases))
    assert "rare" in str(draw(cases, show_small=True))


def test_many_levels_share_a_colour_and_missing_has_its_own() -> None:
    cases = cases_of()
    # level_0 is the rarest
    levels = [f"level_{min(number % 10, number // 20)}" for number in range(CASES)]
    cases["attributes"]["site"] = ["" if number % 50 == 7 else level for number, level in enumerate(levels)]
    svg = str(draw(cases, show_small=True))
    assert "4 other levels" in svg
    assert ">missing<" in svg
    assert svg == str(draw(cases, show_small=True))
    named = re.findall(r">\u200b(level_\d)<", svg)
    counts = {level: cases["attributes"]["site"].count(level) for level in set(levels)}
    assert len(set(named)) == 6
    assert min(counts[level] for level in set(named)) >= max(counts[level] for level in set(levels) - set(named))


def test_no_dot_no_pictures(results: dict[str, Any]) -> None:
    found = with_features(copy.deepcopy(results), {"ERM": record({"mu": (0.8,)})}, cases=cases_of([3] * CASES))
    part = part_of(build_page(found))
    assert "No pictures: every joint group has fewer than 10 subjects." in part
    assert "<svg " not in part
