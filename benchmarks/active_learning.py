"""Labels needed until the worse-off group is served well, by how images are chosen: simulated annotation.

    python benchmarks/active_learning.py --work DIR [--seeds 5] [--first 5] [--workers N] [--quick]
        [--out benchmarks/results/active-learning.md]

Skin images of which a share shows women, whose lesions are fainter and photographs cooler. An annotator starts with a
few images at random and is then given one after the other by a rule of monai_fair.label; after every batch a small
network is trained anew on all labels and measured on a fixed test set. Runs that are finished are not run again.
"""

import argparse
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from active_learning_table import page
from PIL import Image
from torch import nn

from monai_fair.data import balancing_weights
from monai_fair.data.artifacts import fingerprint, read_json, write_json
from monai_fair.label.audit_bounds import AuditBounds, Bound
from monai_fair.label.group_rules import least_represented, worst_subgroup
from monai_fair.label.image_groups import ImageFacts
from monai_fair.label.image_table import ImageTable, build_table
from monai_fair.label.next_image import DEFAULT_MIX
from monai_fair.label.selection import Rule, choose, mix, uncertain
from monai_fair.label.sidecar import NONE, ImageScores
from monai_fair.metrics import ThresholdFitter, auc_interval
from monai_fair.parallel import run_all
from monai_fair.simulation import SkinCohort, simulate_skin

STRATEGIES = ("random", "first", "least_represented", "worst_subgroup", "uncertain", "mix")
LEARNING = ("worst_subgroup", "uncertain")  # need scores of labelled images that the network was not trained on
PLANTED = {"contrast_gap": 0.3, "harder_group": "female", "cue_strength": 1.0, "signal": 4.0, "prevalence": 0.4}
SWITCHED_OFF = {"correlation": 0.0, "label_bias": 0.0, "age_slope": 0.0, "unknown_sex": 0.0, "missing_age": 0.0}
MALE_SHARE, SIZE, FOLDS = 0.85, 32, 3
GROUPS = ("female", "male")


@dataclass(frozen=True)
class Plan:
    """How much is simulated."""

    pool: int = 2400
    test: int = 2400
    start: int = 40
    batch: int = 40
    rounds: int = 12
    steps: int = 200

    @property
    def counts(self) -> list[int]:
        """Labels at each training."""
        return [self.start + self.batch * number for number in range(self.rounds)]


QUICK = Plan(pool=600, test=600, rounds=3, steps=40)


@dataclass(frozen=True)
class Cohort:
    """Images in memory: float32 ``(n, 3, 32, 32)``, and what is known of them."""

    images: torch.Tensor
    table: pd.DataFrame  # image_id, lesion, label, sex

    @property
    def labels(self) -> np.ndarray:
        """0 or 1."""
        return self.table["label"].to_numpy()

    @property
    def sex(self) -> np.ndarray:
        """One of the groups."""
        return self.table["sex"].to_numpy()


def simulate(folder: Path, *, n: int, seed: int, male_share: float) -> None:
    """Write a cohort, and its images decoded once."""
    if (folder / "images.npy").is_file():
        return
    cohort = SkinCohort(male_share=male_share, **PLANTED, **SWITCHED_OFF)
    simulate_skin(folder, n=n, seed=seed, size=SIZE, cohort=cohort)
    truth = pd.read_csv(folder / "truth.csv")
    files = {path.stem: path for path in folder.rglob("*.jpg")}
    np.save(folder / "images.npy", np.stack([np.asarray(Image.open(files[name])) for name in truth["image_id"]]))


def load(folder: Path) -> Cohort:
    """Read a cohort; all its images, whatever split it has."""
    pixels = torch.from_numpy(np.load(folder / "images.npy")).permute(0, 3, 1, 2).float()
    truth = pd.read_csv(folder / "truth.csv")
    lesion = truth["lesion_id"].str.removeprefix("HAM_").astype(int)
    table = truth[["image_id", "sex"]].assign(lesion=lesion, label=truth["malignant"])
    return Cohort((pixels / 255 - 0.6) / 0.25, table)


def network() -> nn.Sequential:
    """Four convolutions, 30 thousand weights."""
    widths, blocks = (3, 16, 32, 32, 64), []
    for place, stride in enumerate((2, 2, 1, 2)):
        width = widths[place + 1]
        blocks += [nn.Conv2d(widths[place], width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 1))


