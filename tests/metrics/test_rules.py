from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import fit_thresholds
from monai_fair.metrics.rules import Rule, fit_rule, fitted_rule, read_rule, rule_problems
from monai_fair.metrics.settings import AuditSettings, setting_problems
from monai_fair.metrics.threshold_files import write_thresholds

KNOWN = "youden, min_gap, g_means, f1, sensitivity=0.9, specificity=0.9, each also followed by ' by ATTRIBUTE'"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("youden", Rule("youden", "youden")),
        (" g_means ", Rule("g_means", "g_means")),
        ("sensitivity=0.9", Rule("sensitivity=0.9", "sensitivity", 0.9)),
        ("specificity = .95 by sex", Rule("specificity = .95 by sex", "specificity", 0.95, ("sex",))),
        ("f1 by sex+age_group", Rule("f1 by sex+age_group", "f1", attributes=("sex", "age_group"))),
        ("0.5", Rule("0.5", fixed=0.5)),
        ("1", Rule("1", fixed=1.0)),
        ("given", Rule("given")),
        ("file:a/b.json", Rule("file:a/b.json", path="a/b.json")),
    ],
)
def test_rules_are_read(text: str, rule: Rule) -> None:
    assert read_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "expected a fixed threshold in (0, 1], got '0'"),
        ("1.5", "expected a fixed threshold in (0, 1], got '1.5'"),
        ("sensitivity=0", "expected a sensitivity to reach in (0, 1], got '0'"),
        ("specificity=1.1", "expected a specificity to reach in (0, 1], got '1.1'"),
        ("sensitivity=high by sex", "expected a sensitivity to reach in (0, 1], got 'high'"),
        ("file:", "expected a path after 'file:', got none"),
    ],
)
def test_numbers_and_paths_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^expected") as caught:
        read_rule(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    ["yuden", "sensitivity", "youden=0.3", "youden by", "given by sex", "0.5 by sex", "-0.5", "nan", "5e-1", ""],
)
def test_other_texts_are_refused_with_what_is_known(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected") as caught:
        read_rule(text)
    assert str(caught.value) == f"expected one of {KNOWN}, a number or given, got '{text}'"


def test_all_problems_of_rules_are_told() -> None:
    assert list(rule_problems([])) == ["option 'thresholds': expected at least one rule, got none"]
    assert list(rule_problems(["0.5", "0", "0.5"])) == [
        "option 'thresholds': expected a fixed threshold in (0, 1], got '0'",
        "option 'thresholds': expected each rule once, got '0.5' 2 times",
    ]


def test_only_rules_that_choose_on_validation_are_fitted() -> None:
    assert fitted_rule("f1 by sex").method == "f1"
    with pytest.raises(MonaiFairError, match=r"^rule: expected one that chooses a threshold on validation, got '0\.5'"):
        fitted_rule("0.5")
    with pytest.raises(MonaiFairError, match=r"^rule: expected one of youden, "):
        fitted_rule("best")


def settings(**options: object) -> AuditSettings:
    known = {"split": "test", "intersections": True, "missing": "drop", "rules": ("0.5",), "resamples": 100}
    known |= {"permutations": 1, "seed": 0, "min_count": 1, "confidence": 0.95, "attributes": ("sex",)}
    return AuditSettings(**{**known, **options})  # type: ignore[arg-type]


def test_settings_in_range_have_no_problem() -> None:
    assert list(setting_problems(settings())) == []


def test_settings_out_of_range_are_told_all_at_once() -> None:
    numbers: dict[str, object] = {"permutations": 0, "min_count": 0, "resamples": 99, "confidence": 1.0}
    wrong = settings(split="dev", missing="own", rules=("x",), **numbers)
    assert list(setting_problems(wrong)) == [
        "option 'split': expected one of train, val, test, got 'dev'",
        "option 'missing': expected drop or group, got 'own'",
        "option 'permutations': expected at least 1, got 0",
        "option 'min_count': expected at least 1, got 0",
        "option 'resamples': expected at least 100, got 99",
        "option 'confidence': expected a number in (0, 1), got 1.0",
        f"option 'thresholds': expected one of {KNOWN}, a number or given, got 'x'",
    ]


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, float("nan")])
def test_confidence_must_be_a_probability(confidence: float) -> None:
    problem = f"option 'confidence': expected a number in (0, 1), got {confidence}"
    assert list(setting_problems(settings(confidence=confidence))) == [problem]


