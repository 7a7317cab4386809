"""The page of the benchmark of active learning: labels needed, curves, and what was asked for."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from monai_fair.metrics import paired_difference, t_interval

LEVELS = (0.60, 0.65, 0.70, 0.75)
SHOWN = (("AUC of men", "male"), ("Share of women among labels", "share"), ("Share of malignant ones", "positives"))
Found = Mapping[str, Mapping[str, np.ndarray]]


def needed(worst: np.ndarray, counts: Sequence[int], level: float) -> np.ndarray:
    """Return for each seed the labels at the first of two trainings in a row that reach a level; NaN where none do.

    Networks trained on so few images differ by chance, and one of twelve reaches a level sooner or later.

    Args:
        worst: AUC of the worse group, shape ``(seeds, trainings)``.
        counts: labels at each training.
        level: of the AUC.
    """
    above = worst >= level
    reached = above[:, :-1] & above[:, 1:]
    return np.where(reached.any(axis=1), np.asarray(counts[:-1])[reached.argmax(axis=1)], np.nan)


def page(found: Found, counts: Sequence[int], head: Sequence[str]) -> Iterator[str]:
    """Return the lines of the page.

    Args:
        found: strategy to ``female`` and ``male`` (AUC), ``share`` and ``positives``, each ``(seeds, trainings)``; the
            strategies are compared with ``random``.
        counts: labels at each training.
        head: what was run, and on what.
    """
    worst = {name: np.minimum(values["female"], values["male"]) for name, values in found.items()}
    seeds = len(worst["random"])
    yield from ("# Active learning, simulated skin images", "", *head, "")
    yield f"Means over {seeds} seeds, in brackets 95 % intervals by Student's t, of differences paired by seed."
    yield from ("", "## Labels needed", "")
    yield (
        f"Labels at the first of two trainings in a row at which the AUC of the worse group reaches a level; looked at "
        f"from {counts[0]} to {counts[-1]} labels, in steps of {counts[1] - counts[0]}. Where not every seed reaches "
        "it there is no mean."
    )
    yield from ("", *_head(["strategy", *(f"AUC {level:.2f}" for level in LEVELS)]))
    for name, values in worst.items():
        yield _row([name, *(_needed(needed(values, counts, level)) for level in LEVELS)])
    yield from ("", "Fewer (-) or more (+) than by `random`, and how much higher the AUC is over the whole curve:", "")
    yield from _head(["strategy", *(f"AUC {level:.2f}" for level in LEVELS), "mean AUC of the worse group"])
    for name, values in worst.items():
        if name != "random":
            pairs = [[needed(each, counts, level) for each in (worst["random"], values)] for level in LEVELS]
            labels = [_difference(first, later, "+.0f") for first, later in pairs]
            yield _row([name, *labels, _difference(worst["random"].mean(axis=1), values.mean(axis=1), "+.3f")])
    tables = {title: {name: values[key] for name, values in found.items()} for title, key in SHOWN}
    for title, part in {"AUC of the worse group": worst, **tables}.items():
        yield from ("", f"## {title}", "", *_head(["labels", *part]))
        for place, count in enumerate(counts):
            yield _row([str(count), *(_mean(values[:, place]) for values in part.values())])


def _head(cells: Sequence[str]) -> tuple[str, str]:
    return _row(cells), "|" + "---|" * len(cells)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(values: np.ndarray) -> str:
    mean, low, high = t_interval(values, bounds=(0.0, 1.0))
    return f"{mean:.3f}" + (f" ({low:.3f} to {high:.3f})" if high > low else "")


def _needed(values: np.ndarray) -> str:
    reached = int(np.isfinite(values).sum())
    if reached < len(values):
        return f"{reached} of {len(values)} seeds"
    mean, low, high = t_interval(values, bounds=(0.0, np.inf))
    return f"{mean:.0f}" + (f" ({low:.0f} to {high:.0f})" if high > low else "")


def _difference(first: np.ndarray, later: np.ndarray, form: str) -> str:
    change = paired_difference(first, later)
    if change.reason:
        return "not in every seed"
    span = "" if change.interval_reason else f" ({change.low:{form}} to {change.high:{form}})"
    return f"{change.difference:{form}}{span}"
