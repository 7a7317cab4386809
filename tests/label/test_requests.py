"""Options and ids of requests: what is no name is refused by name, and nothing else is."""

from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fair.errors import LabelError
from monai_fair.label.requests import (
    BATCH,
    COMMON,
    INFER,
    check_id,
    check_image_info,
    check_options,
    infer_rules,
    is_ending,
    is_id,
    truth,
)


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
            "result_compress": False, "save_label": "true", "label_tag": "original"}  # fmt: skip
    assert check_options("m", sent, INFER, rules=infer_rules({})) == sent
    sent = {"device": "cuda", "multi_gpu": True, "gpus": "all", "logging": "WARNING", "save_label": True,
            "label_tag": "original", "max_workers": 1, "max_batch_size": 0}  # fmt: skip
    assert check_options("m", sent, BATCH, rules=infer_rules({})) == sent
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


@pytest.mark.parametrize("tag", ["final", "Final"])
def test_answers_do_not_take_the_place_of_annotators_labels(tag: str) -> None:
    """A training takes its labels by the tag, so ``final`` is refused for answers alone."""
    with pytest.raises(LabelError, match=f"expected another name than {tag}, under which are annotators' labels"):
        check_options("m", {"label_tag": tag}, INFER, rules=infer_rules({}))
    assert check_options("m", {"label_tag": tag}, {"label_tag"}) == {"label_tag": tag}


@given(st.sampled_from("$@%"), st.text(max_size=10), st.sampled_from(["", " ", "\n"]))
def test_no_text_is_a_program(mark: str, text: str, before: str) -> None:
    program = before + mark + text
    for value in (program, [program], {"a": [program]}, {program: 1}):
        with pytest.raises(LabelError, match="option 'client_id': expected no text that begins with"):
            check_options("m", {"client_id": value}, COMMON)


@pytest.mark.parametrize(
    ("default", "fine", "wrong"),
    [
        (0.5, [0.5, 0.1, 1], ["0.1", True, [0.5], {"_target_": "x"}]),
        (3, [3, 4], [0.5, "4", True]),
        (True, [False, True], ["false", 0, 2]),
        ("a", ["a", "b"], [1, ["b"], {"a": "b"}]),
        (["a", "b"], [["a", "b"], "a"], ["c", ["c"]]),
        ({"a": 1}, [{"a": 1}], [{"a": 2}, "a"]),
        (None, [None], ["a", 1]),
    ],
)
def test_an_option_of_a_config_stays_of_the_kind_of_its_default(
    default: Any, fine: list[Any], wrong: list[Any]
) -> None:
    rules = infer_rules({"shown": default})
    for value in fine:
        assert check_options("m", {"shown": value}, {"shown"}, rules=rules) == {"shown": value}
    for value in wrong:
        with pytest.raises(LabelError, match="option 'shown': expected a value such as"):
            check_options("m", {"shown": value}, {"shown"}, rules=rules)


def test_image_info_leaves_answers_alone() -> None:
    sent = {"attributes": {"sex": "male"}, "client_id": "me", "strategy": {"random": {"ts": 1, "client_id": None}}}
    assert check_image_info(sent) == sent
    assert check_image_info(None) == {}
    wrong = {"id": "x", "reason": "x", "group": "x", "path": "/etc", "name": "x", "ts": 1, "strategy": {"a": {}}}
    with pytest.raises(LabelError, match="image info: 7 problems") as caught:
        check_image_info(wrong)
    assert all(f"'{name}': expected" in str(caught.value) for name in ("id", "reason", "group", "path", "name", "ts"))


@pytest.mark.parametrize("strategy", [
    None, [], {"a": 1}, {"a": {"ts": "1"}}, {"a": {"ts": 1.5}}, {"a": {"ts": -1}}, {"a": {"ts": True}},
    {"a": {"ts": 10**12}}, {"a": {"ts": None}},
])  # fmt: skip
def test_times_that_strategies_calculate_with_are_times(strategy: Any) -> None:
    with pytest.raises(LabelError, match="image info: 'strategy'"):
        check_image_info({"strategy": strategy})


def test_image_info_has_names() -> None:
    with pytest.raises(LabelError, match="image info: expected names and values"):
        check_image_info(["x"])


@pytest.mark.parametrize("given", [[], "x", 1])
def test_options_have_names(given: Any) -> None:
    with pytest.raises(LabelError, match="m: expected options by name"):
        check_options("m", given, COMMON)


def test_switches() -> None:
    assert [truth(value) for value in (True, "true", " True ", "1", 1, "on")] == [True] * 6
    assert [truth(value) for value in (False, "false", "", None, 0, "no")] == [False] * 6
