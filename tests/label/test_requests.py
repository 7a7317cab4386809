"""Options and ids of requests: what is no name is refused by name, and nothing else is."""

from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fair.errors import LabelError
from monai_fair.label.requests import BATCH, COMMON, INFER, check_id, check_options, is_ending, is_id, truth


@given(st.text(max_size=30))
def test_an_id_is_one_part_of_a_path_and_stays_in_its_folder(text: str) -> None:
    if is_id(text):
        path = PurePosixPath("/studies") / text
        assert path.parent == PurePosixPath("/studies")
        assert path.name == text
        assert ".." not in path.parts
        assert "\0" not in text
        assert check_id("image", text) == text
    else:
        with pytest.raises(LabelError, match="image: expected letters"):
            check_id("image", text)


@given(st.text("abcXYZ019_.-", min_size=1, max_size=30).filter(lambda text: text.strip(".") != ""))
def test_ordinary_names_are_ids(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "...", "a/b", "a\\b", "a b", "a\n", "\n", "é", "a" * 201, None, 3, ["a"]]
)
def test_other_things_are_none(text: Any) -> None:
    assert not is_id(text)


def test_endings() -> None:
    assert [is_ending(text) for text in (".json", ".nii.gz", ".png")] == [True] * 3
    assert not any(is_ending(text) for text in ("", "json", ".", "..", "./x", ".a.b.c", ".x/..", None))


def test_every_problem_is_said_at_once() -> None:
    given = {
        "image": "/etc/passwd",
        "label_tag": "../x",
        "logging": "LOUD",
        "device": ["cpu", "a;b"],
        "client_id": "me",
    }
    with pytest.raises(LabelError) as caught:
        check_options("model 'm'", given, INFER)
    said = str(caught.value)
    assert said.startswith("model 'm': 4 problems")
    for name in ("image", "label_tag", "logging", "device"):
        assert f"option '{name}': expected" in said
    assert "client_id'" not in said


def test_options_that_viewers_send_pass() -> None:
    # as MONAILabelClient, 3D Slicer and OHIF send them
    sent = {"client_id": "slicer", "device": ["cpu"], "result_extension": ".nrrd", "result_dtype": "uint16",
            "result_compress": False, "save_label": "true", "label_tag": "final"}  # fmt: skip
    assert check_options("m", sent, INFER) == sent
    sent = {"device": "cuda", "multi_gpu": True, "gpus": "all", "logging": "WARNING", "save_label": True,
            "label_tag": "original", "max_workers": 1, "max_batch_size": 0}  # fmt: skip
    assert check_options("m", sent, BATCH) == sent
    assert check_options("m", None, COMMON) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("result_extension", "/../x.nii"),
        ("result_dtype", "O"),
        ("images", ["ok", "../no"]),
        ("images", "some"),
        ("gpus", "0;1"),
        ("gpus", 0),
        ("max_batch_size", -1),
        ("max_batch_size", "1"),
        ("max_workers", True),
        ("label_tag", {"a": 1}),
        ("device", "x" * 101),
    ],
)
def test_impossible_values_are_refused(name: str, value: Any) -> None:
    with pytest.raises(LabelError, match=f"m: option '{name}': expected"):
        check_options("m", {name: value}, INFER | BATCH)


@pytest.mark.parametrize("given", [[], "x", 1])
def test_options_have_names(given: Any) -> None:
    with pytest.raises(LabelError, match="m: expected options by name"):
        check_options("m", given, COMMON)


def test_switches() -> None:
    assert [truth(value) for value in (True, "true", " True ", "1", 1, "on")] == [True] * 6
    assert [truth(value) for value in (False, "false", "", None, 0, "no")] == [False] * 6