def train(cohort: Cohort, rows: np.ndarray, *, seed: int, steps: int) -> nn.Module:
    """Train on rows, drawn so that label and sex are independent, as a training of the app draws them."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=steps)
    weights = balancing_weights(cohort.labels[rows], cohort.sex[rows])
    labels = torch.tensor(cohort.labels, dtype=torch.float32)
    for _ in range(steps):
        drawn = rng.choice(rows, 32, p=weights / weights.sum())
        images = torch.rot90(cohort.images[drawn], int(rng.integers(4)), (2, 3))
        images = images.flip(3) if rng.random() < 0.5 else images
        loss = nn.functional.binary_cross_entropy_with_logits(model(images)[:, 0], labels[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def scores_of(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    """Return probabilities."""
    with torch.no_grad():
        parts = [torch.sigmoid(model(part)[:, 0]) for part in images.split(512)]
    return torch.cat(parts).double().numpy()


def held_out_scores(cohort: Cohort, rows: np.ndarray, *, seed: int, steps: int) -> np.ndarray:
    """Score labelled images by networks that were not trained on them: three folds, by lesion.

    An audit and thresholds cost no label more than the others have.
    """
    fold = cohort.table["lesion"].to_numpy()[rows] % FOLDS
    found = np.empty(len(rows))
    for number in range(FOLDS):
        model = train(cohort, rows[fold != number], seed=seed + number + 1, steps=steps)
        found[fold == number] = scores_of(model, cohort.images[rows[fold == number]])
    return found


def audited(cohort: Cohort, rows: np.ndarray, scores: np.ndarray) -> AuditBounds:
    """Return AUC and interval of both sexes."""
    bounds = {}
    for group in GROUPS:
        inside = cohort.sex[rows] == group
        value, low, _ = auc_interval(cohort.labels[rows][inside], scores[inside])
        bounds[group] = Bound(value, low, int(inside.sum()), "" if np.isfinite(low) else "too few cases")
    return AuditBounds("auc", {"sex": bounds})


def query(name: str, cohort: Cohort, rows: np.ndarray, model: nn.Module, *, plan: Plan, seed: int) -> np.ndarray:
    """Return the rows of the next batch: one image after the other, as a server gives them out."""
    if name in ("random", "first"):
        order = np.random.default_rng(seed).permutation(plan.pool) if name == "random" else np.arange(plan.pool)
        return order[~np.isin(order, rows)][: plan.batch]
    rules = dict(part.split("=") for part in DEFAULT_MIX.split(",")) if name == "mix" else {name: "1"}
    scored, thresholds, audit = NONE, None, None
    ids = cohort.table["image_id"].tolist()
    if any(rule in LEARNING for rule in rules):
        own = held_out_scores(cohort, rows, seed=seed, steps=plan.steps)
        audit = audited(cohort, rows, own)
        groups = cohort.table[["sex"]].iloc[rows]
        thresholds = ThresholdFitter("youden", attributes=["sex"]).fit(cohort.labels[rows], own, groups, split="val")
        none = np.zeros((len(ids), 0))
        scored = ImageScores(
            tuple(ids), ("",) * len(ids), ("",) * len(ids), scores_of(model, cohort.images), none, none
        )
    labelled = np.isin(np.arange(len(ids)), rows)
    sexes = cohort.sex.tolist()
    facts = [ImageFacts(*each, attributes={"sex": sex}) for *each, sex in zip(ids, labelled, sexes, strict=True)]
    table = build_table(facts, ["sex"], scores=scored, thresholds=thresholds)
    return _chosen(table, _rule(rules, audit), ids, plan.batch)


def _rule(rules: dict[str, str], audit: AuditBounds | None) -> Rule:
    known: dict[str, Rule] = {"least_represented": least_represented, "uncertain": uncertain}
    if audit is not None:
        known["worst_subgroup"] = partial(worst_subgroup, audit=audit)
    parts = {rule: (known[rule], float(weight)) for rule, weight in rules.items()}
    return partial(mix, rules=parts) if len(parts) > 1 else known[next(iter(rules))]


def _chosen(table: ImageTable, rule: Rule, ids: Sequence[str], count: int) -> np.ndarray:
    place, found = {name: row for row, name in enumerate(ids)}, []
    for _ in range(count):
        best = choose(table, rule, now=1e9)
        assert best is not None
        found.append(place[best.image_id])
        table = replace(table, labelled=table.labelled | (np.arange(len(ids)) == found[-1]))
    return np.array(found)


def run(item: tuple[str, int], *, work: Path, plan: Plan) -> dict[str, Any]:
    """Annotate by one strategy from one start; everything but what is chosen is the same for all strategies."""
    name, seed = item
    torch.set_num_threads(1)
    key = fingerprint([asdict(plan), PLANTED, SWITCHED_OFF, MALE_SHARE])[:8]
    path = work / f"runs_{key}" / f"{name}_{seed}.json"
    if path.is_file():
        return read_json(path, "active_learning_run")
    pool, test = load(work / f"pool_{seed}_{plan.pool}"), load(work / f"test_{plan.test}")
    rows = np.random.default_rng([seed, 1]).permutation(plan.pool)[: plan.start]
    found: dict[str, list[float]] = {group: [] for group in GROUPS} | {"share": [], "positives": []}
    for number in range(plan.rounds):
        model = train(pool, rows, seed=1000 * seed + 10 * number, steps=plan.steps)
        scores = scores_of(model, test.images)
        for group in GROUPS:
            inside = test.sex == group
            found[group].append(auc_interval(test.labels[inside], scores[inside])[0])
        found["share"].append(float((pool.sex[rows] == "female").mean()))
        found["positives"].append(float(pool.labels[rows].mean()))
        if number + 1 < plan.rounds:
            batch = query(name, pool, rows, model, plan=plan, seed=1000 * seed + 10 * number + 5)
            rows = np.concatenate([rows, batch])
    write_json(path, "active_learning_run", found)
    return read_json(path, "active_learning_run")


def head(plan: Plan, command: str) -> Iterator[str]:
    """Say what was run, what is in the images, and what strategies look at."""
    yield (f"`{command}`; torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}.")
    yield ""
    yield (
        f"Planted: {1 - MALE_SHARE:.0%} of a pool of {plan.pool} images show women. Their lesions have "
        f"{PLANTED['contrast_gap']:.0%} less contrast and differ that much less between benign and malignant; "
        f"photographs of women are cooler, of men warmer (cue {PLANTED['cue_strength']:g}). In both sexes "
        f"{PLANTED['prevalence']:.0%} are malignant, labels are right, and nothing else differs. Every seed has a pool "
        f"and a start of {plan.start} images of its own; the test set, {plan.test} images, half of them of women, is "
        f"one. A network of four convolutions is trained anew after every {plan.batch} labels; of one seed all "
        "strategies have the same start, and their networks the same first weights."
    )
    yield ""
    yield (
        "`random` and `first` (in the order of ids, which tell nothing here) look at nothing, `least_represented` at "
        "the sex of what is labelled. `worst_subgroup` looks at an audit, `uncertain` and `mix` at scores and "
        "thresholds, all made anew after each batch: for an audit and for thresholds labelled images are scored by "
        "networks that were not trained on them (three folds), so that no strategy sees a label it has not asked for. "
        "For `worst_subgroup` a lower bound that there is not yet counts as 0: this rule was made after a look at the "
        "pools of seeds 0 to 4. "
        f"`mix` is `{DEFAULT_MIX}`, the default of the app."
    )


def main() -> None:
    """Run what is not finished, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=5, help="seed; the rules were finished while looking at 0 to 4")
    parser.add_argument("--workers", type=int, default=joblib.cpu_count())
    parser.add_argument("--quick", action="store_true", help="two seeds, three trainings each: a minute, and no result")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plan, count = (QUICK, min(options.seeds, 2)) if options.quick else (Plan(), options.seeds)
    seeds = range(options.first, options.first + count)
    simulate(options.work / f"test_{plan.test}", n=plan.test, seed=1000, male_share=0.5)
    for seed in seeds:
        simulate(options.work / f"pool_{seed}_{plan.pool}", n=plan.pool, seed=seed, male_share=MALE_SHARE)
    # the long ones first, so that all cores are busy to the end
    items = [(name, seed) for name in reversed(STRATEGIES) for seed in seeds]
    outcomes = run_all(partial(run, work=options.work, plan=plan), items, workers=options.workers, description="runs")
    if failed := [f"{outcome.item}: {outcome.error}" for outcome in outcomes if outcome.error]:
        raise SystemExit("\n".join(failed))
    values = {outcome.item: outcome.value for outcome in outcomes}
    keys = (*GROUPS, "share", "positives")
    found = {name: {key: np.array([values[name, seed][key] for seed in seeds]) for key in keys} for name in STRATEGIES}
    command = f"python benchmarks/active_learning.py --work DIR --seeds {count} --first {options.first}"
    told = tuple(head(plan, command + " --quick" * options.quick))
    text = "\n".join(page(found, plan.counts, told)) + "\n"
    print(text)
    if options.out and not options.quick:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
