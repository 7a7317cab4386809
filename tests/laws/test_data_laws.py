"""Laws of splits, tables and predictions that hold for every valid input."""

from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fair.data import read_predictions, split_by_subject, write_predictions
from monai_fair.data.manifest import is_inside
from monai_fair.data.splits import subjects_in_several_parts
from monai_fair.data.tables import read_table, write_table
from monai_fair.errors import ManifestError, SplitError

SETTINGS = settings(deadline=None, max_examples=60, derandomize=True)
FILES = settings(SETTINGS, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHARES = st.sampled_from(
    [
        {"train": 0.8, "val": 0.1, "test": 0.1},
        {"train": 0.7, "val": 0.1, "test": 0.2},
        {"train": 0.6, "test": 0.4},
        {str(fold): 0.2 for fold in range(5)},
        {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3},
        {"a": 0.05, "b": 0.15, "c": 0.35, "d": 0.45},
    ]
)


@st.composite
def cohorts(draw: st.DrawFn) -> pd.DataFrame:
    """Subjects with one to three images, each image with a group and a label."""
    subjects = draw(st.integers(6, 80))
    images = draw(st.lists(st.integers(1, 3), min_size=subjects, max_size=subjects))
    groups = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = [f"s{number:03d}" for number, count in enumerate(images) for _ in range(count)]
    group = np.repeat(rng.integers(0, groups, subjects), images)
    return pd.DataFrame(
        {"subject_id": ids, "group": group.astype(str), "label": rng.integers(0, 2, len(ids)).astype(str)}
    )


@SETTINGS
@given(cohorts(), SHARES, st.integers(0, 1000), st.sampled_from([[], ["group"], ["group", "label"]]))
def test_a_split_keeps_subjects_whole_and_shares_out_every_stratum(
    table: pd.DataFrame, shares: dict[str, float], seed: int, stratify: list[str]
) -> None:
    split = split_by_subject(table, shares, stratify=stratify, seed=seed)
    assert split["subject_id"].tolist() == sorted(set(table["subject_id"]))
    assert set(split["split"]) <= set(shares)
    images = table.merge(split, on="subject_id", validate="many_to_one")
    assert subjects_in_several_parts(images) == {}

    # strata written in another way: the set of values of each subject
    kinds = {who: frozenset(map(tuple, rows[stratify].to_numpy())) for who, rows in table.groupby("subject_id")}
    stratum = split["subject_id"].map(kinds)
    for rows in [split, *(split[stratum == kind] for kind in set(kinds.values()))]:
        for part, share in shares.items():
            assert abs((rows["split"] == part).sum() - share * len(rows)) < 1 + 1e-9


@SETTINGS
@given(cohorts(), SHARES, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_a_split_depends_on_subjects_and_seed_only(
    table: pd.DataFrame, shares: dict[str, float], seed: int, random: object
) -> None:
    first = split_by_subject(table, shares, stratify=["group"], seed=seed)
    order = list(range(len(table)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = table.iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, split_by_subject(shuffled, shares, stratify=["group"], seed=seed))
    doubled = pd.concat([table, table], ignore_index=True)
    pd.testing.assert_frame_equal(first, split_by_subject(doubled, shares, stratify=["group"], seed=seed))


@SETTINGS
@given(st.integers(60, 200), st.integers(0, 1000))
def test_another_seed_gives_another_split(subjects: int, seed: int) -> None:
    # the same by chance has a probability far below 1e-6 with 60 subjects and half of them in each part
    table = pd.DataFrame({"subject_id": [f"s{number}" for number in range(subjects)]})
    first, second = (split_by_subject(table, {"a": 0.5, "b": 0.5}, seed=value) for value in (seed, seed + 1))
    assert first["split"].tolist() != second["split"].tolist()


@SETTINGS
@given(st.dictionaries(st.text("abcd", min_size=1), st.floats(-1, 2), max_size=5))
def test_shares_that_do_not_add_up_are_refused(shares: dict[str, float]) -> None:
    good = bool(shares) and abs(sum(shares.values()) - 1) <= 1e-9 and min(shares.values()) > 0
    table = pd.DataFrame({"subject_id": [f"s{number}" for number in range(10)]})
    try:
        split_by_subject(table, shares)
    except SplitError:
        assert not good
    else:
        assert good


# no surrogates, which UTF-8 cannot hold, and no line breaks, which a row of one line cannot
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)


@FILES
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6))
def test_cells_come_back_as_they_were_written(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    table = pd.DataFrame([("x", *row) for row in rows], columns=["key", "first", "second"], dtype=str)
    found = read_table(write_table(tmp_path / "table.csv", table), ManifestError)
    assert found.to_numpy().tolist() == table.to_numpy().tolist()


@FILES
@given(st.lists(st.floats(0, 1, allow_subnormal=True), min_size=1, max_size=20))
def test_scores_come_back_bit_for_bit(tmp_path: Path, scores: list[float]) -> None:
    places = [str(number) for number in range(len(scores))]
    table = pd.DataFrame({"subject_id": places, "image": places, "split": "test", "label": 1, "score": scores})
    found = read_predictions(write_predictions(tmp_path / "p.csv", table))
    assert found.table["score"].tolist() == scores


PIECE = st.sampled_from(["a", "..", ".", "", "b.jpg", "~", "C:", "\\", "..\\", "x\\y"])


@SETTINGS
@given(st.lists(PIECE, max_size=6), st.booleans())
def test_a_path_that_is_let_in_stays_in(pieces: list[str], windows: bool) -> None:
    text = ("\\" if windows else "/").join(pieces)
    root = Path("/data/root")
    if is_inside(text):
        assert Path(root / text).is_relative_to(root)
        assert ".." not in text.replace("\\", "/").split("/")
        assert not text.startswith(("/", "\\"))
