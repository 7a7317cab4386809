from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference

from monai_fair.data import (
    Manifest,
    check_manifest,
    load_datalist,
    read_manifest,
    recorded_num_classes,
    sha256,
    write_manifest,
)
from monai_fair.data.rebalancing import balancing_weights, cell_deficits, rebalanced_manifest, resample_cells
from monai_fair.data.tables import write_table
from monai_fair.errors import ManifestError, MonaiFairError

# The example of Kamiran and Calders: 2 women and 4 men with the good outcome, 3 women and 1 man without.
OUTCOME = np.array([1, 1, 0, 0, 0, 1, 1, 1, 1, 0])
SEX = np.array(["f"] * 5 + ["m"] * 5)


def test_weights_of_the_published_example() -> None:
    # P(f) P(1) / P(f, 1) = 0.5 * 0.6 / 0.2 = 1.5; then 0.5 * 0.4 / 0.3, 0.5 * 0.6 / 0.4 and 0.5 * 0.4 / 0.1
    expected = {("f", 1): 1.5, ("f", 0): 2 / 3, ("m", 1): 0.75, ("m", 0): 2.0}
    found = balancing_weights(OUTCOME, SEX)
    np.testing.assert_allclose(found, [expected[sex, y] for sex, y in zip(SEX, OUTCOME, strict=True)], rtol=1e-15)
    assert found.sum() == pytest.approx(10)
    # fairlearn's difference of outcome rates between the sexes: 0.8 - 0.4, and none once weighted
    plain = demographic_parity_difference(OUTCOME, OUTCOME, sensitive_features=SEX)
    weighted = demographic_parity_difference(OUTCOME, OUTCOME, sensitive_features=SEX, sample_weight=found)
    assert (plain, weighted) == (pytest.approx(0.4), pytest.approx(0, abs=1e-12))


def test_an_empty_cell_takes_its_share_of_the_mean() -> None:
    # Subgroup b has label 1 only: P(0) P(b) = 2/6 * 3/6 = 1/6 is nobody's, so the mean weight is 5/6. Filled cells:
    # (0, a) 1/3 * 1/2 / (1/3) = 1/2; (1, a) 2/3 * 1/2 / (1/6) = 2; (1, b) 2/3 * 1/2 / (1/2) = 2/3.
    found = balancing_weights([0, 0, 1, 1, 1, 1], list("aaabbb"))
    np.testing.assert_allclose(found, [1 / 2, 1 / 2, 2, 2 / 3, 2 / 3, 2 / 3])
    assert found.mean() == pytest.approx(5 / 6)


