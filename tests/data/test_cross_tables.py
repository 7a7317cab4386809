import pandas as pd

from monai_fair.data import cross_tables, small_cells

TABLE = pd.DataFrame(
    [
        ("a", 0, "train", "f", "old"),
        ("a", 1, "train", "f", "old"),
        ("b", 1, "train", "", "old"),
        ("c", 2, "test", "m", ""),
        ("d", 1, "test", "m", "young"),
    ],
    columns=["subject_id", "label", "split", "sex", "age"],
)


def cells(*, num_classes: int = 3) -> dict[tuple[str, str, str], dict[str, object]]:
    rows = cross_tables(TABLE, ["sex", "age"], intersect=["sex", "age"], num_classes=num_classes)
    return {(row["split"], row["attribute"], row["group"]): row for row in rows}


def test_counts_by_hand() -> None:
    found = cells()
    counts = {key: (row["n"], row["n_subjects"], row["n_per_class"]) for key, row in found.items()}
    nobody = (0, 0, [0, 0, 0])
    assert counts == {
        ("train", "sex", "f"): (2, 1, [1, 1, 0]),
        ("train", "sex", "m"): nobody,
        ("train", "sex", "missing"): (1, 1, [0, 1, 0]),
        ("test", "sex", "f"): nobody,
        ("test", "sex", "m"): (2, 2, [0, 1, 1]),
        ("test", "sex", "missing"): nobody,
        ("train", "age", "old"): (3, 2, [1, 2, 0]),
        ("train", "age", "young"): nobody,
        ("train", "age", "missing"): nobody,
        ("test", "age", "old"): nobody,
        ("test", "age", "young"): (1, 1, [0, 1, 0]),
        ("test", "age", "missing"): (1, 1, [0, 0, 1]),
        ("train", "sex x age", "f, old"): (2, 1, [1, 1, 0]),
        ("train", "sex x age", "m, young"): nobody,
        ("train", "sex x age", "missing"): (1, 1, [0, 1, 0]),
        ("test", "sex x age", "f, old"): nobody,
        ("test", "sex x age", "m, young"): (1, 1, [0, 1, 0]),
        ("test", "sex x age", "missing"): (1, 1, [0, 0, 1]),
    }
    assert {row["prevalence"] for row in found.values()} == {None}


def test_prevalence_is_undefined_for_nobody() -> None:
    binary = TABLE.assign(label=TABLE["label"].clip(upper=1))
    found = {(row["split"], row["group"]): row["prevalence"] for row in cross_tables(binary, ["sex"])}
    assert found == {
        ("test", "f"): None,
        ("test", "m"): 1.0,
        ("test", "missing"): None,
        ("train", "f"): 0.5,
        ("train", "m"): None,
        ("train", "missing"): 1.0,
    }


def test_small_cells_by_their_rarest_class() -> None:
    rows = [
        {"split": "test", "attribute": "sex", "group": group, "n_per_class": counts}
        for group, counts in {"f": [10, 9], "m": [10, 10], "missing": [0, 0], "x": [0, 50]}.items()
    ]
    assert small_cells(rows) == [
        "test, sex = f: 10, 9 rows of class 0, 1",
        "test, sex = x: 0, 50 rows of class 0, 1",
    ]
    assert small_cells(rows, minimum=0) == []