def test_rules_may_name_audited_attributes_only() -> None:
    assert list(setting_problems(settings(rules=("youden by sex+age",)))) == [
        "option 'thresholds': expected 'youden by sex+age' to name audited attributes, got 'age'"
    ]


def table(seed: int) -> pd.DataFrame:
    """Validation rows of 60 women and 60 men; men's scores are shifted up."""
    rng = np.random.default_rng(seed)
    sex = np.repeat(["f", "m"], 60)
    label = np.tile([0, 1], 60)
    score = np.round(0.3 + 0.2 * label + 0.2 * (sex == "m") + 0.1 * rng.normal(size=120), 3)
    return pd.DataFrame({"split": "val", "label": label, "score": np.clip(score, 0, 1), "sex": sex})


AUDITED = pd.DataFrame({"sex": ["m", "f", "", "x"]})
OPTIONS = {"score_column": "score", "positive_label": 1, "split": "test", "min_count": 10}


def test_thresholds_by_group_are_those_of_the_group() -> None:
    tables = [table(0), table(1)]
    fitted = fit_rule(read_rule("youden by sex"), tables, AUDITED, None, **OPTIONS)  # type: ignore[arg-type]
    for seed, part in enumerate(tables):
        expected = fit_thresholds(part, attributes=["sex"], min_count=10)
        women, men = (group.threshold for group in expected.groups)
        assert women != men
        # a missing and an unseen group get the pooled threshold
        assert fitted.thresholds[seed].tolist() == [men, women, expected.pooled, expected.pooled]
        assert fitted.by_seed[seed] == expected.pooled
    record = fitted.record()
    assert (record["method"], record["attributes"], record["reason"]) == ("youden", ["sex"], None)
    assert (record["n_positive"], record["n_negative"]) == ([60, 60], [60, 60])
    assert [group["name"] for group in record["groups"][0]] == ["f", "m"]


def test_given_thresholds_are_taken_row_by_row() -> None:
    given = np.array([[0.1, 0.2, 0.3, 0.4]])
    fitted = fit_rule(read_rule("given"), [table(0)], AUDITED, given, **OPTIONS)  # type: ignore[arg-type]
    np.testing.assert_array_equal(fitted.thresholds, given)
    assert fitted.by_seed.tolist() == [0.25]
    assert (fitted.record()["method"], fitted.record()["n_positive"]) == ("given", None)
    absent = fit_rule(read_rule("given"), [table(0)], AUDITED, None, **OPTIONS)  # type: ignore[arg-type]
    assert absent.reason == "the predictions have no column 'threshold'"
    assert np.isnan(absent.thresholds).all()


def test_stored_thresholds_are_those_that_were_fitted(tmp_path: Path) -> None:
    stored = fit_thresholds(table(0), attributes=["sex"])
    write_thresholds(tmp_path / "t.json", stored, source="p.csv")
    rule = read_rule(f"file:{tmp_path / 't.json'}")
    fitted = fit_rule(rule, [table(1), table(2)], AUDITED, None, **OPTIONS)  # type: ignore[arg-type]
    np.testing.assert_array_equal(fitted.thresholds, np.stack([stored.for_groups(AUDITED)] * 2))
    assert fitted.record()["method"] == "stored, youden"


def test_one_class_on_validation_leaves_no_threshold() -> None:
    negatives = table(0).assign(label=0)
    fitted = fit_rule(read_rule("youden"), [table(0), negatives], AUDITED, None, **OPTIONS)  # type: ignore[arg-type]
    assert fitted.reason == "the rows with split 'val' have one class only"
    assert np.isnan(fitted.by_seed).tolist() == [False, True]
