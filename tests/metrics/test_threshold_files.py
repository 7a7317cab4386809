import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.data.artifacts import write_json
from monai_fair.errors import ArtifactError
from monai_fair.metrics.group_thresholds import ThresholdFitter, Thresholds
from monai_fair.metrics.threshold_files import read_thresholds, write_thresholds

Y, SCORE = [1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0], [0.8, 0.9, 0.2, 0.1, 0.5, 0.6, 0.7, 0.1, 0.2, 0.9, 0.3]
SEX = pd.DataFrame({"sex": ["f"] * 4 + ["m"] * 5 + ["", "x"]})


def fitted(**options: Any) -> Thresholds:
    return ThresholdFitter(**{"attributes": ["sex"], "min_count": 2, "shrinkage": 6, **options}).fit(
        Y, SCORE, SEX, split="val"
    )


def _undefined() -> Thresholds:
    fit = ThresholdFitter("specificity", target=1.0, attributes=["sex"], min_count=1)
    return fit.fit([1, 0, 1, 0], [0.8, 0.1, 0.5, 0.9], SEX.iloc[[0, 1, 4, 5]], split="val")


@pytest.mark.parametrize(
    "thresholds",
    [
        fitted(),
        fitted(attributes=[]),
        fitted(method="sensitivity", target=0.9),
        fitted(shrinkage=0),
        ThresholdFitter().fit([], [], split="val"),
        _undefined(),
    ],
    ids=["groups", "pooled", "target", "own", "no rows", "undefined"],
)
def test_what_is_read_is_what_was_written(thresholds: Thresholds, tmp_path: Path) -> None:
    path = write_thresholds(tmp_path / "thresholds.json", thresholds, source="predictions.csv")
    assert repr(read_thresholds(path)) == repr(thresholds)


def test_the_file_says_what_it_rests_on(tmp_path: Path) -> None:
    path = write_thresholds(tmp_path / "t.json", fitted(), source=tmp_path / "seed_1" / "predictions.csv")
    text = path.read_text()
    content = json.loads(text, parse_constant=pytest.fail)
    assert str(tmp_path) not in text
    assert {key: content[key] for key in ("kind", "source", "method", "split", "pooled", "pooled_counts")} == {
        "kind": "thresholds",
        "source": "predictions.csv",
        "method": "youden",
        "split": "val",
        "pooled": 0.5,
        "pooled_counts": [6, 5],
    }
    assert content["rows_sha256"] == fitted().rows_sha256
    assert content["monai_fair"]
    assert content["groups"][2] == {
        "name": "x",
        "levels": ["x"],
        "n_positive": 0,
        "n_negative": 1,
        "own": None,
        "towards": 0.5,
        "weight": 0.0,
        "threshold": 0.5,
        "reason": "its rows have one class only",
    }


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "t.json", "audit", {})
    with pytest.raises(ArtifactError) as caught:
        read_thresholds(path)
    assert str(caught.value) == f"{path}: expected a file of kind 'thresholds', got 'audit'; give the right file"


