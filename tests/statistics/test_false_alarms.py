"""How often the permutation test of a gap speaks: where there is none, and where one is planted."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

# A test takes about a minute of one core, and more where cores are shared.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# name: groups, prevalences, subjects per group, images per subject, audits
EQUAL = {
    f"{groups} groups of {subjects}{', several images' if images > 1 else ''}, prevalence {spread}": (
        groups,
        np.linspace(*spread, groups),
        subjects,
        images,
        audits,
    )
    for subjects, images, audits in ((50, 1, 300), (500, 1, 150), (100, 5, 150))
    for groups in (2, 4, 8)
    for spread in ((0.4, 0.4), (0.2, 0.5))
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_groups_give_few_alarms(name: str, simulation: Any, tally: Any) -> None:
    _, prevalences, subjects, images, audits = EQUAL[name]
    populations = [simulation.Population(prevalence=float(prevalence)) for prevalence in prevalences]
    for seed in range(audits):
        drawn = simulation.draw(np.random.default_rng(seed), populations, subjects, images=images)
        found = simulation.predictions(drawn, drawn.scores(populations), {"group": drawn.names})
        (table,) = simulation.audit(found, seed=seed, permutations=199)
        for key, gap in table["gaps"]["run 0"].items():
            if not np.isnan(gap["p"]):
                tally.add(key, gap["p"] < 0.05)
    tally.show(f"p below 0.05 without a gap: {name}")
    assert not tally.missing(most=0.07)


def test_a_family_of_attributes_gives_few_adjusted_alarms(simulation: Any, tally: Any) -> None:
    populations = [simulation.Population(prevalence=0.4)] * 2
    for seed in range(250):
        rng = np.random.default_rng(seed)
        drawn = simulation.draw(rng, populations, 150)
        names = {"a": drawn.group, "b": rng.integers(0, 2, drawn.y.size), "c": rng.integers(0, 3, drawn.y.size)}
        attributes = {name: codes.astype(str) for name, codes in names.items()}
        found = simulation.predictions(drawn, drawn.scores(populations), attributes)
        tables = simulation.audit(found, seed=seed, permutations=399, pairs=True)
        for key in tables[0]["gaps"]["run 0"]:
            adjusted = [table["gaps"]["run 0"][key]["p_holm"] for table in tables]
            tally.add(key, np.nanmin(adjusted) < 0.05)
    tally.show("Any adjusted p below 0.05 among 3 attributes and 4 intersections, without a gap")
    assert not tally.missing(most=0.07)


@pytest.mark.parametrize("positives", [100, 300, 1000])
@pytest.mark.parametrize("gap", [0.1, 0.2])
def test_power_for_a_planted_gap(gap: float, positives: int, simulation: Any, tally: Any) -> None:
    populations = [simulation.Population(), simulation.Population.with_lower_tpr(gap)]
    for seed in range(100):
        drawn = simulation.draw(np.random.default_rng(seed), populations, 2 * positives)
        found = simulation.predictions(drawn, drawn.scores(populations), {"group": drawn.names})
        (table,) = simulation.audit(found, seed=seed, permutations=199)
        for key, row in table["gaps"]["run 0"].items():
            tally.add(key, row["p"] < 0.05)
    tally.show(f"p below 0.05 with a TPR lower by {gap} in one of two groups, about {positives} positives in each")
    # With one image per subject the test shuffles hits among positives: Fisher's exact test, up to sampled shuffles.
    expected = power_of_fisher(0.72, 0.72 - gap, positives) if positives < 1000 else 0.99
    assert not tally.missing(least=expected, keys=[f"tpr@{simulation.rule}"])


def power_of_fisher(first: float, second: float, n: int) -> float:
    """Power of Fisher's exact test at 0.05 between two rates of ``n`` cases each."""
    power = 0.0
    for hits in range(2 * n + 1):
        one = np.arange(max(0, hits - n), min(n, hits) + 1)
        chance = hypergeom.pmf(one, 2 * n, hits, n)
        far = np.abs(2 * one - hits)
        p = np.array([chance[far >= distance].sum() for distance in far])
        power += (binom.pmf(one, n, first) * binom.pmf(hits - one, n, second))[p < 0.05].sum()
    return power
