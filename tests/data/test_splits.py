from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monai_fair.data import read_split, split_by_subject, write_split
from monai_fair.data.splits import subjects_in_several_parts
from monai_fair.errors import SplitError

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def cohort(*sizes: int) -> pd.DataFrame:
    """One subject per row, in strata of the given sizes."""
    strata = [str(stratum) for stratum, size in enumerate(sizes) for _ in range(size)]
    return pd.DataFrame({"subject_id": [f"s{number:03d}" for number in range(len(strata))], "group": strata})


def counts(table: pd.DataFrame, split: pd.DataFrame) -> list[list[int]]:
    merged = split.merge(table, on="subject_id", validate="one_to_many")
    return pd.crosstab(merged["group"], merged["split"])[["train", "val", "test"]].to_numpy().tolist()


def test_whole_shares_are_met_exactly() -> None:
    table = cohort(10, 20, 50)
    split = split_by_subject(table, SHARES, stratify=["group"])
    assert counts(table, split) == [[8, 1, 1], [16, 2, 2], [40, 5, 5]]


@pytest.mark.parametrize("seed", range(10))
def test_a_small_stratum_is_shared_out_too(seed: int) -> None:
    # 8 subjects: 6.4, 0.8 and 0.8. Rounded down or up that is 6 with 1 and 1, or 7 with one of the two, never 8;
    # over all 80 subjects the parts get 64, 8 and 8
    table = cohort(*[8] * 10)
    found = counts(table, split_by_subject(table, SHARES, stratify=["group"], seed=seed))
    assert {tuple(row) for row in found} <= {(6, 1, 1), (7, 0, 1), (7, 1, 0)}
    assert np.sum(found, axis=0).tolist() == [64, 8, 8]


def test_strata_of_one_are_shared_out_over_all() -> None:
    table = cohort(*[1] * 30)
    assert np.sum(counts(table, split_by_subject(table, SHARES, stratify=["group"])), axis=0).tolist() == [24, 3, 3]


def test_a_subject_with_several_values_is_a_stratum_of_its_own_kind() -> None:
    # 20 subjects with labels 0 and 1, 20 with 0 only: 16, 2, 2 of each
    rows = [(f"s{number}", label) for number in range(40) for label in (("0", "1") if number < 20 else ("0",))]
    table = pd.DataFrame(rows, columns=["subject_id", "label"])
    split = split_by_subject(table, SHARES, stratify=["label"])
    both = split["subject_id"].str[1:].astype(int) < 20
    for part in (split[both], split[~both]):
        assert part["split"].value_counts().to_dict() == {"train": 16, "val": 2, "test": 2}


def test_chance_decides_and_every_subject_has_its_share_of_it() -> None:
    # 400 seeds, 40 subjects in strata of 8: each is in train with probability 0.8; 5 standard deviations are 0.1
    table = cohort(*[8] * 5)
    trains = sum(
        (split_by_subject(table, SHARES, stratify=["group"], seed=seed)["split"] == "train").to_numpy()
        for seed in range(400)
    )
    assert np.abs(trains / 400 - 0.8).max() < 0.1


def test_five_folds() -> None:
    split = split_by_subject(cohort(50, 5), {str(fold): 0.2 for fold in range(5)}, stratify=["group"])
    assert split["split"].value_counts().to_dict() == {str(fold): 11 for fold in range(5)}


@pytest.mark.parametrize("shares", [{"train": 0.8, "val": 0.1}, {"train": 1.0, "val": 0.0}, {"a": 1.2, "b": -0.2}, {}])
def test_shares_must_add_up(shares: dict[str, float]) -> None:
    with pytest.raises(SplitError) as caught:
        split_by_subject(cohort(10), shares)
    assert str(caught.value) == f"expected positive shares that add up to 1, got {shares}"


def test_too_few_subjects() -> None:
    with pytest.raises(SplitError) as caught:
        split_by_subject(pd.DataFrame({"subject_id": ["a", "a", "b"]}), SHARES)
    assert str(caught.value) == "expected at least 3 subjects for 3 parts, got 2"


def test_a_split_comes_back_as_written(tmp_path: Path) -> None:
    split = pd.DataFrame({"subject_id": ["001", "NA", "1e5"], "split": ["train", "val", "test"]}, dtype=str)
    path = write_split(tmp_path / "split.csv", split.assign(other="x"))
    assert path.read_text() == "subject_id,split\n001,train\nNA,val\n1e5,test\n"
    pd.testing.assert_frame_equal(read_split(path), split)


def test_leaks_are_listed_by_subject() -> None:
    table = pd.DataFrame(
        {"subject_id": list("aabbbc"), "fold": ["1", "0", "2", "2", "2", "0"], "split": ["x", "x", "y", "z", "y", "x"]}
    )
    assert subjects_in_several_parts(table, "fold") == {"a": ["0", "1"]}
    assert subjects_in_several_parts(table) == {"b": ["y", "z"]}
