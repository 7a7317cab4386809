"""The page of the benchmark, from the rows that were measured."""

import platform
from pathlib import Path
from typing import Any

import pandas as pd
from registration_peers import PARAMETERS
from registration_worker import FITS

TITLES = {
    "before": "before registration",
    "ours_codes": "ours, codes only",
    "ours_residual": "ours, codes + residual",
    "ours_codes_any": "ours, codes only, any contrast",
    "ours_residual_any": "ours, codes + residual, any contrast",
    "ants_syn_cc": "ANTs SyNOnly, CC, 100x70x50",
    "ants_syn": "ANTs SyN, default",
    "elastix_bspline": "elastix B-spline 10 mm, MI",
    "demons": "SimpleITK diffeomorphic demons",
    "siren": "SIREN per pair (IDIR)",
}
NOTES = {
    **PARAMETERS,
    "ours_codes": "all subjects in one process; seconds are those of all over their number, memory is the process's",
    "ours_residual": "as above, then a residual per subject",
    "ours_codes_any": "the template takes each subject's contrast, in the fit of the cohort too",
    "ours_residual_any": "as above, then a residual per subject",
    "siren": "3-256-256-256-3, omega 30, Adam 1e-5, 2,500 iterations of 2,000 points (the published 10,000 took 5 "
    "times as long on one subject, for 0.634 mm instead of 0.614), NCC, 0.02 mean |det J - 1|; worse: the published "
    "weight 0.05, or 0.005, or Adam at 1e-4; some subjects were fitted on a busy machine and not timed",
}
_QUALITY = [
    ("tissue Dice", "dice_tissue", "{:.3f}", 1.0),
    ("ROI Dice", "dice_roi", "{:.3f}", 1.0),
    ("EPE mm", "endpoint_error_mm", "{:.3f}", 1.0),
    ("EPE 95 % mm", "endpoint_error_p95_mm", "{:.2f}", 1.0),
    ("folds %", "folds", "{:.4f}", 100.0),
    ("sd log det J", "sd_log_det_jacobian", "{:.3f}", 1.0),
]
_COST = [
    ("s per subject", "seconds", "{:.2f}", 1.0),
    ("memory MB", "memory_mb", "{:.0f}", 1.0),
    ("of it before MB", "memory_before_mb", "{:.0f}", 1.0),
]

_COLUMNS = [
    *(column for _, column, *_ in (*_QUALITY, *_COST)),
    *("reason", "versions", "load", "gflop", "peak_fp32_gflops", "peak_bf16_gflops"),
]


def page(rows: pd.DataFrame, simulation: dict[str, Any], against: pd.DataFrame | None = None) -> str:
    """Return the page as Markdown.

    Args:
        rows: one per method and subject, as ``registration.py`` writes them.
        simulation: parameters of the cohort.
        against: rows of the same subjects under other conditions; endpoint errors are compared with theirs.
    """
    rows = rows.reindex(columns=[*rows.columns.union(_COLUMNS, sort=False)])
    done = rows[rows["status"] == "registered"]
    lines = ["# Registration of unseen subjects, side by side", "", _cohort(simulation)]
    lines += _machine(rows) if against is None else ["Cost stands in the table of the matched cohort."]
    lines += [
        "Means over subjects; standard deviation of the endpoint error (EPE) in brackets; median of the seconds.",
        "",
    ]
    lines += _table(done, against)
    names = done[done["method"].isin(TITLES)].groupby("method")["subject_id"].agg(set)
    common = set.intersection(*names) if len(names) else set()
    if common and any(found != common for found in names):
        lines += ["", f"The same on what every method has (n {len(common)}):", ""]
        lines += _table(done[done["subject_id"].isin(common)], against)
    lines += [*(_rates(done) if against is None else []), ""]
    for _, row in rows[rows["status"] == "failed"].iterrows():
        lines.append(f"- failed: {row['method']}, {row['subject_id']}: {row['reason']}")
    lines += ["", "## How", "", *_how(done)]
    return "\n".join(lines) + "\n"


def _cohort(simulation: dict[str, Any]) -> str:
    cohort, shape = simulation["cohort"], " x ".join(str(size) for size in simulation["shape"])
    return (
        f"Simulated brains ({simulation['anatomy']}), {shape} voxels of {simulation['spacing_mm']:g} mm; contrast "
        f"{cohort['contrast']}, bias field {100 * cohort['bias_field']:g} %, noise {cohort['noise']:g}, "
        f"seed {simulation['seed']}."
    )


