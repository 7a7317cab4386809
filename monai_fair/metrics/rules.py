"""Rules that turn scores into predictions: a threshold chosen on validation, a fixed number, or one that was given.

A rule is written ``youden``, ``min_gap``, ``g_means``, ``f1``, ``sensitivity=0.9``, ``specificity=0.9``, a number such
as ``0.5``, ``given`` (the column ``threshold`` of the predictions), or ``file:PATH`` (thresholds fitted and stored
before). A method followed by ``by sex`` or ``by sex+age_group`` fits a threshold per group, drawn towards the pooled
one where groups are small.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.group_thresholds import Thresholds, fit_thresholds
from monai_fair.metrics.threshold_files import read_thresholds
from monai_fair.metrics.thresholds import TARGETED, ThresholdMethod

GIVEN, FILE = "given", "file:"


@dataclass(frozen=True)
class Rule:
    """One rule, read from its text.

    Attributes:
        name: the text.
        method: how the threshold is chosen on validation; None for a fixed or given one.
        target: of the methods ``sensitivity`` and ``specificity``.
        attributes: attributes of thresholds per group; empty for one threshold.
        fixed: the number; None for the others.
        path: file of stored thresholds; empty for the others.
    """

    name: str
    method: ThresholdMethod | None = None
    target: float | None = None
    attributes: tuple[str, ...] = ()
    fixed: float | None = None
    path: str = ""


def read_rule(text: str) -> Rule:
    """Read a rule.

    Args:
        text: see the module.

    Returns:
        The rule.

    Raises:
        ValueError: saying what was expected.
    """
    name = str(text).strip()
    if name == GIVEN:
        return Rule(name)
    if name == FILE:
        raise ValueError(f"expected a path after '{FILE}', got none")
    if name.startswith(FILE):
        return Rule(name, path=name.removeprefix(FILE))
    if re.fullmatch(r"[0-9]*\.?[0-9]+", name):
        if not 0 < float(name) <= 1:
            raise ValueError(f"expected a fixed threshold in (0, 1], got '{name}'")
        return Rule(name, fixed=float(name))
    method, _, groups = (part.strip() for part in name.partition(" by "))
    method, _, target = (part.strip() for part in method.partition("="))
    attributes = tuple(part.strip() for part in groups.split("+") if part.strip())
    methods = get_args(ThresholdMethod)
    if method not in methods or (method in TARGETED) != bool(target) or (" by " in name and not attributes):
        known = ", ".join(f"{known}=0.9" if known in TARGETED else known for known in methods)
        raise ValueError(
            f"expected one of {known}, each also followed by ' by ATTRIBUTE', a number or given, got '{name}'"
        )
    if target and not (re.fullmatch(r"[0-9]*\.?[0-9]+", target) and 0 < float(target) <= 1):
        raise ValueError(f"expected a {method} to reach in (0, 1], got '{target}'")
    return Rule(name, method, float(target) if target else None, attributes)  # type: ignore[arg-type]


def fitted_rule(text: str) -> Rule:
    """Read a rule that chooses thresholds on validation.

    Args:
        text: see :func:`read_rule`.

    Returns:
        The rule; its method is set.

    Raises:
        MonaiFairError: if it is unknown, or fixed, given or stored.
    """
    try:
        rule = read_rule(text)
    except ValueError as wrong:
        raise MonaiFairError(f"rule: {wrong}") from wrong
    if rule.method is None:
        raise MonaiFairError(f"rule: expected one that chooses a threshold on validation, got '{text}'; try youden")
    return rule


def rule_problems(rules: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the texts of rules."""
    if not rules:
        yield "option 'thresholds': expected at least one rule, got none"
    for text in rules:
        try:
            read_rule(text)
        except ValueError as wrong:
            yield f"option 'thresholds': {wrong}"
    for text in dict.fromkeys(rules):
        if list(rules).count(text) > 1:
            yield f"option 'thresholds': expected each rule once, got '{text}' {list(rules).count(text)} times"


@dataclass(frozen=True)
class FittedRule:
    """A rule with its thresholds for one run.

    Attributes:
        rule: the rule.
        thresholds: of each audited row, one row per seed, shape ``(S, N)``, or ``(S, 1)`` for one threshold; NaN where
            there is none.
        by_seed: the pooled, fixed or mean given threshold of each seed, shape ``(S,)``.
        fitted: what was fitted on each seed's validation rows; empty for fixed and given thresholds.
        reason: why there is no threshold; empty where there is one.
    """

    rule: Rule
    thresholds: FloatArray
    by_seed: FloatArray
    fitted: tuple[Thresholds, ...]
    reason: str

    def record(self) -> dict[str, Any]:
        """Return the rule's record in the results."""
        counts = [fit.pooled_counts for fit in self.fitted]
        return {
            "by_seed": self.by_seed.tolist(),
            "reason": self.reason or None,
            "method": self.rule.method or self._source(),
            "target": self.rule.target,
            "attributes": list(self.rule.attributes or (self.fitted[0].attributes if self.fitted else ())),
            "n_positive": [positive for positive, _ in counts] or None,
            "n_negative": [negative for _, negative in counts] or None,
            "groups": [[asdict(group) for group in fit.groups] for fit in self.fitted],
        }

    def _source(self) -> str:
        if self.rule.path:
            return f"stored, {self.fitted[0].method}"
        return GIVEN if self.rule.fixed is None else "fixed"


def fit_rule(
    rule: Rule,
    tables: Sequence[pd.DataFrame],
    audited: pd.DataFrame,
    given: FloatArray | None,
    *,
    score_column: str,
    positive_label: int,
    split: str,
    min_count: int,
) -> FittedRule:
    """Choose the thresholds of a rule on the validation rows of every seed.

    Args:
        rule: the rule.
        tables: predictions of each seed.
        audited: the audited rows, with the attributes of the rule.
        given: thresholds in the predictions, shape ``(S, N)``, if they have any.
        score_column: the score of ``positive_label``.
        positive_label: the class that counts as positive.
        split: the audited part; nothing is chosen on the rows that are audited.
        min_count: positives and negatives a group needs for a threshold of its own.

    Returns:
        The thresholds.
    """
    seeds = len(tables)
    none = np.full(seeds, np.nan)
    if rule.fixed is not None:
        fixed = np.full(seeds, rule.fixed)
        return FittedRule(rule, fixed[:, None], fixed, (), "")
    if rule.path:
        stored = read_thresholds(rule.path)
        per_row = np.broadcast_to(stored.for_groups(audited), (seeds, len(audited)))
        return FittedRule(rule, per_row, np.full(seeds, stored.pooled), (stored,) * seeds, stored.reason)
    if rule.method is None:
        if given is None:
            return FittedRule(rule, none[:, None], none, (), "the predictions have no column 'threshold'")
        return FittedRule(rule, given, given.mean(axis=1), (), "")
    if split == "val":
        reason = "the validation rows are the ones audited here, so no threshold is chosen on them"
        return FittedRule(rule, none[:, None], none, (), reason)
    fitted = tuple(
        fit_thresholds(
            table,
            score_column,
            positive_label=positive_label,
            method=rule.method,
            target=rule.target,
            attributes=rule.attributes,
            min_count=min_count,
        )
        for table in tables
    )
    reason = "; ".join(dict.fromkeys(fit.reason for fit in fitted if fit.reason))
    pooled = np.array([fit.pooled for fit in fitted])
    per_row = pooled[:, None] if not rule.attributes else np.stack([fit.for_groups(audited) for fit in fitted])
    return FittedRule(rule, per_row, pooled, fitted, reason)
