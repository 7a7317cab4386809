"""A table read in pieces is the table read at once, and Parquet's text is Python's."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fair.data import tables
from monai_fair.errors import ManifestError

FILES = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PIECE = st.sampled_from(["a", "b", ",", ",", "\n", "\n", "\r\n", "\r", '"', '""', '"x\ny"', '"x,y"', " ", "é", "a,b\n"])


def read_at_once(text: str) -> tuple[list[str], list[list[str]]] | str:
    """The table, or what is wrong with its lines, from a list of all rows."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        return str(error)
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        return "empty"
    for line, row in enumerate(rows[1:], start=2):
        if re.search(r"[\r\n]", "".join(row)):
            return f"line {line}: expected one line per row"
        if len(row) != len(rows[0]):
            return f"line {line}: expected {len(rows[0])} cells as in the header, got {len(row)}"
    return rows[0], rows[1:]


@FILES
@given(st.lists(PIECE, max_size=40).map("".join), st.integers(1, 4))
def test_the_size_of_pieces_changes_nothing(tmp_path: Path, text: str, chunk: int) -> None:
    path = tmp_path / "t.csv"
    path.write_text("h,k\n" + text, encoding="utf-8", newline="")
    wanted = read_at_once("h,k\n" + text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CHUNK", chunk)
        if isinstance(wanted, str):
            with pytest.raises(ManifestError) as caught:
                tables.read_table(path, ManifestError)
            # after a cell with a line break nothing more is read, so bad quotes further down are not seen
            unseen = not wanted.startswith("line") and "a cell with a line break" in str(caught.value)
            assert wanted in str(caught.value) or unseen
        else:
            found = tables.read_table(path, ManifestError)
            assert (list(found), found.to_numpy().tolist()) == (wanted[0], wanted[1])


@FILES
@given(
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=5),
    st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=5),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=1, max_size=5),
)
def test_parquet_cells_are_what_python_prints(tmp_path: Path, whole: Any, real: Any, flags: Any) -> None:
    path = tmp_path / "t.parquet"
    for values, kind in ((whole, pa.int64()), (real, pa.float64()), (flags, pa.bool_())):
        pq.write_table(pa.table({"value": pa.array(values, kind)}), path)
        found = tables.read_table(path, ManifestError)["value"].tolist()
        assert found == ["" if value is None or value != value else str(value) for value in values]


@FILES
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5))
def test_single_precision_comes_back_bit_for_bit(tmp_path: Path, values: list[float]) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"value": pa.array(values, pa.float32())}), path)
    found = tables.read_table(path, ManifestError)["value"]
    np.testing.assert_array_equal(found.astype(np.float32), np.array(values, np.float32))
    assert all(len(text) <= len(repr(value)) for text, value in zip(found, values, strict=True))  # no digit too many
