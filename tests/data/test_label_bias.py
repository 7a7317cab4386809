"""Label bias: who is eligible, how many labels change, what chance depends on, and every message."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from monai_fair.data import inject_label_bias
from monai_fair.errors import MonaiFairError

FEMALE = {"sex": "female"}


def table(**counts: int) -> pd.DataFrame:
    """Rows of every split, sex and label: ``train_female_1=40``; age_group alternates."""
    rows = [(*cell.split("_"), number) for cell, n in counts.items() for number in range(n)]
    found = pd.DataFrame(rows, columns=["split", "sex", "label", "number"])
    found["image"] = found["split"] + found["sex"] + found["label"] + found["number"].map("_{:03d}.png".format)
    found["age_group"] = np.where(found["number"] % 2 == 0, "<60", ">=60")
    return found.assign(label=found["label"].astype(int), sex=found["sex"].replace("unknown", ""))


COHORT = table(
    train_female_0=50, train_female_1=41, train_male_1=30, train_unknown_1=9,
    val_female_1=10, val_female_0=7, test_female_1=20, test_male_0=20,
)  # fmt: skip


def changed_cells(rows: pd.DataFrame, changed: np.ndarray) -> dict[tuple[str, str, int], int]:
    return rows[changed].value_counts(["split", "sex", "label"]).to_dict()


@pytest.mark.parametrize(
    ("rate", "train", "val"),
    [
        (0, 0, 0),
        (0.25, 10, 2),  # 10.25 of 41; 2.5 of 10 is a half and goes to the even count
        (0.35, 14, 4),  # 14.35; 3.5 goes to the even count
        (0.5, 20, 5),  # 20.5 goes to the even count
        (0.012, 0, 0),  # 0.492 of 41
        (1, 41, 10),
        (1.0, 41, 10),
    ],
)
def test_the_exact_count_in_each_part_of_positives_of_the_group_only(rate: float, train: int, val: int) -> None:
    changed = inject_label_bias(COHORT, FEMALE, rate=rate)
    assert changed.dtype == np.bool_
    wanted = {("train", "female", 1): train, ("val", "female", 1): val}
    assert changed_cells(COHORT, changed) == {cell: n for cell, n in wanted.items() if n}


def test_several_attributes_name_those_who_have_all() -> None:
    changed = inject_label_bias(COHORT, {"sex": "female", "age_group": "<60"}, rate=1)
    # of 41 numbered from 0, 21 are even; of 10, 5
    assert changed_cells(COHORT, changed) == {("train", "female", 1): 21, ("val", "female", 1): 5}
    assert set(COHORT.loc[changed, "age_group"]) == {"<60"}


def test_parts_are_biased_each_on_its_own() -> None:
    both = inject_label_bias(COHORT, FEMALE, rate=0.5)
    train = inject_label_bias(COHORT, FEMALE, rate=0.5, parts=["train"])
    val = inject_label_bias(COHORT, FEMALE, rate=0.5, parts=("val",))
    assert (both == (train | val)).all()
    assert not (train & val).any()
    # rows that are not eligible have no part in the draw
    alone = COHORT[(COHORT["sex"] == "female") & (COHORT["label"] == 1) & (COHORT["split"] == "train")]
    assert set(alone.loc[inject_label_bias(alone, FEMALE, rate=0.5), "image"]) == set(COHORT.loc[train, "image"])


def test_bernoulli_takes_each_row_on_its_own() -> None:
    """Counts over seeds are binomial: mean n rate and variance n rate (1 - rate), here within 4 standard errors."""
    rows = table(train_female_1=40)
    counts = np.array([
        inject_label_bias(rows, FEMALE, rate=0.25, method="bernoulli", seed=seed).sum() for seed in range(400)
    ])  # fmt: skip
    assert abs(counts.mean() - 10) < 4 * np.sqrt(7.5 / 400)
    # the variance of a sample variance of near-normal counts is 2 sigma^4 / (n - 1)
    assert abs(counts.var(ddof=1) - 7.5) < 4 * 7.5 * np.sqrt(2 / 399)
    assert np.quantile(counts, 0.9) == pytest.approx(binom.ppf(0.9, 40, 0.25), abs=1)


@pytest.mark.parametrize("method", ["exact", "bernoulli"])
def test_every_row_is_taken_equally_often(method: Any) -> None:
    rows = table(train_female_1=20)
    taken = np.mean([inject_label_bias(rows, FEMALE, rate=0.25, method=method, seed=seed) for seed in range(800)], 0)
    assert np.abs(taken - 0.25).max() < 4.5 * np.sqrt(0.25 * 0.75 / 800)


SETTINGS = settings(deadline=None, max_examples=60, derandomize=True)
RATES = st.floats(0, 1)
METHODS = st.sampled_from(["exact", "bernoulli"])


@SETTINGS
@given(RATES, METHODS, st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rate: float, method: Any, seed: int, shuffle: Any) -> None:
    order = list(range(len(COHORT)))
    shuffle.shuffle(order)
    turned = COHORT.iloc[order]
    first = inject_label_bias(COHORT, FEMALE, rate=rate, method=method, seed=seed)
    again = inject_label_bias(turned, FEMALE, rate=rate, method=method, seed=seed)
    assert set(turned.loc[again, "image"]) == set(COHORT.loc[first, "image"])


@SETTINGS
@given(RATES, RATES, METHODS, st.integers(0, 1000))
def test_a_larger_rate_takes_the_rows_of_a_smaller_one(one: float, other: float, method: Any, seed: int) -> None:
    less, more = (
        inject_label_bias(COHORT, FEMALE, rate=rate, method=method, seed=seed) for rate in sorted((one, other))
    )
    assert (more | ~less).all()


def test_the_seed_decides_which() -> None:
    first, again, other = (inject_label_bias(COHORT, FEMALE, rate=0.25, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def refusal(rows: pd.DataFrame, group: Any = FEMALE, rate: Any = 0.25, **options: Any) -> str:
    with pytest.raises(MonaiFairError) as caught:
        inject_label_bias(rows, group, rate=rate, **options)
    return str(caught.value)


def test_every_wrong_option_is_named() -> None:
    assert refusal(
        COHORT, {"sex": "woman", "race": "White", "label": "1"}, 25, method="poisson", parts=["test", "valid"]
    ) == (
        "label bias: 7 problems\n"
        "  1. rate: expected a share from 0 to 1, got 25\n"
        "  2. method: expected one of exact, bernoulli, got 'poisson'\n"
        "  3. parts: expected train or val, got 'test', whose labels stay as they are to measure on; leave it out\n"
        "  4. parts: expected train or val, got 'valid'\n"
        "  5. sex=woman: expected a group that occurs (female, male), got no row of it\n"
        "  6. race: expected a recorded attribute (sex, number, age_group); correct the name\n"
        "  7. label: expected a recorded attribute (sex, number, age_group); correct the name"
    )


@pytest.mark.parametrize("rate", [-0.01, 1.01, float("nan"), True, "0.25", None])
def test_a_rate_is_a_share(rate: Any) -> None:
    assert refusal(COHORT, rate=rate) == f"label bias: rate: expected a share from 0 to 1, got {rate!r}"


def test_parts_that_there_are_not() -> None:
    train = table(train_female_1=4, test_female_1=4)
    assert refusal(train, parts=["train", "val"]) == (
        "label bias: parts: expected rows with split 'val', got none; found train, test"
    )
    assert (
        refusal(train, parts=[]) == "label bias: parts: expected at least one, got none; leave it out for train and val"
    )
    assert inject_label_bias(train, FEMALE, rate=1).sum() == 4  # by default those that there are
    assert refusal(table(test_female_1=4)) == (
        "label bias: expected rows of train or val, whose labels may be changed, found only test"
    )


def test_nobody_who_is_eligible() -> None:
    healthy = table(train_female_0=9, train_male_1=9, val_male_1=3, test_female_1=9)
    assert refusal(healthy) == (
        "label bias: expected rows of sex=female with label 1 in train or val, got none, so that no label can change"
    )
    assert "in val, got none" in refusal(table(train_female_1=9, val_female_0=3), parts=["val"])
    assert refusal(COHORT, {}) == "label bias: group: expected an attribute and its value, got none"
    nobody = COHORT.assign(sex="")
    assert refusal(nobody) == "label bias: sex=female: expected a group that occurs (none does), got no row of it"


def test_labels_that_cannot_be_biased() -> None:
    assert refusal(COHORT.drop(columns=["label", "split"])) == (
        "label bias: 2 problems\n  1. expected a column 'label', found none; add it\n"
        "  2. expected a column 'split', found none; add it"
    )
    assert refusal(COHORT.assign(label=COHORT["label"] + 1)) == (
        "label bias: expected labels 0 and 1 only; make a manifest of two classes first"
    )
    assert refusal(COHORT.assign(clean_label=COHORT["label"])) == (
        "label bias: labels were changed before (column 'clean_label'); take the manifest that this one is made from"
    )
