from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monai_fair.data import read_predictions, score_names, write_predictions
from monai_fair.errors import PredictionsError

HEADER = "subject_id,image,split,label,score,sex\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "predictions.csv"
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path) -> str:
    with pytest.raises(PredictionsError) as caught:
        read_predictions(path)
    return str(caught.value)


def table(n: int = 4, scores: int = 1) -> pd.DataFrame:
    values = np.random.default_rng(0).dirichlet(np.ones(max(2, scores)), n)
    return pd.DataFrame(
        {
            "subject_id": [f"{place:03d}" for place in range(n)],
            "image": [f"a/{place}.jpg" for place in range(n)],
            "split": ["val", "test"] * (n // 2),
            "label": np.arange(n) % max(2, scores),
            **{name: values[:, place] for place, name in enumerate(score_names(scores))},
            "race": ["n/a", "Ærø", "", "89+"] * (n // 4),
            "age": ["001", "NA", " 5", "NaN"] * (n // 4),
        }
    )


@pytest.mark.parametrize("scores", [1, 2, 3, 7, 11])
def test_round_trip(tmp_path: Path, scores: int) -> None:
    written = table(400, scores)
    found = read_predictions(write_predictions(tmp_path / "new" / "p.csv", written))
    names = ("score",) if scores == 1 else tuple(f"score_{place}" for place in range(scores))
    assert found.score_columns == names == score_names(scores)
    assert found.num_classes == max(2, scores)
    assert found.attributes == ("race", "age")
    assert found.source == str(tmp_path / "new" / "p.csv")
    for name in names:  # every bit
        np.testing.assert_array_equal(found.table[name].to_numpy(), written[name].to_numpy())
    for name in ("subject_id", "image", "split", "label", "race", "age"):
        assert found.table[name].tolist() == written[name].tolist()
    assert found.table["label"].dtype == np.int64


def test_attributes_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path, "zone,score,image_id,age,label,image,threshold,split,subject_id,sex\nz,0.5,I,9,1,i,0.4,test,s,f\n"
    )
    found = read_predictions(path)
    assert found.attributes == ("zone", "age", "sex")
    assert found.table[["image_id", "threshold"]].to_numpy().tolist() == [["I", 0.4]]
    assert found.notes == ()


def test_scores_may_be_zero_and_one(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "a,1,test,0,0,f\nb,2,test,1,1.0,f\nc,3,test,1,1e-300,f\n")
    assert read_predictions(path).table["score"].tolist() == [0.0, 1.0, 1e-300]


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEADER + "a,1,test,2,0.5,f\nb,2,dev,1,1.5,f\n,3,test,,nan,f\nd,4,test,1,,m\nd,4,test,0.5,-0.1,m\n",
    )
    assert message(path) == (
        f"{path}: 5 problems\n"
        "  1. line 2, column 'label': expected a class index from 0 to 1, got '2'; 2 more rows have this: lines 4, 6\n"
        "  2. line 3, column 'score': expected a number in [0, 1], got '1.5'; 3 more rows have this: lines 4, 5, 6\n"
        "  3. line 3, column 'split': expected one of train, val, test, got 'dev'\n"
        "  4. line 4, column 'subject_id': expected an identifier, got ''\n"
        "  5. line 6, column 'image': expected one row per subject and image, got '4'"
    )


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "1.0000001", "-1e-9", "0,5", "half", "0x1", "True", ""])
def test_scores_that_are_none(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path, HEADER + f'a,1,test,1,"{cell}",f\n')
    assert message(path) == f"{path}: line 2, column 'score': expected a number in [0, 1], got '{cell}'"


def test_missing_columns_and_rows_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "sex,score_0\n")
    assert message(path) == (
        f"{path}: 5 problems\n"
        "  1. expected a column 'subject_id', found none; add it, or map the file's own with columns subject_id=NAME\n"
        "  2. expected a column 'image', found none; add it, or map the file's own with columns image=NAME\n"
        "  3. expected a column 'label', found none; add it, or map the file's own with columns label=NAME\n"
        "  4. expected a column 'score' (or 'score_0', 'score_1', ...), found none; add it, or map the file's own with "
        "columns score=NAME\n"
        "  5. expected at least one row, got none; check the run that wrote it"
    )


def test_a_table_to_write_has_image_and_split(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError) as caught:
        write_predictions(tmp_path / "p.csv", table().drop(columns=["image", "split"]))
    assert str(caught.value).splitlines()[1:] == [
        f"  {number}. expected a column '{name}', found none; add it, or map the file's own with columns {name}=NAME"
        for number, name in ((1, "image"), (2, "split"))
    ]


@pytest.mark.parametrize("cells", [("0", "1"), ("0.0", "1.0"), ("False", "True"), ("0", "True"), ("00", "1e0")])
def test_labels_are_whole_numbers_or_booleans(tmp_path: Path, cells: tuple[str, str]) -> None:
    path = write(tmp_path, HEADER + "".join(f"s{cell},1,test,{cell},0.5,f\n" for cell in cells))
    assert read_predictions(path).table["label"].tolist() == [0, 1]
    assert read_predictions(path).table["label"].dtype == np.int64


