"""The contract of manifest.csv: what is read comes back as it stands, what breaks it is named by line and column."""

from pathlib import Path

import pytest

from monai_fair.data import Manifest, check_images, load_datalist, read_manifest
from monai_fair.errors import ManifestError

HEADER = ["subject_id", "image", "label", "split", "sha256", "weight", "sex"]
DIGEST = "0123456789abcdef" * 4
ROWS = [
    ["p1", "a/1.jpg", "0", "train", DIGEST, "1", "female"],
    ["p1", "a/2.jpg", "1", "train", "", "0.5", "male"],
    ["p-2.b", "a/3.jpg", "1", "val", "", "2e1", ""],
    ["P_3", "b/1.jpg", "0", "test", "", "1", "male"],
]


def write(folder: Path, rows: list[list[str]] = ROWS, header: list[str] = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n", encoding="utf-8")
    return path


def message(path: Path, **options: bool) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, **options)
    return str(caught.value)


def test_a_good_manifest(tmp_path: Path) -> None:
    found = read_manifest(write(tmp_path))
    assert isinstance(found, Manifest)
    assert found.attributes == ("sex",)
    assert found.part == "split"
    assert found.table["label"].tolist() == [0, 1, 1, 0]
    assert found.table["weight"].tolist() == [1.0, 0.5, 20.0, 1.0]
    assert found.table["sex"].tolist() == ["female", "male", "", "male"]


SUBJECT = "letters, digits, '_', '.' or '-' only"
INSIDE = "a path under the data root, without '..'"
MUTATIONS = [  # line, column, new cell, what is expected there
    (2, "subject_id", "", SUBJECT),
    (5, "subject_id", "..", SUBJECT),
    (5, "subject_id", "Müller", SUBJECT),
    (5, "subject_id", "a/b", SUBJECT),
    (5, "subject_id", "P_3 ", SUBJECT),
    (4, "image", "", INSIDE),
    (4, "image", "a/../../3.jpg", INSIDE),
    (4, "image", "/a/3.jpg", INSIDE),
    (4, "image", "C:/a/3.jpg", INSIDE),
    (4, "image", "\\\\host\\3.jpg", INSIDE),
    (4, "image", "a\\..\\3.jpg", INSIDE),
    (4, "image", "a/3\0.jpg", INSIDE),
    (5, "image", "a/2.jpg", "one row per image"),
    (5, "image", "a//./2.jpg", "one row per image"),
    (3, "label", "2", "0 or 1"),
    (3, "label", "1.0", "0 or 1"),
    (3, "label", "", "0 or 1"),
    (3, "label", "-1", "0 or 1"),
    (4, "split", "valid", "one of train, val, test"),
    (4, "split", "", "one of train, val, test"),
    (2, "sha256", DIGEST[:-1], "64 hexadecimal digits or nothing"),
    (2, "sha256", DIGEST.upper(), "64 hexadecimal digits or nothing"),
    (5, "weight", "0", "a positive number"),
    (5, "weight", "-1", "a positive number"),
    (5, "weight", "inf", "a positive number"),
    (5, "weight", "heavy", "a positive number"),
    (5, "weight", "", "a positive number"),
]


@pytest.mark.parametrize(("line", "column", "cell", "expected"), MUTATIONS)
def test_every_bad_cell_is_named_exactly(tmp_path: Path, line: int, column: str, cell: str, expected: str) -> None:
    rows = [list(row) for row in ROWS]
    rows[line - 2][HEADER.index(column)] = cell
    path = write(tmp_path, rows)
    assert message(path) == f"{path}: line {line}, column '{column}': expected {expected}, got '{cell}'"


def test_a_subject_in_two_parts_is_an_error_in_every_entry_point(tmp_path: Path) -> None:
    rows = [list(row) for row in ROWS]
    rows[3][0] = "p1"
    path = write(tmp_path, rows)
    expected = f"{path}: subject 'p1' stands in test and train; put it in one"
    assert message(path) == expected
    with pytest.raises(ManifestError) as caught:
        load_datalist(path, tmp_path, "train")
    assert str(caught.value) == expected
    with pytest.raises(ManifestError) as caught:
        check_images(read_manifest(path), tmp_path)
    assert str(caught.value) == expected


