"""Laws of re-balancing that hold for every cohort."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fair.data import check_manifest
from monai_fair.data.rebalancing import balancing_weights, cell_deficits, rebalanced_manifest, resample_cells

SETTINGS = settings(deadline=None, max_examples=60, derandomize=True)
Rows = list[tuple[int, str]]
ROWS: st.SearchStrategy[Rows] = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "c", "missing"])), min_size=1, max_size=60
)


def columns(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in rows]), np.array([group for _, group in rows])


@SETTINGS
@given(ROWS, st.booleans())
def test_weights_make_label_and_subgroup_independent(rows: Rows, filled: bool) -> None:
    if filled:
        rows = rows + [(label, group) for label in {y for y, _ in rows} for group in {s for _, s in rows}]
    y, s = columns(rows)
    weight = balancing_weights(y, s)
    assert (weight > 0).all()
    # written in another way: the weight of a filled cell adds up to what independence expects there
    expected = pd.crosstab(y, s)
    expected = expected.where(expected == 0, np.outer(expected.sum(axis=1), expected.sum(axis=0)) / len(y))
    found = pd.crosstab(y, s, values=weight, aggfunc="sum").fillna(0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    if filled:
        assert weight.sum() == pytest.approx(len(y), rel=1e-12)
        np.testing.assert_allclose(found.sum(axis=0), pd.Series(s).value_counts().sort_index(), rtol=1e-12)
        np.testing.assert_allclose(found.sum(axis=1), pd.Series(y).value_counts().sort_index(), rtol=1e-12)


@SETTINGS
@given(ROWS, st.randoms(use_true_random=False), st.integers(2, 4))
def test_order_names_and_size_of_a_cohort_do_not_change_a_weight(rows: Rows, random: object, times: int) -> None:
    y, s = columns(rows)
    weight = balancing_weights(y, s)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_allclose(balancing_weights(y[order], s[order]), weight[order], rtol=1e-12)
    renamed = np.array([{"a": 7, "b": -1, "c": 3, "missing": 0}[name] for name in s])
    np.testing.assert_allclose(balancing_weights(2 - y, renamed), weight, rtol=1e-12)
    np.testing.assert_allclose(balancing_weights(s, y), weight, rtol=1e-12)
    np.testing.assert_allclose(balancing_weights(np.tile(y, times), np.tile(s, times)), np.tile(weight, times))


@SETTINGS
@given(ROWS, st.integers(0, 99), st.sampled_from(["largest", "smallest", "equal_total"]))
def test_draws_are_equal_over_cells_and_even_within(rows: Rows, seed: int, target: str) -> None:
    y, s = columns(rows)
    drawn = resample_cells(y, s, seed=seed, target=target)  # type: ignore[arg-type]
    cell = pd.Series(list(zip(y.tolist(), s.tolist(), strict=True)))
    sizes = cell.value_counts()
    assert set(cell[drawn]) == set(cell)
    assert cell[drawn].value_counts().nunique() == 1
    times = pd.Series(np.bincount(drawn, minlength=len(rows))).groupby(cell)
    assert ((times.max() - times.min()) <= 1).all()
    total = {
        "largest": sizes.max() * sizes.size,
        "smallest": sizes.min() * sizes.size,
        "equal_total": len(rows) - len(rows) % sizes.size,
    }
    assert drawn.size == total[target]


@SETTINGS
@given(ROWS)
def test_filling_the_deficits_leaves_none(rows: Rows) -> None:
    y, s = columns(rows)
    lacking = cell_deficits(y, s)
    full = lacking.loc[lacking.index.repeat(lacking["deficit"])]
    y, s = np.append(y, full["label"].to_numpy(int)), np.append(s, full["subgroup"].to_numpy(str))
    assert (cell_deficits(y, s)["deficit"] == 0).all()
    np.testing.assert_allclose(balancing_weights(y, s), 1)


@SETTINGS
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.sampled_from(["train", "val", "test"]),
            st.sampled_from(["a", "b", ""]),
            st.integers(1, 2),
        ),
        max_size=25,
    ),
    st.sampled_from(["weights", "resample"]),
    st.sampled_from(["drop", "group"]),
)
def test_a_rebalanced_manifest_has_known_subjects_and_untouched_held_out_rows(
    subjects: list[tuple[int, str, str, int]], method: str, missing: str
) -> None:
    subjects = [(0, "train", "a", 1), *subjects]
    rows = [
        (f"s{at}", f"{at}_{image}.png", str(label), split)
        for at, (label, split, _, images) in enumerate(subjects)
        for image in range(images)
    ]
    table = pd.DataFrame(rows, columns=["subject_id", "image", "label", "split"], dtype=str)
    groups = {f"s{at}": group for at, (_, _, group, _) in enumerate(subjects)}
    found = rebalanced_manifest(
        check_manifest(table, "m"),
        groups,
        method=method,  # type: ignore[arg-type]
        missing=missing,  # type: ignore[arg-type]
        seed=1,
    ).table
    known = (table["split"] != "train") | table["subject_id"].map(groups).ne("") | (missing == "group")
    pd.testing.assert_frame_equal(found.drop(columns=["subgroup", "weight"]), table[known].reset_index(drop=True))
    assert (found.loc[found["split"] != "train", "weight"] == "1.0").all()
    checked = check_manifest(found, "again").table
    assert (checked["weight"] > 0).all()
