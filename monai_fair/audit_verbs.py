"""The verbs ``audit`` and ``thresholds`` of the command line."""

from collections.abc import Sequence
from typing import Literal

from monai_fair.data.option_values import option_names, option_pairs


def audit(
    *predictions: str,
    attributes: str | Sequence[str],
    out: str = "audit",
    columns: str | Sequence[str] | dict[str, str] = "",
    missing: Literal["drop", "group"] = "drop",
    thresholds: str | Sequence[str] = "youden,0.5",
    intersections: bool = True,
    resamples: int = 2000,
    permutations: int = 2000,
    seed: int = 0,
    min_count: int = 10,
    split: str = "test",
    confidence: float = 0.95,
    show_small: bool = False,
    subgroups: str = "",
    registered: str = "",
    root: str = "",
    stages: str = "",
    sweep: str = "",
    embeddings: bool = True,
) -> str:
    """Compare groups, and runs, from tables of predictions; ends with the path of report.html.

    Args:
        predictions: files (CSV, also gzipped, or Parquet), patterns, or name=pattern; those of one name are seeds.
        attributes: attributes to compare groups by, such as sex,age_group; their intersections come with them. A
            continuous one gets a rule: age:quartiles, age:40/60/80.
        out: folder for report.html, metrics.json and model_card.md.
        columns: the files' own names, such as subject_id=PatientID,label=y_true,score=prob.
        missing: rows without a value: drop (counted, left out for that attribute) or group (a group of their own).
        thresholds: rules, such as youden,0.5,sensitivity=0.9; min_gap, g_means, f1, specificity=0.9, given (the column
            threshold), "youden by sex" (one per group) and file:PATH (stored by the verb thresholds) are others.
        intersections: also compare intersections of attributes.
        resamples: number of resamples of subjects behind intervals.
        permutations: number of permutations behind each p value and chance level.
        seed: seed of both.
        min_count: subjects a group needs for an interval and to take part in a gap; smaller counts are masked.
        split: the part to audit.
        confidence: of the intervals.
        show_small: show small counts on the page instead of masking them.
        subgroups: folder of discover; what was found stands on the page too.
        registered: folder of the registration behind it, for pictures of typical members.
        root: data root, for the template they are drawn on.
        stages: stages.json of a study, whose times stand on the page.
        sweep: a JSON file with the parameter that runs differ in and each run's value of it, to draw gaps over.
        embeddings: say and draw what the features beside the tables tell of the attributes.
    """
    from monai_fair.report import audit_files

    path = audit_files(
        predictions,
        attributes=option_names(attributes),
        out=out,
        columns=option_pairs("--columns", columns),
        missing=missing,
        thresholds=option_names(thresholds),
        intersections=intersections,
        resamples=resamples,
        permutations=permutations,
        seed=seed,
        min_count=min_count,
        split=split,
        confidence=confidence,
        show_small=show_small,
        subgroups=subgroups or None,
        registered=registered or None,
        root=root or None,
        stages=stages or None,
        sweep=sweep or None,
        embeddings=embeddings,
    )
    return str(path)


def thresholds(
    predictions: str,
    out: str,
    rule: str = "youden",
    columns: str | Sequence[str] | dict[str, str] = "",
    min_count: int = 10,
    shrinkage: float = 10.0,
    towards: Literal["pooled", "shifted"] = "pooled",
) -> str:
    """Choose decision thresholds on the validation rows of one table and store them with their counts.

    Args:
        predictions: the table; only its rows with split val are looked at.
        out: the JSON file to write; the audit applies it with --thresholds file:OUT.
        rule: how they are chosen, such as youden, sensitivity=0.9, or "min_gap by sex+age_group" (one per group).
        columns: the file's own names, such as subject_id=PatientID,label=y_true,score=prob.
        min_count: positives and negatives a group needs for a threshold of its own.
        shrinkage: positives or negatives at which a group's own threshold weighs one half.
        towards: what it is drawn towards, pooled or shifted: the group's own if it differed by a shift of scores alone.
    """
    from monai_fair.metrics import store_thresholds

    fitted = store_thresholds(
        predictions,
        out,
        rule=rule,
        columns=option_pairs("--columns", columns),
        min_count=min_count,
        shrinkage=shrinkage,
        towards=towards,
    )
    positives, negatives = fitted.pooled_counts
    lines = [f"pooled: {fitted.pooled:.6g} ({positives} positives, {negatives} negatives) {fitted.reason}"]
    for group in fitted.groups if fitted.attributes else ():
        counts = f"{group.n_positive} positives, {group.n_negative} negatives, weight {group.weight:.2f}"
        lines.append(f"{group.name}: {group.threshold:.6g} ({counts}) {group.reason}")
    return "\n".join([*(line.rstrip() for line in lines), str(out)])
