"""How group thresholds drawn towards the pooled or the shifted one do, where the true rates are known.

    python benchmarks/thresholds.py [--repeats 200] [--out benchmarks/results/thresholds.md]

Eight groups of the sizes of a validation split of a few hundred to a few thousand cases; logits of negatives and
positives are normal. Groups differ by a shift, and beyond it in how far the classes lie apart and in the spread of
positives. Thresholds are fitted on drawn cases and judged on the distributions themselves: no test set adds noise.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm

from monai_fair.metrics import ThresholdFitter

# Positives and negatives of the eight joint groups of sex, race and age.
COUNTS = np.array([[31, 80], [81, 70], [26, 184], [90, 204], [44, 302], [153, 345], [32, 576], [134, 833]])
SHARES = (1.0, 0.35)
WORLDS = {"small shift": (0.3, 0.15), "large shift": (1.0, 0.15), "large shift, other shapes": (1.0, 0.3)}
SHRINKAGES = (0, 10, 20, 30, 60)
APART = 1.5  # mean distance of the classes, in standard deviations


def gap(world: tuple[float, float], share: float, rng: np.random.Generator) -> dict[str, float]:
    """Delta EO of every way to choose thresholds, for one drawn validation split."""
    spread, misfit = world
    groups = len(COUNTS)
    shift, apart = rng.normal(0, spread, groups), APART + rng.normal(0, misfit, groups)
    wide = np.exp(rng.normal(0, misfit, groups))
    positive, score, names = [], [], []
    for place, (own, others) in enumerate((COUNTS * share).astype(int)):
        drawn = [apart[place] / 2 + wide[place] * rng.normal(size=own), -apart[place] / 2 + rng.normal(size=others)]
        score.append(shift[place] + np.concatenate(drawn))
        positive += [True] * own + [False] * others
        names += [str(place)] * (own + others)
    table, every = pd.DataFrame({"group": names}), pd.DataFrame({"group": [str(place) for place in range(groups)]})

    def judged(fitter: ThresholdFitter) -> float:
        fitted = fitter.fit(np.array(positive), expit(np.concatenate(score)), table, split="val")
        cut: npt.NDArray[np.float64] = logit(fitted.for_groups(every)) - shift
        rates = [norm.sf((cut - apart / 2) / wide), norm.cdf(cut + apart / 2)]
        return float(np.ptp(rates, axis=1).max())

    found = {"one for all": judged(ThresholdFitter("min_gap"))}
    for towards in ("pooled", "shifted"):
        for shrinkage in SHRINKAGES:
            fitter = ThresholdFitter(
                "min_gap", attributes=["group"], min_count=1, shrinkage=shrinkage, towards=towards
            )  # fmt: skip
            found[f"{towards} {shrinkage}"] = judged(fitter)
    return found


def main() -> None:
    """Print the table, and write it when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    columns = {}
    for title, world in WORLDS.items():
        for share in SHARES:
            rng = np.random.default_rng(0)
            rows = pd.DataFrame([gap(world, share, rng) for _ in range(options.repeats)])
            columns[f"{title}, {int((COUNTS * share).astype(int).sum())} cases"] = rows.mean()
    table = pd.DataFrame(columns)
    lines = [
        "# Thresholds of groups: towards what, and how far",
        "",
        f"`python benchmarks/thresholds.py --repeats {options.repeats}`: mean delta EO over drawn validation splits, "
        "judged on the true distributions. Eight groups; a row is what a group's own min-gap threshold is drawn "
        "towards and the number of cases at which both weigh the same (0: its own). A shift has a standard deviation "
        "of 0.3 or 1 of that of the logits within a class.",
        "",
        "| towards, shrinkage | " + " | ".join(table.columns) + " |",
        "|" + "---|" * (len(table.columns) + 1),
        *(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |" for name, row in table.iterrows()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
