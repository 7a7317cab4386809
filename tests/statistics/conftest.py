"""Simulated cases whose true values are known, audits of them, and tables of what was found."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

from monai_fair.data.predictions import Predictions
from monai_fair.metrics import audit
from monai_fair.metrics.definitions import METRICS

RULE = "0.5"
KEYS = tuple(key if metric.of_scores else f"{key}@{RULE}" for key, metric in METRICS.items())
# The score is 0.5 at this latent value.
_CUT = (0.2 / 0.8 + 1.125) / 1.5


def _score(latent: Any) -> Any:
    # With 1.5 between the classes log odds are 1.5 x - 1.125 + logit(prevalence); these scores are off in both terms.
    return expit(-0.2 + 0.8 * (1.5 * latent - 1.125)).round(4)


@dataclass(frozen=True)
class Population:
    """Latent values, normal within each class; scores are a miscalibrated logistic of them.

    Attributes:
        positive: mean latent value of positives; negatives have 0.
        prevalence: share of positives.
    """

    positive: float = 1.5
    prevalence: float = 0.5

    @classmethod
    def with_lower_tpr(cls, gap: float, prevalence: float = 0.5) -> "Population":
        """A population whose true positive rate at 0.5 is lower by ``gap`` than that of the default."""
        return cls(float(_CUT + norm.ppf(norm.sf(_CUT - 1.5) - gap)), prevalence)

    def counts(self) -> tuple[Any, Any]:
        """20,000 quantiles of each class as weighted cases: score counts ``(2, K)`` and scores ``(K,)``."""
        at = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
        scores, index = np.unique(_score(np.concatenate([at, at + self.positive])), return_inverse=True)
        y = np.repeat([False, True], at.size)
        weight = np.where(y, self.prevalence, 1 - self.prevalence)
        return np.stack([np.bincount(index, weight * chosen, minlength=scores.size) for chosen in (~y, y)]), scores

    def truth(self) -> dict[str, float]:
        """Every quantity of the population."""
        counts, scores = self.counts()
        above = scores >= float(RULE)
        confusion = np.stack([counts[:, ~above].sum(axis=1), counts[:, above].sum(axis=1)], axis=-1)
        found = {}
        for key, metric in zip(KEYS, METRICS.values(), strict=True):
            if metric.of_predictions is not None:
                found[key] = float(metric.of_predictions(confusion))
            elif metric.of_scores is not None:
                found[key] = float(metric.of_scores(counts[None], scores)[0])
        return found


@dataclass(frozen=True)
class Drawn:
    """Cases of several groups: truth, group, subject, and a standard normal deviation of each."""

    y: Any
    group: Any
    subject: Any
    deviation: Any

    @property
    def names(self) -> Any:
        """Name of each case's group."""
        return np.char.add("g", self.group.astype(str))

    def scores(self, populations: Sequence[Population], *, other: Any = None, correlation: float = 0.8) -> Any:
        """Scores of a run; with ``other`` deviations those of a second run, correlated with the first."""
        noise = self.deviation
        if other is not None:
            noise = correlation * noise + np.sqrt(1 - correlation**2) * other
        return _score(noise + self.y * np.array([population.positive for population in populations])[self.group])


class Simulation:
    """Draws cases and audits them."""

    keys = KEYS
    rule = RULE
    Population = Population

    def draw(
        self,
        rng: np.random.Generator,
        populations: Sequence[Population],
        subjects: int,
        *,
        fixed: bool = False,
        images: int = 1,
    ) -> Drawn:
        """Draw ``subjects`` of every group.

        Args:
            rng: generator.
            populations: one per group.
            subjects: number in each group.
            fixed: the prevalence is exact in every group; else each subject's truth is drawn.
            images: a subject has 1 to ``images`` images, all of one truth.
        """
        code = np.repeat(np.arange(len(populations)), subjects)
        prevalence = np.array([population.prevalence for population in populations])[code]
        exact = np.tile(np.arange(subjects), len(populations)) < np.round(prevalence * subjects)
        truth = exact if fixed else rng.random(code.size) < prevalence
        subject = np.repeat(np.arange(code.size), rng.integers(1, images + 1, code.size))
        return Drawn(truth[subject], code[subject], subject, self.deviations(rng, subject))

    def deviations(self, rng: np.random.Generator, subject: Any) -> Any:
        """Standard normal deviations; those of one subject correlate by 0.6."""
        within = 0.6 if np.bincount(subject).max() > 1 else 0.0
        shared = rng.normal(size=subject.max() + 1)[subject]
        return np.sqrt(within) * shared + np.sqrt(1 - within) * rng.normal(size=subject.size)

    def predictions(self, drawn: Drawn, score: Any, attributes: dict[str, Any]) -> Predictions:
        """Predictions of the cases; a case with an empty attribute is in no group of it."""
        image = np.arange(drawn.y.size).astype(str)
        table = pd.DataFrame({"subject_id": drawn.subject.astype(str), "image": image, "split": "test"})
        table = table.assign(label=drawn.y.astype(int), score=score, **attributes)
        return Predictions(table, ("score",), tuple(attributes), "simulated")

    def audit(
        self, *runs: Predictions, seed: int, resamples: int = 100, permutations: int = 1, pairs: bool = False
    ) -> Any:
        """Tables of the audit; runs are named ``run 0``, ``run 1``.

        Each repetition needs a ``seed`` of its own: with the same resamples and shuffles all would err alike.
        """
        named = {f"run {index}": [run] for index, run in enumerate(runs)}
        return audit(
            named,
            runs[0].attributes,
            intersections=pairs,
            thresholds=[RULE],
            resamples=resamples,
            permutations=permutations,
            seed=seed,
        )["targets"][0]["tables"]


class Tally:
    """Shares of something that happened, by key, and of those that miss a bound by more than chance."""

    def __init__(self) -> None:
        self.hits: dict[str, list[bool]] = {}

    def add(self, key: str, happened: bool) -> None:
        """Note one case."""
        self.hits.setdefault(key, []).append(bool(happened))

    def inside(self, key: str, low: float, high: float, truth: float) -> None:
        """Note whether an interval covers the truth; one that is undefined is not counted."""
        if not np.isnan(low):
            self.add(key, low - 1e-9 <= truth <= high + 1e-9)

    def missing(self, *, least: float = 0.0, most: float = 1.0, keys: Iterable[str] | None = None) -> dict[str, str]:
        """Keys whose share is outside ``least`` to ``most`` by more than 2.5 Monte Carlo standard errors."""
        found = {}
        for key in self.hits if keys is None else keys:
            share, n = float(np.mean(self.hits[key])), len(self.hits[key])
            low = least - 2.5 * np.sqrt(least * (1 - least) / n)
            high = most + 2.5 * np.sqrt(most * (1 - most) / n)
            if not low <= share <= high:
                found[key] = f"{share:.3f} of {n}"
        return found

    def show(self, title: str) -> None:
        """Print a table: share in percent, its Monte Carlo standard error, and n."""
        lines = [f"\n{title}", f"{'':<34} percent  error      n"]
        for key, hits in self.hits.items():
            share, n = float(np.mean(hits)), len(hits)
            lines.append(f"{key:<34} {100 * share:7.1f}  {100 * np.sqrt(share * (1 - share) / n):5.1f}  {n:5d}")
        print("\n".join(lines))  # noqa: T201


@pytest.fixture(scope="session")
def simulation() -> Simulation:
    return Simulation()


@pytest.fixture
def tally() -> Tally:
    return Tally()
