"""Predictions of other tools: their names of columns, and what they lack."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from monai_fair.data import read_predictions
from monai_fair.errors import PredictionsError

NO_SPLIT = "no column 'split': every row is taken as a test row"
NO_IMAGE = "no column 'image', and one row per subject: the subject_id is taken as the image"
COLUMNS = {"subject_id": "PatientID", "score": "prob", "label": "y_true"}
TEXT = "PatientID,prob,y_true,sex,PatientAge\n007,0.25,1.0,F,61\n008,0.75,0.0,,NA\n"


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "export.csv"
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path, columns: dict[str, str] | None = None) -> str:
    with pytest.raises(PredictionsError) as caught:
        read_predictions(path, columns=columns)
    return str(caught.value)


def test_an_export_of_another_tool(tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path), columns=COLUMNS)
    assert found.table[["subject_id", "image", "split", "label", "score", "sex"]].to_numpy().tolist() == [
        ["007", "007", "test", 1, 0.25, "F"],
        ["008", "008", "test", 0, 0.75, ""],
    ]
    assert found.attributes == ("sex", "PatientAge")
    assert found.notes == (NO_SPLIT, NO_IMAGE)


def test_what_is_there_is_not_assumed(tmp_path: Path) -> None:
    text = "id,file,part,label,score,sex\na,1.png,val,0,0.1,F\na,2.png,val,0,0.1,F\nb,1.png,test,1,0.2,M\n"
    found = read_predictions(write(tmp_path, text), columns={"subject_id": "id", "image": "file", "split": "part"})
    assert found.notes == ()
    assert found.table["image"].tolist() == ["1.png", "2.png", "1.png"]
    assert found.table["split"].tolist() == ["val", "val", "test"]
    assert found.attributes == ("sex",)


def test_several_rows_of_a_subject_need_an_image(tmp_path: Path) -> None:
    path = write(tmp_path, "subject_id,label,score\na,1,0.5\na,1,0.5\n")
    assert message(path) == (
        f"{path}: expected a column 'image', found none, and subjects with several rows; add it, or map the file's own "
        "with columns image=NAME"
    )


def test_columns_may_change_places(tmp_path: Path) -> None:
    text = "subject_id,image,split,score,label\na,1,test,1,0.25\n"
    found = read_predictions(write(tmp_path, text), columns={"score": "label", "label": "score", "image": "image"})
    assert found.table[["label", "score"]].to_numpy().tolist() == [[1, 0.25]]


def test_several_classes_are_mapped(tmp_path: Path) -> None:
    text = "subject_id,label,benign,malignant\na,1,0.25,0.75\n"
    found = read_predictions(write(tmp_path, text), columns={"score_0": "benign", "score_1": "malignant"})
    assert found.score_columns == ("score_0", "score_1")
    assert found.table[["score_0", "score_1"]].to_numpy().tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (
            {"gender": "sex"},
            "'gender=sex': expected one of subject_id, image, split, label, image_id, threshold, score or score_0, ... "
            "before the '='",
        ),
        (
            {"subject_id": "patientid"},
            "'subject_id=patientid': expected a column 'patientid', found label, p, sex; choose among these",
        ),
        (
            {"label": "sex"},
            "'label=sex': the file has a column 'label' too; rename or remove it, or use it as it is",
        ),
        (
            {"score": "p", "threshold": "p"},
            "column 'p': expected one use, got 2 (score, threshold); keep one",
        ),
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, columns: dict[str, str], problem: str) -> None:
    path = write(tmp_path, "label,p,sex\n1,0.5,f\n")
    assert message(path, columns) == f"{path}: {problem}"


def test_all_problems_of_names_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "label,p,sex\n1,0.5,f\n")
    found = message(path, {"gender": "sex", "label": "p", "score": "p", "image": "file", "Score": "none"})
    assert [line[5:40] for line in found.splitlines()[1:]] == [
        "'gender=sex': expected one of subje",
        "'label=p': the file has a column 'l",
        "'image=file': expected a column 'fi",
        "'Score=none': expected one of subje",
        "'Score=none': expected a column 'no",
        "column 'p': expected one use, got 2",
    ]


def test_cells_are_named_by_our_column_and_the_line_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT + "009,1.5,1,F,4\n")
    assert message(path, COLUMNS) == f"{path}: line 4, column 'score': expected a number in [0, 1], got '1.5'"


def test_gzip_and_parquet_are_read_as_csv_is(tmp_path: Path) -> None:
    plain = read_predictions(write(tmp_path), columns=COLUMNS)
    packed = tmp_path / "export.csv.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    columnar = tmp_path / "export.parquet"
    typed = {"PatientID": ["007", "008"], "prob": [0.25, 0.75], "y_true": [True, False], "sex": ["F", None]}
    pd.DataFrame({**typed, "PatientAge": ["61", "NA"]}).to_parquet(columnar)
    for path in (packed, columnar):
        found = read_predictions(path, columns=COLUMNS)
        pd.testing.assert_frame_equal(found.table, plain.table)
        assert (found.attributes, found.notes, found.source) == (plain.attributes, plain.notes, str(path))


def test_a_missing_score_in_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "export.parquet"
    pd.DataFrame({"subject_id": ["a", "b"], "label": [0, 1], "score": [0.5, None]}).to_parquet(path)
    assert message(path) == f"{path}: line 3, column 'score': expected a number in [0, 1], got ''"


def test_a_split_under_another_name_is_not_taken_for_test_rows(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("subject_id,Set,label,score\na,train,0,0.1\nb,Test,1,0.9\n")
    with pytest.raises(PredictionsError) as caught:
        read_predictions(path)
    assert str(caught.value) == (
        f"{path}: expected a column 'split', found none, and 'Set' holds test, train; map it with columns split=Set "
        "(values train, val, test), or remove it to take every row as a test row"
    )
