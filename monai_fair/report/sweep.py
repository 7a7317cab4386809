"""A sweep: runs that differ in one parameter, in the order of its values."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Record
from monai_fair.report.sweep_figures import sweep_figure, swept_tables

_SHAPE = '{"parameter": NAME, "runs": {RUN: VALUE, ...}}'


def read_sweep(sweep: Mapping[str, Any] | str | Path, runs: Sequence[str]) -> Record:
    """Check a sweep against the runs of an audit.

    Args:
        sweep: ``parameter``, a name, and ``runs``, the value of each run that belongs to the sweep; or a JSON file with
            these two.
        runs: names of the audited runs.

    Returns:
        ``parameter``, and ``runs`` in the order of their values.

    Raises:
        MonaiFairError: with all problems: a file that cannot be read, an unknown run, a value that is no number or
            stands twice, fewer than two runs.
    """
    source = "sweep" if isinstance(sweep, Mapping) else str(sweep)
    content = sweep if isinstance(sweep, Mapping) else _from_file(Path(sweep))
    raise_problems(MonaiFairError, source, _problems(content, runs))
    values = {str(run): float(value) for run, value in content["runs"].items()}
    return {"parameter": content["parameter"], "runs": dict(sorted(values.items(), key=lambda item: item[1]))}


def _from_file(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MonaiFairError(f"{path}: expected a JSON file with {_SHAPE}; {error}") from error
    return content if isinstance(content, dict) else {}


def _problems(content: Mapping[str, Any], runs: Sequence[str]) -> Iterator[str]:
    parameter, values = content.get("parameter"), content.get("runs")
    if not isinstance(parameter, str) or not parameter.strip():
        yield f"expected 'parameter' to be a name, got {parameter!r}; write {_SHAPE}"
    if not isinstance(values, Mapping):
        yield f"expected 'runs' to have a number for each run, got {values!r}; write {_SHAPE}"
        return
    if len(values) < 2:
        yield f"expected at least two runs, got {len(values)}; name those that differ in the parameter"
    for run, value in values.items():
        if run not in runs:
            yield f"run '{run}': expected one of the audited runs {', '.join(runs)}; correct the name"
        if not _is_number(value):
            yield f"run '{run}': expected a number, got {value!r}; correct it"
    numbers = [value for value in values.values() if _is_number(value)]
    for value in dict.fromkeys(numbers):
        if numbers.count(value) > 1:
            names = ", ".join(run for run, own in values.items() if _is_number(own) and own == value)
            yield f"expected one run for each value, got {names} for {value:g}; keep one"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def sweep_view(results: Record, *, show_small: bool = False) -> Record | None:
    """Return the figures and words of the section, or None without a sweep.

    Args:
        results: of the audit; ``sweep`` is that of :func:`read_sweep`.
        show_small: show values of all cases though one class has few.

    Returns:
        What the template prints.
    """
    sweep = results.get("sweep")
    if not sweep:
        return None
    # JSON keeps the order of its keys, but other writers need not
    runs = dict(sorted(sweep["runs"].items(), key=lambda item: float(item[1])))
    baseline = results["baseline"]
    seeds = {run["name"]: len(run["seeds"]) for run in results["runs"]}
    mask, ordered = Mask(results["settings"]["min_count"], show_small), {**sweep, "runs": runs}
    figures = [
        {
            "target": target["name"],
            "svg": sweep_figure(results, target, ordered, masked=mask.hides_values(target["overall"])),
        }
        for target in results["targets"]
    ]
    tables = swept_tables(results, results["targets"][0])
    return {
        "parameter": sweep["parameter"],
        "runs": [{"run": run, "value": f"{value:g}"} for run, value in runs.items()],
        "baseline": "" if baseline in runs else baseline,
        "joint": tables[0]["name"] if len(tables) == 1 else "",
        "figures": figures,
        "n": f"{results['data']['n']:,}",
        "one_seed": any(seeds[run] == 1 for run in runs),
    }
