"""Subgroups of one cohort in every representation: as the study claims them, and forced where it may claim none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from morphology_arms import GROUP, CohortStudy
from morphology_scores import conflicting_pairs, error_aware_scores, slicer_scores
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from monai_fair.data.artifacts import read_json
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.parallel import run_all
from monai_fair.subgroups import ErrorAwareMixture, LocalMixture
from monai_fair.subgroups.discovery_inputs import CohortRows, find_mask, read_representations

FloatArray = npt.NDArray[np.float64]
WRITTEN = ("log_jacobian", "displacement", "codes", "intensity")  # those that need no classifier
FIT_SPLITS = ("train", "val")
_COMPONENTS, _STARTS, _MOST_STEPS = 5, 3, 1000  # as discover has them
_LEAST_ROWS = 20  # of validation, below which an error-aware mixture has nothing to go by
_SLICES, _RETURNED, _WEIGHT = 25, 5, 10.0  # as Domino is used


def look(study: CohortStudy, names: Sequence[str], *, jobs: int) -> None:
    """Look for subgroups as the study does, in each representation apart."""
    outcomes = run_all(study.discover, names, workers=jobs)
    raise_problems(MonaiFairError, study.folder, [f"{each.item}: {each.error}" for each in outcomes if each.error])


def read_rows(study: CohortStudy, names: Sequence[str]) -> CohortRows:
    """Return the rows of numbers that the study looks at."""
    options = study.part("discovery").keywords
    return read_representations(
        study.cohort(),
        names,
        root=study.data,
        mask=find_mask(study.data, None, names),
        fit_splits=FIT_SPLITS,
        block_mm=options["block_mm"],
        keep_scale=False,
        embeddings=study.embeddings,
        num_workers=4,
    )


def projection(x: FloatArray, seed: int) -> Callable[[FloatArray], FloatArray]:
    """Return what takes rows to their leading principal components, in units of the first one's deviation."""
    components = PCA(min(_COMPONENTS, max(1, len(x) // 10), *x.shape), random_state=seed).fit(x)
    unit = np.sqrt(components.explained_variance_[0]) or 1.0
    return lambda rows: np.asarray(components.transform(rows) / unit)


def two_clouds(values: FloatArray, fitted: npt.NDArray[np.bool_], seed: int) -> FloatArray:
    """Return the memberships of all rows in exactly two clouds, shape ``(n, 2)``; fitted rows are all it sees."""
    project = projection(values[fitted], seed)
    mixture = ErrorAwareMixture(2, n_init=_STARTS, max_iter=_MOST_STEPS, random_state=seed)
    return mixture.fit(project(values[fitted])).predict_proba(project(values))


def memberships(study: CohortStudy, rows: CohortRows) -> dict[tuple[str, str], FloatArray]:
    """Return the memberships of all registered subjects, by representation and slicer.

    ``study`` are those of :func:`look`, one subgroup where nothing was claimed; ``two_clouds`` and, where rows have
    places in the brain, ``local`` always divide.
    """
    cohort = study.cohort()
    fitted = cohort.fitted(FIT_SPLITS)
    found = {}
    with threadpool_limits(1):
        for each in rows.representations:
            # the discovery's table has the subjects of the cohort, in their order
            table = pd.read_csv(study.discover(each.kind) / "subgroups.csv", dtype={"subject_id": str})
            assert table["subject_id"].tolist() == cohort.subjects
            found[each.kind, "study"] = table.filter(like="membership_").to_numpy(float)
            found[each.kind, "two_clouds"] = two_clouds(each.values, fitted, study.seed)
            if each.kind in rows.positions:
                local = LocalMixture(rows.positions[each.kind], null_draws=0, random_state=study.seed)
                found[each.kind, "local"] = local.fit(each.values[fitted]).predict_proba(each.values)
    return found


def detection_rows(study: CohortStudy, found: Mapping[tuple[str, str], FloatArray]) -> Iterator[dict[str, Any]]:
    """Yield the scores of every slicer; the truth is used here and not before."""
    table = study.cohort().table
    group, label, split = (table[name].to_numpy() for name in (GROUP, "label", "split"))
    for (representation, slicer), membership in found.items():
        for row in slicer_scores(membership, group, label, split, seed=study.seed):
            yield {"representation": representation, "slicer": slicer, **row}


def claim_rows(study: CohortStudy, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield what the study claimed in each representation, and how sure that is."""
    for name in names:
        record = read_json(study.discover(name) / "discovery.json", "discovery")
        best = record["candidates"][record["chosen"]] if record["claimed"] else {}
        kept = {key: best.get(key) for key in ("method", "n_components", "p_holm", "stability")}
        yield {"representation": name, "claimed": record["claimed"], **kept}


def error_aware_rows(study: CohortStudy, rows: CohortRows) -> Iterator[dict[str, Any]]:
    """Yield the scores of a mixture fitted to embeddings, labels and ERM's predictions of the validation rows."""
    table = study.cohort().table.merge(study.scores(), on="subject_id", validate="one_to_one")
    group, label, score = (table[name].to_numpy() for name in (GROUP, "label", "score"))
    val, test, train = (np.asarray(table["split"] == part) for part in ("val", "test", "train"))
    pairs, reason = conflicting_pairs(group[train], label[train])
    if val.sum() < _LEAST_ROWS:
        reason = f"{int(val.sum())} validation rows, fewer than {_LEAST_ROWS}"
    for each in rows.representations:
        facts = {"representation": each.kind, "slicer": "error_aware", "n_fitted": int(val.sum())}
        if reason:
            yield {**facts, "rows": "test", "measure": "average_precision", "value": None, "chance": None,
                   "reason": reason, "n": int(test.sum())}  # fmt: skip
            continue
        with threadpool_limits(1):
            project = projection(each.values[val], study.seed)
            mixture = ErrorAwareMixture(
                min(_SLICES, int(val.sum()) // 4),
                label_weight=_WEIGHT,
                prediction_weight=_WEIGHT,
                n_init=_STARTS,
                max_iter=_MOST_STEPS,
                random_state=study.seed,
            ).fit(project(each.values[val]), label[val], score[val])
            shares = mixture.predict_proba(project(each.values[test]), label[test], score[test])
        returned = mixture.ranking_[:_RETURNED].tolist()
        for row in error_aware_scores(shares, returned, group[test], label[test], pairs, seed=study.seed):
            yield {**facts, "n_slices": shares.shape[1], **row}