@pytest.mark.parametrize(("target", "size"), [("largest", 4), ("smallest", 1), ("equal_total", 10 // 4)])
def test_cells_are_drawn_equally_often(target: Any, size: int) -> None:
    rows = resample_cells(OUTCOME, SEX, seed=3, target=target)
    drawn = pd.crosstab(OUTCOME[rows], SEX[rows])
    assert drawn.to_numpy().tolist() == [[size, size], [size, size]]
    assert (np.diff(rows) >= 0).all()
    assert rows.tolist() == resample_cells(OUTCOME, SEX, seed=3, target=target).tolist()


def test_which_rows_are_drawn_once_more_is_chance() -> None:
    # 3 rows drawn 5 times: each once, and two of them again; 40 seeds miss a pair with chance 3 (2/3)^40 < 1e-6
    again = {tuple(np.bincount(resample_cells([0] * 3 + [1] * 5, ["a"] * 8, seed=seed))[:3]) for seed in range(40)}
    assert again == {(1, 2, 2), (2, 1, 2), (2, 2, 1)}


def test_deficits_count_up_to_the_largest_cell_and_name_empty_ones() -> None:
    found = cell_deficits([*OUTCOME, 1], [*SEX, "x"])
    assert list(found.columns) == ["label", "subgroup", "n", "deficit"]
    assert found.to_numpy().tolist() == [
        [0, "f", 3, 1],
        [0, "m", 1, 3],
        [0, "x", 0, 4],
        [1, "f", 2, 2],
        [1, "m", 4, 0],
        [1, "x", 1, 3],
    ]


@pytest.mark.parametrize(
    ("label", "subgroup", "message"),
    [
        ([0, 1], ["a"], "expected one label and one subgroup per row, got shapes (2,) and (1,)"),
        ([], [], "expected one label and one subgroup per row, got shapes (0,) and (0,)"),
        (
            [0.0, np.nan, 1.0],
            np.array(["a", "b", None], dtype=object),
            "expected a label and a subgroup in every row, 2 of 3 lack one; leave them out",
        ),
    ],
)
def test_rows_without_label_or_subgroup_are_refused(label: Any, subgroup: Any, message: str) -> None:
    for function in (balancing_weights, cell_deficits):
        with pytest.raises(MonaiFairError) as caught:
            function(label, subgroup)
        assert str(caught.value) == message


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(MonaiFairError) as caught:
        resample_cells([0], ["a"], seed=0, target="mean")  # type: ignore[arg-type]
    assert str(caught.value) == "target: expected one of largest, smallest, equal_total, got 'mean'"


def rows_of(n_test: int = 2) -> list[tuple[str, ...]]:
    train = [(f"s{at}", f"s{at}.png", str(OUTCOME[at]), "train", "89+") for at in range(10)]
    held_out = [(f"t{at}", f"t{at}.png", str(at % 2), "test", 'NA, "quoted"') for at in range(n_test)]
    # held-out rows stand before, between and after those of training
    return [held_out[0], *train[:4], ("001", "v.png", "1", "val", " é "), *train[4:], *held_out[1:]]


def manifest_of(rows: list[tuple[str, ...]]) -> Manifest:
    columns = ["subject_id", "image", "label", "split", "age"]
    return check_manifest(pd.DataFrame(rows, columns=columns, dtype=str), "cohort/manifest.csv")


SUBGROUPS = {f"s{at}": str(SEX[at]) for at in range(10)}


def test_only_training_rows_get_a_weight_and_other_lines_stay(tmp_path: Path) -> None:
    before = write_table(tmp_path / "before.csv", pd.DataFrame(rows_of(), columns=[*manifest_of(rows_of()).table]))
    built = rebalanced_manifest(read_manifest(before), SUBGROUPS)
    after = write_manifest(built, tmp_path / "after.csv")
    lines = zip(before.read_text("utf-8").splitlines(), after.read_text("utf-8").splitlines(), strict=True)
    for number, (old, new) in enumerate(lines):
        kind = "subgroup,weight" if number == 0 else ",1.0"
        if ",train," not in old:
            assert new == f"{old},{kind}"
        assert new.startswith(f"{old},")
    found = read_manifest(after).table
    weight = found.loc[found["split"] == "train", "weight"]
    np.testing.assert_array_equal(weight, balancing_weights(OUTCOME, SEX))  # text keeps every digit
    items = load_datalist(after, tmp_path, "train")
    assert [item["weight"] for item in items] == weight.tolist()
    # an audit compares by what is an attribute
    assert [item["attributes"]["subgroup"] for item in items] == SEX.tolist()


def test_held_out_rows_keep_their_subgroup_and_none_is_an_empty_cell() -> None:
    built = rebalanced_manifest(manifest_of(rows_of(3)), {**SUBGROUPS, "t0": "f", "t2": None})
    found = dict(zip(built.table["subject_id"], built.table["subgroup"], strict=True))
    assert (found["t0"], found["t1"], found["t2"], found["001"], found["s9"]) == ("f", "", "", "", "m")
    own = rebalanced_manifest(manifest_of(rows_of()), {**SUBGROUPS, "s9": ""}, missing="group").table
    assert own.loc[own["subject_id"] == "s9", "subgroup"].tolist() == [""]


def test_the_record_tells_cells_inputs_and_choices(tmp_path: Path) -> None:
    path = write_table(tmp_path / "manifest.csv", manifest_of(rows_of()).table)
    built = rebalanced_manifest(read_manifest(path), {**SUBGROUPS, "t0": "f"}, seed=7)
    record = built.record["rebalancing"]
    assert record["input_sha256"] == sha256(path)
    assert (record["method"], record["missing"], record["seed"], record["input"]) == (
        "weights",
        "error",
        7,
        "manifest.csv",
    )
    # weights times rows: 3 * 2/3, 1 * 2, 2 * 1.5, 4 * 0.75
    cells = [tuple(cell.values()) for cell in record["cells"]]
    assert cells == [
        (0, "f", 3, 3, pytest.approx(2)),
        (0, "m", 1, 1, pytest.approx(2)),
        (1, "f", 2, 2, pytest.approx(3)),
        (1, "m", 4, 4, pytest.approx(3)),
    ]
    # Kish: 10^2 / (3 * 4/9 + 4 + 2 * 2.25 + 4 * 9/16) = 100 / (145/12)
    assert record["effective_n"] == pytest.approx(1200 / 145)
    assert (built.record["n"], built.record["n_subjects"], built.record["dropped"]) == (13, 13, [])
    assert built.record["warnings"] == []
    assert recorded_num_classes(write_manifest(built, tmp_path / "after.csv")) == 2


def test_a_table_is_made_again_from_seed_and_inputs() -> None:
    manifest = manifest_of(rows_of())
    tables = [rebalanced_manifest(manifest, SUBGROUPS, method="resample", seed=seed) for seed in (1, 1, 2)]
    assert tables[0].record == tables[1].record
    pd.testing.assert_frame_equal(tables[0].table, tables[1].table)
    others = [rebalanced_manifest(manifest, SUBGROUPS, method="resample", seed=seed).table for seed in range(2, 12)]
    assert any(not tables[0].table.equals(other) for other in others)
    moved = rebalanced_manifest(manifest, {**SUBGROUPS, "s0": "m"}).record["rebalancing"]
    edited = rebalanced_manifest(manifest_of(rows_of(3)), SUBGROUPS).record["rebalancing"]
    first = tables[0].record["rebalancing"]
    assert moved["subgroups_sha256"] != first["subgroups_sha256"] == edited["subgroups_sha256"]
    assert edited["input_sha256"] != first["input_sha256"] == moved["input_sha256"]


def test_resampling_weighs_a_row_by_how_often_it_is_drawn() -> None:
    built = rebalanced_manifest(manifest_of(rows_of()), SUBGROUPS, method="resample", seed=5)
    train = built.table[built.table["split"] == "train"]
    drawn = np.bincount(resample_cells(OUTCOME, SEX, seed=5), minlength=10)
    assert train["weight"].astype(float).tolist() == drawn.tolist()
    assert [cell["weight_after"] for cell in built.record["rebalancing"]["cells"]] == [4, 4, 4, 4]
    assert (built.table.loc[built.table["split"] != "train", "weight"] == "1.0").all()


def test_the_manifest_that_came_in_is_left_alone() -> None:
    manifest = manifest_of(rows_of())
    copy = manifest.table.copy()
    rebalanced_manifest(manifest, SUBGROUPS)
    pd.testing.assert_frame_equal(manifest.table, copy)


@pytest.mark.parametrize("nothing", ["", None, float("nan")])
def test_subjects_without_a_subgroup_are_a_choice(nothing: Any) -> None:
    manifest, known = manifest_of(rows_of()), {**SUBGROUPS, "s3": nothing}
    del known["s9"]
    with pytest.raises(ManifestError) as caught:
        rebalanced_manifest(manifest, known)
    assert str(caught.value) == (
        "cohort/manifest.csv: expected a subgroup for every training subject, 2 have none: s3, s9; "
        "add them, or choose missing='drop' or 'group'"
    )
    dropped = rebalanced_manifest(manifest, known, missing="drop")
    assert set(manifest.table["subject_id"]) - set(dropped.table["subject_id"]) == {"s3", "s9"}
    assert dropped.record["dropped"] == [{"reason": "no subgroup", "n": 2, "subject_id": ["s3", "s9"]}]
    kept = np.delete(np.arange(10), [3, 9])
    weight = dropped.table.loc[dropped.table["split"] == "train", "weight"].astype(float)
    np.testing.assert_array_equal(weight, balancing_weights(OUTCOME[kept], SEX[kept]))

    own = rebalanced_manifest(manifest, known, missing="group")
    assert len(own.table) == len(manifest.table)
    cells = {(cell["label"], cell["subgroup"]): cell["n_before"] for cell in own.record["rebalancing"]["cells"]}
    assert (cells[0, "missing"], cells[1, "missing"]) == (2, 0)
    assert own.record["warnings"] == [
        "no training row of label 0 in subgroup 'm': re-balancing cannot make label and subgroup independent there",
        "no training row of label 1 in subgroup 'missing': "
        "re-balancing cannot make label and subgroup independent there",
    ]


def test_several_images_of_a_subject_count_as_rows() -> None:
    rows = [*rows_of(), ("s0", "s0_again.png", "1", "train", "")]
    cells = rebalanced_manifest(manifest_of(rows), SUBGROUPS).record["rebalancing"]["cells"]
    counted = [
        (cell["n_before"], cell["n_subjects"]) for cell in cells if (cell["label"], cell["subgroup"]) == (1, "f")
    ]
    assert counted == [(3, 2)]


def test_unknown_subjects_and_subjects_without_subgroup_come_in_one_message() -> None:
    known = {f"x{at}": "f" for at in range(7)} | {"s0": "missing"}
    with pytest.raises(ManifestError) as caught:
        rebalanced_manifest(manifest_of(rows_of()), known)
    assert str(caught.value) == (
        "cohort/manifest.csv: 2 problems\n"
        "  1. expected subgroups of its own subjects, 7 are not in it: x0, x1, x2, x3, x4, ...\n"
        "  2. expected a subgroup for every training subject, 9 have none: s1, s2, s3, s4, s5, ...; "
        "add them, or choose missing='drop' or 'group'"
    )
    with pytest.raises(ManifestError, match="expected no subgroup named 'missing', it names those without one"):
        rebalanced_manifest(manifest_of(rows_of()), {"s0": "missing"}, missing="group")
    with pytest.raises(ManifestError) as caught:
        rebalanced_manifest(manifest_of(rows_of()), {"t0": "f"}, missing="drop")
    message = "expected training subjects with a subgroup, got none; check the ids"
    assert str(caught.value) == f"cohort/manifest.csv: {message}"


def test_a_manifest_or_option_that_cannot_be_used_is_refused_with_every_problem() -> None:
    table = pd.DataFrame({"subject_id": ["a"], "image": ["a.png"], "label": ["1"], "fold": ["0"], "weight": ["2"]})
    table["subgroup"] = "a"
    with pytest.raises(ManifestError) as caught:
        rebalanced_manifest(check_manifest(table, "m.csv"), {}, method="copy", missing="keep")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "m.csv: 5 problems\n"
        "  1. method: expected one of weights, resample, got 'copy'\n"
        "  2. missing: expected one of error, drop, group, got 'keep'\n"
        "  3. expected a column 'split', found none; add it\n"
        "  4. expected no column 'subgroup', it would be overwritten; remove it\n"
        "  5. expected no column 'weight', it would be overwritten; remove it"
    )
    table = pd.DataFrame({"subject_id": ["a"], "image": ["a.png"], "split": ["test"]})
    with pytest.raises(ManifestError) as caught:
        rebalanced_manifest(check_manifest(table, "m.csv", labelled=False), {})
    assert str(caught.value) == (
        "m.csv: 2 problems\n  1. expected a column 'label', found none; add it\n"
        "  2. expected rows with split 'train', got none"
    )