@pytest.mark.parametrize("cell", ["0.5", "1.0000001", "2", "-1", "nan", "inf", "true", "yes", "positive", ""])
def test_labels_that_are_none(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path, HEADER + f"a,1,test,True,0.5,f\nb,1,test,{cell},0.5,f\n")
    assert message(path) == f"{path}: line 3, column 'label': expected a class index from 0 to 1, got '{cell}'"


def test_a_boolean_is_no_label_of_several_classes(tmp_path: Path) -> None:
    path = write(tmp_path, "subject_id,image,split,label,score_0,score_1,score_2\na,1,test,True,1,0,0\n")
    assert message(path) == f"{path}: line 2, column 'label': expected a class index from 0 to 2, got 'True'"


def test_one_class_only_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "a,1,test,1,0.5,f\nb,1,test,1,0.5,f\n")
    assert read_predictions(path).table["label"].tolist() == [1, 1]


def test_repeated_rows_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "a,1,test,1,0.5,f\nb,1,test,1,0.5,f\n" + "a,1,test,0,0.4,f\n" * 8)
    assert message(path) == (
        f"{path}: line 4, column 'image': expected one row per subject and image, got '1'; 7 more rows have this: "
        "lines 5, 6, 7, 8, 9, ..."
    )


def test_a_threshold_is_a_number_in_every_row(tmp_path: Path) -> None:
    header = HEADER.replace("sex", "threshold")
    path = write(tmp_path, header + "a,1,test,1,0.5,0.25\nb,1,val,1,0.5,-1\nc,1,test,1,0.5,1e1\n")
    found = read_predictions(path)
    assert found.table["threshold"].tolist() == [0.25, -1.0, 10.0]
    assert found.attributes == ()
    path = write(tmp_path, header + "a,1,test,1,0.5,\nb,1,val,1,0.5,0.5\nc,1,test,1,0.5,inf\nd,1,test,1,0.5,half\n")
    assert message(path) == (
        f"{path}: line 2, column 'threshold': expected a finite number, got ''; 2 more rows have this: lines 4, 5"
    )


def test_a_subject_stands_in_one_split(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "a,1,test,1,0.5,f\na,2,train,1,0.5,f\nb,1,val,1,0.5,f\nb,2,val,1,0.5,f\n")
    assert message(path) == f"{path}: subject 'a' stands in test and train; put it in one"


@pytest.mark.parametrize(
    ("scores", "extra", "kept"),
    [("score,score_0", "score_0", "score"), ("score_0,score_1,score_3", "score_3", "score_0, score_1")],
)
def test_a_gap_in_the_scores_is_not_an_attribute(tmp_path: Path, scores: str, extra: str, kept: str) -> None:
    cells = ",".join("0.5" for _ in scores.split(","))
    path = write(tmp_path, f"subject_id,image,split,label,{scores}\na,1,test,1,{cells}\n")
    assert message(path) == f"{path}: column '{extra}': expected scores {kept} only; rename or remove it"


def test_labels_of_several_classes(tmp_path: Path) -> None:
    path = write(tmp_path, "subject_id,image,split,label,score_0,score_1,score_2\na,1,test,3,1,0,0\n")
    assert message(path) == f"{path}: line 2, column 'label': expected a class index from 0 to 2, got '3'"


def test_nothing_is_written_when_something_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("old")
    with pytest.raises(PredictionsError) as caught:
        write_predictions(path, table().assign(score=[0.1, np.nan, 0.2, 2.0]))
    assert str(caught.value) == (
        f"{path}: line 3, column 'score': expected a number in [0, 1], got ''; 1 more rows have this: lines 5"
    )
    assert path.read_text() == "old"


def test_lines_count_rows_whatever_the_index_is(tmp_path: Path) -> None:
    rows = table().set_index(pd.Index([7, 7, 3, 1])).assign(label=[0, 1, 9, 1])
    with pytest.raises(PredictionsError, match="line 4, column 'label': expected a class index from 0 to 1, got '9'"):
        write_predictions(tmp_path / "p.csv", rows)


def test_predictions_without_labels_are_written_but_not_audited(tmp_path: Path) -> None:
    rows = table().assign(label="", split="")
    path = write_predictions(tmp_path / "p.csv", rows, labelled=False)
    assert path.read_text().splitlines()[1].startswith("000,a/0.jpg,,,0.")
    with pytest.raises(PredictionsError, match="expected a class index from 0 to 1, got ''"):
        write_predictions(tmp_path / "q.csv", rows)
    assert not (tmp_path / "q.csv").exists()
    assert message(path).startswith(f"{path}: 2 problems\n")


def test_without_labels_what_is_there_is_still_checked(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError) as caught:
        write_predictions(tmp_path / "p.csv", table().assign(label=["", "2", "0", ""], split="dev"), labelled=False)
    assert len(str(caught.value).splitlines()) == 3
