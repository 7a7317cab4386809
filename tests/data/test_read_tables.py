"""Tables from compressed CSV and from Parquet: the same text as from plain CSV, or one clear error."""

import csv
import gzip
import zlib
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monai_fair.data import tables
from monai_fair.data.tables import read_table
from monai_fair.errors import PredictionsError

TEXT = 'id,race\n001,n/a\n002,Ærø\n003,"a, ""b"""\n004, NA\n005,\n\n'
CELLS = [["001", "n/a"], ["002", "Ærø"], ["003", 'a, "b"'], ["004", " NA"], ["005", ""]]


def message(path: Path) -> str:
    with pytest.raises(PredictionsError) as caught:
        read_table(path, PredictionsError)
    return str(caught.value)


def parquet(folder: Path, **columns: object) -> Path:
    path = folder / "t.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv", "t.GZ"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_gzip_is_told_by_the_first_bytes(tmp_path: Path, name: str, mark: bytes, end: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(mark + TEXT.encode().replace(b"\n", end)))
    found = read_table(path, PredictionsError)
    assert list(found) == ["id", "race"]
    assert found.to_numpy().tolist() == CELLS


def crc(packed: bytes) -> bytes:
    return packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda packed: packed[:-9], "Compressed file ended before the end-of-stream marker was reached"),
        (crc, f"CRC check failed {hex(zlib.crc32(TEXT.encode()) ^ 1)} != {hex(zlib.crc32(TEXT.encode()))}"),
        (lambda _: TEXT.encode(), "Not a gzipped file (b'id')"),
        (lambda packed: packed[:10] + b"\xff" * 20, "Error -3 while decompressing data: invalid block type"),
    ],
)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(damage(gzip.compress(TEXT.encode())))
    assert message(path) == f"{path}: expected a whole gzip file; {reason}; copy it again"


def test_an_empty_gzip_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"\n\n"))
    assert message(path) == f"{path}: expected a CSV file in UTF-8 with a header line; it is empty"
    assert (
        message(tmp_path / "no.csv.gz") == f"{tmp_path / 'no.csv.gz'}: expected a CSV file, found none; check the path"
    )


def test_lines_count_on_over_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK", 2)
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 5 + "1\n" + "1,2\n" * 3 + "1,2,3\n" + "1,2\n\n1,2\n" + "\n" * 5)
    assert message(path).splitlines()[1:] == [
        "  1. line 7: expected 2 cells as in the header, got 1",
        "  2. line 11: expected 2 cells as in the header, got 3",
        "  3. line 13: expected 2 cells as in the header, got 0",
    ]
    path.write_text("a,b\n" + "1,2\n" * 4 + '1,"x\ny"\n1\n')
    assert message(path) == f"{path}: line 6: expected one line per row, got a cell with a line break; remove it"


def test_a_blank_header_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n1,2\n")
    assert message(path) == f"{path}: line 2: expected 0 cells as in the header, got 2"
    path.write_text(",\n1,2\n")
    assert message(path).splitlines()[1:] == [
        "  1. expected one column '', found 2; keep one",
        "  2. line 1: expected a name for every column, column 1 has none",
    ]
    path.write_text(",\n,\n\n")
    assert message(path) == f"{path}: expected a CSV file in UTF-8 with a header line; it is empty"