def test_a_subject_in_two_folds_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, [["a", "1", "0", "0"], ["a", "2", "0", "1"]], ["subject_id", "image", "label", "fold"])
    assert message(path) == f"{path}: subject 'a' stands in 0 and 1; put it in one"


@pytest.mark.parametrize("fold", ["first", "1.0", "-1", "", "٣"])
def test_a_fold_is_a_whole_number(tmp_path: Path, fold: str) -> None:
    path = write(tmp_path, [["a", "1", "0", "0"], ["b", "2", "0", fold]], ["subject_id", "image", "label", "fold"])
    assert message(path) == f"{path}: line 3, column 'fold': expected a whole number, got '{fold}'"


@pytest.mark.parametrize("name", ["pred", "row", "attributes"])
def test_names_that_training_needs(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, header=[*HEADER[:-1], name])
    assert message(path) == f"{path}: column '{name}' has a name that training needs for itself; rename it"


@pytest.mark.parametrize("name", ["score", "score_0", "score_12", "threshold"])
def test_names_that_predictions_need(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, header=[*HEADER[:-1], name])
    assert message(path) == f"{path}: column '{name}' has a name that tables of predictions need; rename it"


def test_all_missing_columns_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, [], ["sex"])
    assert message(path) == (
        f"{path}: 5 problems\n"
        "  1. expected a column 'subject_id', found none; add it\n"
        "  2. expected a column 'image', found none; add it\n"
        "  3. expected a column 'label', found none; add it\n"
        "  4. expected a column 'split' (train, val, test) or 'fold' (a number), found none; add it\n"
        "  5. expected at least one row, got none"
    )


def test_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    assert message(path) == f"{path}: expected at least one row, got none"


def test_several_problems_come_together(tmp_path: Path) -> None:
    rows = [[f"s{number}", f"{number}.jpg", "3", "train", "", "1", ""] for number in range(8)]
    rows += [["s0", "../x.jpg", "1", "test", "", "1", ""], ["s 9", "7.jpg", "1", "dev", "", "nan", ""]]
    path = write(tmp_path, rows)
    assert message(path) == (
        f"{path}: 7 problems\n"
        f"  1. line 11, column 'subject_id': expected {SUBJECT}, got 's 9'\n"
        f"  2. line 10, column 'image': expected {INSIDE}, got '../x.jpg'\n"
        "  3. line 11, column 'image': expected one row per image, got '7.jpg'\n"
        "  4. line 2, column 'label': expected 0 or 1, got '3'; 7 more rows have this: lines 3, 4, 5, 6, 7, ...\n"
        "  5. line 11, column 'split': expected one of train, val, test, got 'dev'\n"
        "  6. line 11, column 'weight': expected a positive number, got 'nan'\n"
        "  7. subject 's0' stands in test and train; put it in one"
    )


def test_classes_beyond_two(tmp_path: Path) -> None:
    path = write(tmp_path, [["a", "1", "6", "train"]], ["subject_id", "image", "label", "split"])
    assert read_manifest(path, num_classes=7).table["label"].tolist() == [6]
    with pytest.raises(ManifestError, match="line 2, column 'label': expected a class index from 0 to 5, got '6'"):
        read_manifest(path, num_classes=6)


def test_ids_and_attributes_come_back_as_they_stand(tmp_path: Path) -> None:
    ids = ["001", "NA", "null", "1e5", "-1", "True"]
    values = ["n/a", "NA", "89+", "Ærøskøbing é", "trailing ", "NaN", "001", "1.0", "None", "", "<NA>", '"quoted"']
    rows = [[ids[n % 6], f"{n}.jpg", "0", "train", value.replace('"', '""')] for n, value in enumerate(values)]
    rows[-1][-1] = f'"{rows[-1][-1]}"'
    path = write(tmp_path, rows, ["subject_id", "image", "label", "split", "note"])
    table = read_manifest(path).table
    assert table["subject_id"].tolist() == ids * 2
    assert table["note"].tolist() == values
    items = load_datalist(path, tmp_path)
    assert [item["attributes"]["note"] for item in items] == values
    assert [item["subject_id"] for item in items] == ids * 2