def _machine(rows: pd.DataFrame) -> list[str]:
    load = rows.loc[rows["load"].notna(), "load"]
    said = f"load before a method began {load.median():.1f} (median), {load.max():.1f} (highest)" if len(load) else ""
    return [f"{platform.machine()}, {_processor()}, {int(rows['threads'].max())} threads; {said}."]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _table(done: pd.DataFrame, against: pd.DataFrame | None) -> list[str]:
    numbers = _QUALITY + (_COST if against is None else [])
    head = ["method", "n", *(title for title, *_ in numbers)] + (["EPE / matched EPE"] if against is not None else [])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for method, title in TITLES.items():
        found = done[done["method"] == method]
        if found.empty:
            continue
        cells = [title, str(len(found))]
        for _, column, form, factor in numbers:
            cells.append(_cell(found[column], form, factor))
        if against is not None:
            cells.append(_ratio(found, against[against["method"] == method]))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(values: pd.Series, form: str, factor: float) -> str:
    """Print the mean over subjects; of seconds the median of those that were timed, with their number if not all."""
    timed = values.dropna()
    if timed.empty or (len(timed) < len(values) and values.name != "seconds"):
        return "-"
    if values.name == "seconds":
        text = form.format(factor * timed.median())
        return text if len(timed) == len(values) else f"{text} (n {len(timed)})"
    text = form.format(factor * timed.mean())
    return f"{text} ({values.std():.3f})" if values.name == "endpoint_error_mm" and len(values) > 1 else text


def _ratio(found: pd.DataFrame, matched: pd.DataFrame) -> str:
    both = found.merge(matched, on="subject_id", suffixes=("", "_matched"))
    if both.empty:
        return "-"
    return f"{both['endpoint_error_mm'].mean() / both['endpoint_error_mm_matched'].mean():.3f} (n {len(both)})"


def _rates(done: pd.DataFrame) -> list[str]:
    """Say what the matrix products of each method reach of what the machine reaches on large ones."""
    lines = []
    for _, row in done[done["method"].isin(FITS)].iterrows():
        any_contrast = ", any contrast" if row["method"].endswith("_any") else ""
        cost = f"{row['seconds']:.1f} s, {row['memory_mb']:.0f} MB"
        lines += ["", f"Fit of the cohort ({row['subject_id']}{any_contrast}): {cost}."]
    counted = done[done["gflop"].notna() & (done["gflop"] > 0)]
    if counted.empty:
        return lines
    # the best of all runs: a busy machine shows less
    fp32, bf16 = counted["peak_fp32_gflops"].max(), counted["peak_bf16_gflops"].max()
    lines += [
        "",
        f"Matrix products of 2048 x 2048 reach {fp32:.0f} GFLOP/s in float32 and {bf16:.0f} in bfloat16 here. Products "
        "counted by torch.utils.flop_counter:",
        "",
        "| method | GFLOP per subject | GFLOP/s | share of fp32 peak | share of bf16 peak |",
        "|---|---|---|---|---|",
    ]
    for method, found in counted.groupby("method", sort=False):
        rate = (found["gflop"] / found["seconds"]).median()
        lines.append(
            f"| {TITLES[method]} | {found['gflop'].median():.1f} | {rate:.1f} | {100 * rate / fp32:.1f} % | "
            f"{100 * rate / bf16:.1f} % |"
        )
    return lines


def _how(done: pd.DataFrame) -> list[str]:
    lines = [
        "Every method moves the template to the subject, in a process of its own; timed from images in memory to "
        "fields in memory (ANTs writes its fields to files, inside the time). Memory is the largest resident size of "
        "the process, with Python and its libraries, which the column beside it tells. Labels are carried by nearest "
        "neighbours; errors and folds are counted inside the subject's true brain mask.",
        "Settings of the peers were chosen on one training subject with matched contrast, part of them in a cohort "
        "with finer deformations.",
        "",
    ]
    for method in NOTES:
        found = done[done["method"] == method]
        if len(found):
            lines.append(f"- {TITLES[method]} ({'; '.join(sorted(set(found['versions'])))}): {NOTES[method]}.")
    return lines