def test_columns_are_text_and_held_by_arrow_where_pandas_can(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,\n")
    found = read_table(path, PredictionsError)
    assert (found.dtypes == pd.Series(["x"], dtype=str).dtype).all()
    path.write_text("a,b\n\n\n")
    assert list(read_table(path, PredictionsError)) == ["a", "b"]
    assert len(read_table(path, PredictionsError)) == 0


def test_parquet_cells_become_text(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        text=["001", None, " NA"],
        code=pa.array(["b", "a", None]).dictionary_encode(),
        year=pa.array([1.5, 2.0, None]).dictionary_encode(),
        whole=pa.array([7, None, -(2**62)]),
        real=[0.1, 1.0, 1e-300],
        single=pa.array([0.1, None, 1 / 3], pa.float32()),  # 0.1 in float32 is 0.10000000149
        half=pa.array(np.array([0.1, np.nan, 1], np.float16)),
        flag=[True, None, False],
        born=[date(2024, 5, 31)] * 3,
        seen=pa.array([datetime(2024, 5, 31, 1, 2, 3)] * 3, pa.timestamp("s")),
        dose=[Decimal("1.50")] * 3,
        raw=[b"abc", None, "ü".encode()],
        nothing=pa.nulls(3),
    )
    found = read_table(path, PredictionsError)
    assert {name: found[name].tolist() for name in found} == {
        "text": ["001", "", " NA"],
        "code": ["b", "a", ""],
        "year": ["1.5", "2.0", ""],
        "whole": ["7", "", "-4611686018427387904"],
        "real": ["0.1", "1.0", "1e-300"],
        "single": ["0.1", "", "0.33333334"],
        "half": ["0.1", "", "1.0"],
        "flag": ["True", "", "False"],
        "born": ["2024-05-31"] * 3,
        "seen": ["2024-05-31 01:02:03.000"] * 3,
        "dose": ["1.50"] * 3,
        "raw": ["abc", "", "ü"],
        "nothing": [""] * 3,
    }


def test_pandas_writes_what_is_read(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["1", "2"], "sex": pd.Categorical(["f", None]), "age": pd.array([1, None], "Int64")})
    table.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", PredictionsError).to_numpy().tolist() == [["1", "f", "1"], ["2", "", ""]]


def test_parquet_columns_that_are_no_text(tmp_path: Path) -> None:
    path = parquet(tmp_path, boxes=[[1]], id=["a"], meta=[{"a": 1}])
    assert message(path) == (
        f"{path}: 2 problems\n"
        "  1. column 'boxes': expected text, numbers, booleans or dates, got list<element: int64>; leave it out\n"
        "  2. column 'meta': expected text, numbers, booleans or dates, got struct<a: int64>; leave it out"
    )


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = parquet(tmp_path, id=["a", "b"], race=pa.array([b"x", b"\xff"]).view(pa.string()))
    where = f"{path}: expected a readable Parquet file; column 'race':"
    assert message(path) == f"{where} Invalid UTF8 sequence at string index 1"


def test_a_line_break_in_parquet_is_refused_as_in_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK", 2)
    path = parquet(tmp_path, id=["a", "b", "c", "d\r", "e"], race=["x", "x", "x", "x", "y\nz"])
    assert message(path) == f"{path}: line 5: expected one line per row, got a cell with a line break; remove it"


def test_parquet_names_every_column_once(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, names=["a", "a", ""]), path)
    assert message(path) == (
        f"{path}: 2 problems\n"
        "  1. expected one column 'a', found 2; keep one\n"
        "  2. line 1: expected a name for every column, column 3 has none"
    )


def test_files_that_are_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(TEXT.encode())
    assert message(path).startswith(
        f"{path}: expected a readable Parquet file; Parquet magic bytes not found in footer."
    )
    pq.write_table(pa.table({}), path)
    assert message(path) == f"{path}: expected a readable Parquet file; it is empty"
    assert message(tmp_path / "no.parquet").endswith("no.parquet: expected a Parquet file, found none; check the path")


def test_a_flipped_byte_in_parquet_is_found_where_there_are_checksums(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    plain = {"use_dictionary": False, "compression": "none", "write_statistics": False}
    pq.write_table(pa.table({"a": ["AAAA", "BBBB"]}), path, write_page_checksum=True, **plain)
    path.write_bytes(path.read_bytes().replace(b"BBBB", b"BBBC", 1))
    assert message(path).startswith(f"{path}: expected a readable Parquet file; could not verify page integrity, CRC")


def test_a_csv_file_that_starts_like_parquet_is_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("PAR1,b\n1,2\n")
    assert list(read_table(path, PredictionsError)) == ["PAR1", "b"]


def test_a_cell_beyond_the_limit_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,"' + "x,y\n" * csv.field_size_limit())
    reason = f"field larger than field limit ({csv.field_size_limit()})"
    assert message(path) == f"{path}: expected a CSV file in UTF-8 with a header line; {reason}"