def test_missing_attributes_stay_and_are_counted(tmp_path: Path) -> None:
    rows = [[f"s{n}", f"{n}.jpg", "0", "train", "" if n % 10 == 0 else "f"] for n in range(200)]
    path = write(tmp_path, rows, ["subject_id", "image", "label", "split", "sex"])
    table = read_manifest(path).table
    assert len(table) == len(load_datalist(path, tmp_path)) == 200
    assert table["sex"].value_counts().to_dict() == {"f": 180, "": 20}


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    plain = read_manifest(write(tmp_path)).table
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert read_manifest(path).table.equals(plain)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (
            b"subject_id,image\na,\xe9.jpg\n",
            "'utf-8' codec can't decode byte 0xe9 in position 19: invalid continuation byte",
        ),
        (b'subject_id,image\na,"1.jpg\n', "unexpected end of data"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    assert message(path) == f"{path}: expected a CSV file in UTF-8 with a header line; {reason}"


def test_no_file(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    assert message(path) == f"{path}: expected a CSV file, found none; check the path"
    assert message(tmp_path).startswith(f"{tmp_path}: expected a CSV file in UTF-8 with a header line; ")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        # pandas skips the blank line and then counts wrong
        ("a,1,0,train,f\n\nb,2,7,train,f\n", ["line 3: expected 5 cells as in the header, got 0"]),
        # pandas takes the missing cells for missing values
        ("a,1,0,train,f\nb,2,0,tr", ["line 3: expected 5 cells as in the header, got 4"]),
        # pandas takes the first column for row names and shifts all others
        (
            "a,1,0,train,f,\nb,2,0,train,f,\n",
            [f"line {line}: expected 5 cells as in the header, got 6" for line in (2, 3)],
        ),
        (
            'a,1,0,train,"fe\nmale"\nb,2,7,train,f\n',
            ["line 2: expected one line per row, got a cell with a line break; remove it"],
        ),
    ],
)
def test_lines_that_do_not_fit_the_header(tmp_path: Path, text: str, problems: list[str]) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("subject_id,image,label,split,sex\n" + text)
    listed = (
        problems[0]
        if len(problems) == 1
        else f"{len(problems)} problems\n"
        + "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, start=1))
    )
    assert message(path) == f"{path}: {listed}"


def test_a_header_names_every_column_once(tmp_path: Path) -> None:
    path = write(tmp_path, [["a", "1", "0", "train", "1", "x"]], ["subject_id", "image", "label", "split", "label", ""])
    assert message(path) == (
        f"{path}: 2 problems\n"
        "  1. expected one column 'label', found 2; keep one\n"
        "  2. line 1: expected a name for every column, column 6 has none"
    )


def test_images_without_labels(tmp_path: Path) -> None:
    path = write(tmp_path, [["a", "1.jpg"], ["b", "2.jpg"]], ["subject_id", "image"])
    assert read_manifest(path, labelled=False).attributes == ()
    assert load_datalist(path, tmp_path, labelled=False) == [
        {"image": str(tmp_path / "1.jpg"), "row": 0, "subject_id": "a", "attributes": {}},
        {"image": str(tmp_path / "2.jpg"), "row": 1, "subject_id": "b", "attributes": {}},
    ]
    assert "expected a column 'label', found none; add it" in message(path)
    with pytest.raises(ManifestError, match="expected rows with fold 'test', got none; found no such column"):
        load_datalist(path, tmp_path, "test", labelled=False)
    # what is there is checked
    path.write_text("subject_id,image,split\na,../1.jpg,dev\n")
    assert len(message(path, labelled=False).splitlines()) == 3
