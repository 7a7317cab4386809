"""How often subgroups are claimed where there are none, and found where there are some: many cohorts from two pools.

    python benchmarks/discovery_rates.py --work DIR [--draws 100] [--planted-draws 40] [--pool 1000] [--jobs 4]
        [--set group_effect=0.25 ...] [--table benchmarks/results/discovery-rates.md]

Two populations are simulated and registered once, as the study does it, by a network fitted to 280 of their subjects:
one without any planted effect, and one with those of the default (or of `--set`). Every cohort is a draw without
replacement from one of them, with a share of one sex among the patients and of the other among the controls. Draws from
a pool share subjects, so they vary less than cohorts of new subjects would. Each cohort is searched as the study does
it; only the size of the brain is taken out with one regression for the whole pool.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from morphology import change, setting_name
from morphology_arms import GROUP, STUDY, CohortStudy
from morphology_detection import read_rows
from scipy.stats import binomtest
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from monai_fair.data.artifacts import read_json, write_json
from monai_fair.parallel import run_all
from monai_fair.simulation import simulate_brain_from_options
from monai_fair.subgroups import discover

KIND = "discovery_rates"
POOLS = {"none": {"group_effect": 0.0, "disease_effect": 0.0}, "planted": {}}
_FIT, _VAL = 280, 20  # subjects of a pool that its registration is fitted to and watched on
# subjects in a cohort, and the share of patients who are men and of controls who are women
COHORTS = {
    "none": [(280, 0.85), (180, 0.85), (120, 0.85), (80, 0.85), (40, 0.85)],
    "planted": [(280, 0.5), (280, 0.7), (280, 0.85), (280, 0.95), (180, 0.85), (120, 0.85), (80, 0.85), (40, 0.85)],
}


def registered_pool(folder: Path, size: int, changes: Mapping[str, Any]) -> CohortStudy:
    """Simulate a population without an association, and register all of it."""
    study = CohortStudy(folder.resolve(), 0, ())
    shares = {"train_share": _FIT / size, "val_share": _VAL / size, "correlation": 0.0}
    simulate_brain_from_options(study.data, n=size, spacing=3, seed=0, **{**shares, **changes})
    study.part("fit").run()
    study.part("registration", {"register_overrides": {"exports": ["logdet"]}}).run()
    return study


def drawn(
    group: npt.NDArray[Any], label: npt.NDArray[Any], size: int, share: float, seed: Sequence[int]
) -> npt.NDArray[Any]:
    """Return the rows of one cohort: half of them patients, ``share`` of those of one group."""
    random = np.random.default_rng(seed)
    first = sorted(set(group))[1]
    rows = []
    for patient, name_share in ((1, share), (0, 1 - share)):
        most = round(size / 2 * name_share)
        for is_first, count in ((True, most), (False, size // 2 - most)):
            cell = np.flatnonzero((label == patient) & ((group == first) == is_first))
            rows.append(random.choice(cell, count, replace=False))
    return np.sort(np.concatenate(rows))


def search(seed: int, study: CohortStudy, size: int, share: float, values: Any, positions: Any) -> dict[str, Any]:
    """Search one cohort, and compare what is claimed with the truth."""
    table = study.cohort().table
    group, label = table[GROUP].to_numpy(), table["label"].to_numpy(int)
    rows = drawn(group, label, size, share, [seed, size, round(100 * share)])
    with threadpool_limits(1):
        found = discover([values], table["subject_id"].iloc[rows].tolist(), positions=positions, seed=seed)
    others = np.setdiff1d(np.arange(len(table)), rows)
    names = np.array(found.subgroup)
    best = min((each for each in found.candidates if each.method == "local"), key=lambda each: each.p)
    return {
        "seed": seed,
        "claimed": found.chosen is not None,
        "method": None if found.chosen is None else found.candidates[found.chosen].method,
        "p": best.p,
        "valley_p": best.valley_p,
        "stability": best.stability,
        "ari": adjusted_rand_score(group[rows], names[rows]),
        "ari_unseen": adjusted_rand_score(group[others], names[others]),
    }


def rates(study: CohortStudy, pool: str, draws: int, jobs: int) -> pd.DataFrame:
    """Search all cohorts of a pool; what was searched before is read."""
    written = read_rows(study, [STUDY])
    tables = []
    for size, share in COHORTS[pool]:
        path = study.folder / f"rates/{pool}_{size}_{share}_{draws}.json"
        if not path.is_file():
            one = partial(
                search, study=study, size=size, share=share, values=written.representations[0],
                positions=written.positions,
            )  # fmt: skip
            outcomes = run_all(one, list(range(draws)), workers=jobs, description=f"{pool} {size} {share}")
            errors = [each.error for each in outcomes if each.error]
            if errors:
                raise RuntimeError(errors[0])
            write_json(path, KIND, {"rows": [each.value for each in outcomes]})
        tables.append(pd.DataFrame(read_json(path, KIND)["rows"]).assign(pool=pool, size=size, share=share))
    return pd.concat(tables)


def page(tables: pd.DataFrame, size: int, changes: Mapping[str, Any]) -> str:
    """Return the Markdown page."""
    planted = " ".join(f"{key} {value}" for key, value in changes.items()) or "the defaults of `simulate brain`"
    lines = [
        "# How often subgroups are claimed",
        "",
        f"`python benchmarks/discovery_rates.py`: two simulated populations of {size} subjects of 3 mm, one without a "
        f"planted effect, one with {planted}; each registered by a network fitted to {_FIT} of its subjects. Cohorts "
        "are draws from them; draws share subjects, so that the intervals (Wilson, 95 %) leave out how populations "
        "differ. `discover` as the study has it (log Jacobian, local and mixture, alpha 0.05); the size of the brain "
        "is taken out by one regression for the population. ARI is with the true sex, 0 where nothing is claimed; "
        "unseen are the subjects of the population that are not in the cohort. Stability and p are those of the local "
        "search.",
        "",
        "| planted | subjects | share of the patients who are men | claimed | ARI, mean (lowest) | ARI unseen | "
        "stability (5 %, median, 95 %) | median p of scan and valley (the larger), of the valley |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (pool, count, share), rows in tables.groupby(["pool", "size", "share"], sort=False):
        claims = int(rows["claimed"].sum())
        low, high = binomtest(claims, len(rows)).proportion_ci(method="wilson")
        spread = ", ".join(f"{value:.2f}" for value in rows["stability"].quantile([0.05, 0.5, 0.95]))
        found = pool != "none"
        ari = f"{rows['ari'].mean():.3f} ({rows['ari'].min():.2f})" if found else ""
        unseen = f"{rows['ari_unseen'].mean():.3f}" if found else ""
        lines.append(
            f"| {pool} | {count} | {share} | {claims} of {len(rows)} ({low:.3f} to {high:.3f}) | {ari} | {unseen} "
            f"| {spread} | {rows['p'].median():.3f}, {rows['valley_p'].median():.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Register the pools, search the cohorts, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=100, help="from the population without an effect")
    parser.add_argument("--planted-draws", type=int, default=40)
    parser.add_argument("--pool", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--set", type=change, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    changes = dict(options.set)
    tables = []
    draws = {"none": options.draws, "planted": options.planted_draws}
    for pool, effects in POOLS.items():
        own = {**changes, **effects}
        study = registered_pool(options.work / f"pool_{setting_name(own, None)}", options.pool, own)
        tables.append(rates(study, pool, draws[pool], options.jobs))
    text = page(pd.concat(tables), options.pool, changes)
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