AGAIN = "fit and write the thresholds again"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("pooled",), 1.5, f"key 'pooled': expected a threshold in [0, 1] or null, got 1.5; {AGAIN}"),
        (("pooled",), float("inf"), f"key 'pooled': expected a threshold in [0, 1] or null, got inf; {AGAIN}"),
        (("pooled",), float("nan"), f"key 'pooled': expected a threshold in [0, 1] or null, got nan; {AGAIN}"),
        (("pooled",), True, f"key 'pooled': expected a threshold in [0, 1] or null, got True; {AGAIN}"),
        (("pooled",), "0.5", f"key 'pooled': expected a threshold in [0, 1] or null, got '0.5'; {AGAIN}"),
        (("split",), "test", f"key 'split': expected the name of a split other than 'test', got 'test'; {AGAIN}"),
        (("split",), None, f"key 'split': expected the name of a split other than 'test', got None; {AGAIN}"),
        (("method",), ["f1"], "key 'method': expected one of youden, min_gap, g_means, f1, sensitivity, specificity, "),
        (("target",), 0.5, "option 'target': expected none with the method 'youden', got 0.5; leave it out"),
        (("attributes",), "sex", f"key 'attributes': expected a list of columns, each once, got 'sex'; {AGAIN}"),
        (("min_count",), 0, f"key 'min_count': expected a count, 1 or more, got 0; {AGAIN}"),
        (("shrinkage",), -1, f"key 'shrinkage': expected a number, 0 or more, got -1; {AGAIN}"),
        (("rows_sha256",), "abc", f"key 'rows_sha256': expected a SHA-256 in hexadecimal, got 'abc'; {AGAIN}"),
        (
            ("pooled_counts",),
            [6],
            f"key 'pooled_counts': expected the counts of positives and negatives, got [6]; {AGAIN}",
        ),
        (
            ("pooled_counts",),
            [4, 5],
            f"key 'pooled_counts': expected at least the 5 of all groups' n_positive, got 4; {AGAIN}",
        ),
        (("groups",), {}, f"key 'groups': expected a list of groups, got {{}}; {AGAIN}"),
        (("groups", 0, "n_positive"), 2.0, f"group 1, key 'n_positive': expected a count, 0 or more, got 2.0; {AGAIN}"),
        (("groups", 0, "weight"), None, f"group 1, key 'weight': expected a number in [0, 1], got None; {AGAIN}"),
        (
            ("groups", 0, "threshold"),
            0.7,
            "group 1: expected weight 0.25 and threshold 0.575, which follow from its counts and thresholds, got 0.25 "
            f"and 0.7; {AGAIN}",
        ),
        (
            ("groups", 0, "weight"),
            0.5,
            "group 1: expected weight 0.25 and threshold 0.575, which follow from its counts and thresholds, got 0.5 "
            f"and 0.575; {AGAIN}",
        ),
        (
            ("groups", 1, "threshold"),
            None,
            "group 2, key 'reason': expected why a threshold is null or has no weight, got none; say it",
        ),
        (("groups", 2, "reason"), "", "group 3, key 'reason': expected why a threshold is null or has no weight, got "),
        *(
            (
                ("groups", 1, "levels"),
                levels,
                "group 2, key 'levels': expected a value of each of ['sex'] that no other group has, got "
                f"{levels}; keep one group per level",
            )
            for levels in (["f"], [""], ["m", "9"], [])
        ),
    ],
)
def test_impossible_values_are_named(where: tuple[Any, ...], value: Any, message: str, tmp_path: Path) -> None:
    path = write_thresholds(tmp_path / "t.json", fitted(), source="p.csv")
    content = json.loads(path.read_text())
    part = content
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError) as caught:
        read_thresholds(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_null_needs_its_reason(tmp_path: Path) -> None:
    path = write_thresholds(tmp_path / "t.json", _undefined(), source="p.csv")
    content = json.loads(path.read_text())
    assert content["pooled"] is None
    path.write_text(json.dumps({**content, "reason": ""}))
    with pytest.raises(ArtifactError, match=r"key 'reason': expected why 'pooled' is null, got none; say it$"):
        read_thresholds(path)


def test_everything_missing_is_named_at_once(tmp_path: Path) -> None:
    path = write_json(tmp_path / "t.json", "thresholds", {"groups": [7, {}]})
    with pytest.raises(ArtifactError) as caught:
        read_thresholds(path)
    # 12 keys of the file, and 9 of each of two groups
    assert str(caught.value).startswith(f"{path}: 30 problems\n")
    assert "group 2, key 'own': expected a threshold in [0, 1] or null, found none; " in str(caught.value)


def test_an_infinite_threshold_never_reaches_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(ArtifactError, match=r"key 'pooled': expected a threshold in \[0, 1\] or null, got inf; "):
        write_thresholds(path, replace(fitted(attributes=[]), pooled=float("inf")), source="p.csv")
    assert not path.exists()
