"""How an audit is done."""

from collections.abc import Iterator
from dataclasses import dataclass

from monai_fair.data.predictions import SPLITS
from monai_fair.metrics.groups import Missing
from monai_fair.metrics.rules import read_rule, rule_problems


@dataclass(frozen=True)
class AuditSettings:
    """How an audit is done; see :func:`monai_fair.metrics.audit`."""

    attributes: tuple[str, ...]
    split: str
    intersections: bool
    missing: Missing
    rules: tuple[str, ...]
    resamples: int
    permutations: int
    seed: int
    min_count: int
    confidence: float


def setting_problems(settings: AuditSettings) -> Iterator[str]:
    """Yield every option that is out of range, with what was expected."""
    if settings.split not in SPLITS:
        yield f"option 'split': expected one of {', '.join(SPLITS)}, got '{settings.split}'"
    if settings.missing not in ("drop", "group"):
        yield f"option 'missing': expected drop or group, got '{settings.missing}'"
    for name in ("permutations", "min_count"):
        if getattr(settings, name) < 1:
            yield f"option '{name}': expected at least 1, got {getattr(settings, name)}"
    if settings.resamples < 100:
        yield f"option 'resamples': expected at least 100, got {settings.resamples}"
    if not 0 < settings.confidence < 1:
        yield f"option 'confidence': expected a number in (0, 1), got {settings.confidence}"
    problems = list(rule_problems(settings.rules))
    yield from problems
    for text in settings.rules if not problems else ():
        for name in read_rule(text).attributes:
            if name not in settings.attributes:
                yield f"option 'thresholds': expected '{text}' to name audited attributes, got '{name}'"
