"""Labels of annotators as files, and the manifest they become."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fair.errors import LabelError
from monai_fair.label.labels import (
    LabelledImage,
    check_enough,
    class_names,
    group_names,
    label_table,
    read_label,
    split_labels,
    with_weights,
)

NAMES = ("no melanoma", "Melanoma")


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def labelled(counts: dict[str, int], *, images: int = 1, offset: int = 0) -> pd.DataFrame:
    """So many subjects of each label, with so many images each; sexes in turn."""
    rows = [
        {"subject_id": f"s{label}_{number + offset}", "image": f"s{label}_{number + offset}_{view}.jpg", "label": label,
         "sex": ("female", "male")[number % 2]}
        for label, count in counts.items() for number in range(count) for view in range(images)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["subject_id", "image", "label", "sex"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [({"label": 1}, 1), ({"label": 0}, 0), ({"label": "melanoma"}, 1), ({"label": " NO Melanoma "}, 0),
     ({"label": 1, "who": "a"}, 1)],
)  # fmt: skip
def test_a_label_is_an_index_or_a_name(tmp_path: Path, content: Any, expected: int) -> None:
    assert read_label(write(tmp_path / "a.json", content), NAMES) == expected


@pytest.mark.parametrize("content", [{"label": 2}, {"label": -1}, {"label": True}, {"label": 1.0}, {"label": "1"},
                                     {"label": None}, {"class": 1}, [1], 1])  # fmt: skip
def test_another_label_is_refused_with_the_classes(tmp_path: Path, content: Any) -> None:
    with pytest.raises(LabelError, match=r"one of 0 \(no melanoma\), 1 \(Melanoma\), got"):
        read_label(write(tmp_path / "a.json", content), NAMES)


LUNG = ("clear", "nodule", "Melanoma")


def test_on_a_server_of_several_models_an_index_says_of_which_it_is(tmp_path: Path) -> None:
    def read(content: Any, others: Any = (LUNG,)) -> int | None:
        return read_label(write(tmp_path / "a.json", content), NAMES, model="skin", others=others)

    with pytest.raises(LabelError, match=r"expected the name of a class, or the key 'model' beside an index, .* got 1"):
        read({"label": 1})
    assert read({"label": 1, "model": "skin"}) == 1
    assert read({"label": 2, "model": "lung"}) is None
    assert read({"label": "melanoma"}) == 1  # both have it, and each learns from it
    assert read({"label": "Nodule"}) is None
    with pytest.raises(LabelError, match="got 'cancer'"):
        read({"label": "cancer"})
    same = ("NO melanoma", "melanoma")
    assert read({"label": 1}, [same]) == 1  # whosever it is, it is the same
    assert read({"label": 1}, []) == 1


def test_labels_of_other_models_are_no_rows(tmp_path: Path) -> None:
    contents = {"a": {"label": 1, "model": "skin"}, "b": {"label": 1, "model": "lung"}, "c": {"label": "clear"}}
    images = [LabelledImage(f"{n}.jpg", n, write(tmp_path / f"{n}.json", each)) for n, each in contents.items()]
    table = label_table(images, NAMES, source="labels", model="skin", others=[LUNG])
    assert table[["image", "label"]].to_numpy().tolist() == [["a.jpg", "1"]]


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000 + "]" * 100_000])
def test_what_is_no_json_is_refused_with_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(LabelError, match=r"a\.json: expected a label such as"):
        read_label(tmp_path / "a.json", NAMES)


def test_a_single_channel_names_class_1() -> None:
    assert class_names({"channel_def": {"0": "disease"}}, 2) == ("no disease", "disease")
    assert class_names({"channel_def": {"1": "b", "0": "a", "2": "c"}}, 3) == ("a", "b", "c")


def test_both_classes_of_a_single_channel_may_have_names() -> None:
    output = {"channel_def": {"0": "malignant"}, "classes": {"0": "benign", "1": "malignant"}}
    assert class_names(output, 2) == ("benign", "malignant")
    assert class_names({**output, "classes": {}}, 2) == ("no malignant", "malignant")


@pytest.mark.parametrize(("channels", "classes"), [({}, 2), ({"0": "a"}, 3), ({"0": "a", "1": "A"}, 2),
                                                   ({"0": "a", "2": "b"}, 2)])  # fmt: skip
def test_names_that_are_not_those_of_the_classes_are_refused(channels: dict[str, str], classes: int) -> None:
    with pytest.raises(LabelError, match=f"the names of {classes} classes"):
        class_names({"channel_def": channels}, classes)


def test_the_table_has_every_attribute_and_all_problems_are_told_at_once(tmp_path: Path) -> None:
    good = LabelledImage("a.jpg", "a", write(tmp_path / "a.json", {"label": 1}), {"sex": "male"})
    other = LabelledImage("b.jpg", "b", write(tmp_path / "b.json", {"label": 0}), {"age": "70"})
    table = label_table([good, other], NAMES, source="labels")
    assert table.to_dict("records") == [
        {"subject_id": "a", "image": "a.jpg", "label": "1", "age": "", "sex": "male"},
        {"subject_id": "b", "image": "b.jpg", "label": "0", "age": "70", "sex": ""},
    ]
    bad = [LabelledImage(f"{name}.jpg", name, tmp_path / f"{name}.json", {"split": "test"}) for name in "cd"]
    with pytest.raises(LabelError) as error:
        label_table([good, *bad], NAMES, source="labels")
    assert "labels: 3 problems" in str(error.value)
    assert all(text in str(error.value) for text in ("c.json", "d.json", "attribute 'split'"))


def test_val_has_its_share_of_every_class_and_group() -> None:
    # 20 % of 20 subjects of each class are 4, and of 10 of each sex 2
    rows = split_labels(labelled({"0": 20, "1": 20}), val_split=0.2, seed=0, attributes=["sex"])
    counts = rows[rows["split"] == "val"].groupby(["label", "sex"]).size()
    assert counts.to_dict() == {(label, sex): 2 for label in "01" for sex in ("female", "male")}


def test_a_subject_keeps_its_part_and_new_ones_bring_val_to_its_share() -> None:
    first = split_labels(labelled({"0": 10, "1": 10}), val_split=0.2, seed=0)
    parts = dict(zip(first["subject_id"], first["split"], strict=True))
    more = split_labels(labelled({"0": 30, "1": 20}), val_split=0.2, seed=5, known=parts)
    again = dict(zip(more["subject_id"], more["split"], strict=True))
    assert {who: again[who] for who in parts} == parts
    assert (more[more["split"] == "val"]).groupby("label").size().to_dict() == {"0": 6, "1": 4}


def test_what_the_model_was_trained_on_never_validates_and_its_test_part_is_dealt() -> None:
    table = labelled({"0": 20, "1": 20})
    known = {who: "train" if who.startswith("s1") else "test" for who in table["subject_id"]}
    rows = split_labels(table, val_split=0.25, seed=0, known=known)
    assert set(rows.loc[rows["label"] == "1", "split"]) == {"train"}
    assert rows.loc[rows["label"] == "0", "split"].value_counts().to_dict() == {"train": 15, "val": 5}


@given(
    zeros=st.integers(0, 40), ones=st.integers(0, 40), images=st.integers(1, 3), seed=st.integers(0, 9),
    share=st.sampled_from([0.1, 0.2, 0.25, 0.5]), data=st.data(),
)  # fmt: skip
def test_a_split_is_by_subject_and_in_any_order_of_rows_the_same(
    zeros: int, ones: int, images: int, seed: int, share: float, data: st.DataObject
) -> None:
    table = labelled({"0": zeros, "1": ones}, images=images)
    if table.empty:
        return
    rows = split_labels(table, val_split=share, seed=seed)
    assert (rows.groupby("subject_id")["split"].nunique() == 1).all()
    for label, count in (("0", zeros), ("1", ones)):
        val = rows[(rows["label"] == label) & (rows["split"] == "val")]["subject_id"].nunique()
        assert abs(val - share * count) < 1
    order = data.draw(st.permutations(range(len(table))))
    again = split_labels(table.iloc[order], val_split=share, seed=seed)
    pd.testing.assert_frame_equal(again.sort_index(), rows)


def test_too_few_labels_say_how_many_are_missing() -> None:
    rows = split_labels(labelled({"0": 20, "1": 3}), val_split=0.2, seed=0)
    # of 3, 0.6 rounds to 1 in val; two in val need a fifth of ten
    with pytest.raises(LabelError, match=r"class 1 \(Melanoma\).*got 2 and 1; label about 7 more$"):
        check_enough(rows, NAMES, val_split=0.2, source="labels")
    rows = split_labels(labelled({"0": 20, "1": 10}), val_split=0.2, seed=0)
    check_enough(rows, NAMES, val_split=0.2, source="labels")


def test_so_many_labels_as_are_said_to_be_missing_are_enough() -> None:
    for share in (0.1, 0.2, 0.35, 0.5):
        for have in range(9):
            rows = split_labels(labelled({"0": 40, "1": have}), val_split=share, seed=1)
            try:
                check_enough(rows, NAMES, val_split=share, source="labels")
                continue
            except LabelError as error:
                more = int(str(error).rsplit("about ", 1)[1].split()[0])
            known = dict(zip(rows["subject_id"], rows["split"], strict=True))
            more_rows = split_labels(labelled({"0": 40, "1": have + more}), val_split=share, seed=2, known=known)
            check_enough(more_rows, NAMES, val_split=share, source="labels")


def test_drawn_by_weight_label_and_group_are_independent() -> None:
    table = pd.concat([labelled({"0": 30, "1": 10}), labelled({"0": 20}, offset=100).assign(sex="")])
    table = table.drop(table[(table["label"] == "1") & (table["sex"] == "male")].index[2:]).reset_index(drop=True)
    rows = with_weights(table.assign(split=["val", *["train"] * (len(table) - 1)]), group_names(table, ["sex"]))
    assert rows["weight"][0] == "1.0"
    train = rows[1:].assign(weight=rows["weight"][1:].astype(float))
    joint = train.pivot_table(index="label", columns="sex", values="weight", aggfunc="sum", fill_value=0)
    seen = joint[["female", "male"]].to_numpy()  # those without a sex have one label only
    np.testing.assert_allclose(seen[0] / seen[1], (seen[0] / seen[1])[0])
    # 2 of 56 are positive men; of 7 positives and 17 men 7 * 17 / 56 would be
    assert set(train.loc[(train["label"] == "1") & (train["sex"] == "male"), "weight"]) == {7 * 17 / 56 / 2}


def test_groups_are_joint_and_missing_is_one_of_them() -> None:
    table = pd.DataFrame({"sex": ["male", "", "male"], "age": ["<60", "<60", ">=60"], "label": ["0", "1", "0"]})
    assert group_names(table, ["sex", "age"]) == ["male & <60", "missing & <60", "male & >=60"]
    assert group_names(table, []) == ["all"] * 3
    with pytest.raises(LabelError, match=r"'race': expected an attribute of the labelled images \(sex, age\)"):
        group_names(table, ["sex", "race"])
