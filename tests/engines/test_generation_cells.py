"""How many images are planned for which cell, and what is refused before any is made."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data import check_manifest
from monai_fair.engines import GenerationOptions, GenerationPlan, plan_generation
from monai_fair.errors import ManifestError, MonaiFairError

# 6 of (0, S1), 2 of (0, S2), 1 of (1, S1), 5 of (1, S2), and val and test rows
COUNTS = {(0, "S1"): 6, (0, "S2"): 2, (1, "S1"): 1, (1, "S2"): 5}
CELLS = [cell for cell, count in COUNTS.items() for _ in range(count)]
TRAIN = [f"s{place:02d}" for place in range(len(CELLS))]
OTHERS = {"v1": "val", "t1": "test", "t2": "test"}
SUBGROUPS = {**{subject: cell[1] for subject, cell in zip(TRAIN, CELLS, strict=True)}, "v1": "S1", "t1": "S2"}


def manifest_of(**columns: Any) -> Any:
    table = pd.DataFrame(
        {
            "subject_id": [*TRAIN, *OTHERS],
            "label": [str(label) for label, _ in CELLS] + ["0", "1", "0"],
            "split": ["train"] * len(TRAIN) + list(OTHERS.values()),
        }
    )
    table.insert(1, "image", table["subject_id"] + ".nii.gz")
    return check_manifest(table.assign(**columns), "manifest.csv")


def plan(*, subgroups: Any = SUBGROUPS, manifest: Any = None, codes: Any = None, **options: Any) -> GenerationPlan:
    subjects = [*OTHERS, *TRAIN]  # in another order than the manifest, and with rows of other splits
    values = np.random.default_rng(0).standard_normal((len(subjects), 3, 4)) if codes is None else codes
    return plan_generation(
        manifest or manifest_of(), subgroups, subjects, values, GenerationOptions(**{"rule": "swap", **options})
    )


def counts(found: GenerationPlan) -> dict[tuple[int, str], tuple[int, str]]:
    return {(cell.label, cell.subgroup): (cell.generated, cell.reason) for cell in found.cells}


def test_every_cell_is_filled_up_to_the_largest() -> None:
    found = plan()
    assert counts(found) == {(0, "S1"): (0, ""), (0, "S2"): (4, ""), (1, "S1"): (5, ""), (1, "S2"): (1, "")}
    assert [image.cell for image in found.images] == [(0, "S2")] * 4 + [(1, "S1")] * 5 + [(1, "S2")]
    assert [image.subject_id for image in found.images] == [f"gen-{number:04d}" for number in range(1, 11)]
    assert found.subject_ids == TRAIN
    assert found.warnings == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fill": 0.5}, (2, 3, 1)),  # halves of 4, 5 and 1, rounded up from .5
        ({"max_per_member": 2}, (4, 2, 1)),  # two members, one, five
        (
            {"limit": 5},
            (2, 3, 0),
        ),  # 5 / 10 of 4, 5 and 1 is 2, 2.5 and 0.5; the first of equal remainders is rounded up
        ({"max_per_member": None, "limit": 10}, (4, 5, 1)),
    ],
)
def test_options_make_it_fewer_and_the_reason_is_kept(options: Any, expected: tuple[int, ...]) -> None:
    found = counts(plan(**options))
    assert tuple(count for count, _ in list(found.values())[1:]) == expected
    wanted = np.floor(np.array([4, 5, 1]) * options.get("fill", 1) + 0.5)
    for (count, reason), full in zip(list(found.values())[1:], wanted, strict=True):
        assert bool(reason) == (count < full)


def test_reasons_are_said_in_words() -> None:
    assert plan(max_per_member=2).warnings == [
        "label 1 in subgroup 'S1': 2 images for a deficit of 5: at most 2 for each of its training subjects, of which "
        "there are 1"
    ]
    assert plan(limit=9).warnings == ["label 1 in subgroup 'S1': 4 images for a deficit of 5: at most 9 in all"]
    assert plan(rule="interpolation").warnings == [
        "label 1 in subgroup 'S1': 0 images for a deficit of 5: it has one training subject, and an interpolation "
        "needs two; take rule gaussian or swap"
    ]
    assert plan(donors="cell").warnings == [
        "label 1 in subgroup 'S1': 0 images for a deficit of 5: its one training subject is alone in its cell, and a "
        "swap needs another one's image"
    ]


def test_an_empty_cell_is_named() -> None:
    lone = TRAIN[CELLS.index((1, "S1"))]
    found = plan(subgroups={**SUBGROUPS, lone: "S2"})
    assert counts(found)[1, "S1"] == (0, "it has no training subject, so nothing says what its codes look like")


def test_one_subgroup_leaves_the_deficit_of_the_labels() -> None:
    found = plan(subgroups=dict.fromkeys(TRAIN, "S1"))
    assert counts(found) == {(0, "S1"): (0, ""), (1, "S1"): (2, "")}  # 8 and 6
    assert found.warnings == ["there is one subgroup only: nothing but the labels' deficit can be filled"]


def test_subjects_without_a_subgroup_are_counted_in_no_cell() -> None:
    absent = dict.fromkeys(TRAIN[:2])
    found = plan(subgroups={subject: group for subject, group in SUBGROUPS.items() if subject not in absent})
    assert found.cells[0].n == 4
    assert found.warnings == ["2 of 14 training subjects have no subgroup and are not counted in any cell"]
    assert not set(absent) & set(found.subject_ids)


def test_nothing_to_fill_is_said() -> None:
    subjects = TRAIN[:2]
    table = manifest_of().table.query("subject_id in @subjects").assign(label=["0", "1"])
    found = plan(manifest=check_manifest(table, "two.csv"), subgroups=dict.fromkeys(subjects, "S1"))
    assert found.images == []
    assert found.warnings[-1] == "no image was generated: no cell lacks any, or none could be sampled"


@pytest.mark.parametrize("rule", ["gaussian", "interpolation", "swap"])
@pytest.mark.parametrize("donors", [None, "cell", "label"])
def test_donors_are_training_subjects_of_the_cell_or_the_label(rule: Any, donors: Any) -> None:
    found = plan(rule=rule, donors=donors)
    by_label = donors == "label" or (donors is None and rule == "swap")
    assert found.images
    for image in found.images:
        donor = CELLS[image.donor]
        assert donor[0] == image.cell[0]
        assert by_label or donor == image.cell
    if rule == "swap" and by_label:  # the only member of a cell is no donor for its own code
        assert CELLS.index((1, "S1")) not in [image.donor for image in found.images if image.cell == (1, "S1")]


def test_rows_of_other_splits_change_nothing() -> None:
    values = np.random.default_rng(0).standard_normal((len(TRAIN) + len(OTHERS), 3, 4))
    poisoned = values.copy()
    poisoned[: len(OTHERS)] = np.nan
    first = plan(codes=values, rule="gaussian")
    second = plan(codes=poisoned, rule="gaussian", subgroups={**SUBGROUPS, "v1": "S2", "t1": "S9"})
    assert first.images == second.images
    assert first.cells == second.cells
    draws = [found.sampler.draw((1, "S1"), np.random.default_rng(0)).code for found in (first, second)]
    np.testing.assert_array_equal(*draws)
    assert first.sampler.codes.tolist() == values[len(OTHERS) :].reshape(14, -1).tolist()


def test_a_seed_chooses_the_donors() -> None:
    assert plan(seed=1).images == plan(seed=1).images
    assert plan(seed=1).images != plan(seed=2).images


def test_every_problem_of_the_manifest_is_named() -> None:
    table = manifest_of().table
    table = table.assign(subgroup="S7", subject_id=table["subject_id"].replace({"t1": "gen-0001", "s01": "s00"}))
    table["label"] = table["label"].astype(str)
    with pytest.raises(ManifestError) as caught:
        plan(manifest=check_manifest(table, "manifest.csv"), subgroups={**SUBGROUPS, "s03": "S1", "s00": "S1"})
    assert str(caught.value) == (
        "manifest.csv: 3 problems\n"
        "  1. column 'subgroup': expected the given subgroups or no such column, got others; rename it\n"
        "  2. expected no subject named 'gen-...', which generated ones are, got gen-0001\n"
        "  3. expected one image per training subject, 1 have more: s00; keep one"
    )


def test_codes_and_subgroups_of_different_runs_are_refused() -> None:
    with pytest.raises(ManifestError) as caught:
        plan_generation(manifest_of(), SUBGROUPS, TRAIN[2:], np.eye(12), GenerationOptions())
    assert str(caught.value) == (
        "manifest.csv: expected a code for every training subject with a subgroup, 2 of 14 have none: s00, s01; give "
        "the registration that the subgroups were found in"
    )
    with pytest.raises(ManifestError) as caught:
        plan(subgroups={"t1": "S1"})
    assert str(caught.value) == "manifest.csv: expected training subjects with a subgroup, got none; check the ids"


def test_weights_of_another_balance_are_refused() -> None:
    with pytest.raises(ManifestError) as caught:
        plan(manifest=manifest_of(weight="1.0"))
    assert str(caught.value) == (
        "manifest.csv: expected no column 'weight', its weights are those of the rows without generated ones; give the "
        "manifest it was made of"
    )


def test_every_problem_of_the_options_is_named() -> None:
    with pytest.raises(MonaiFairError) as caught:
        GenerationOptions(donors="any", fill=0.0, max_per_member=0, limit=2.5, seed=-1)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "options of generated images: 5 problems\n"
        "  1. donors: expected cell, label or None, got 'any'\n"
        "  2. fill: expected a share above 0 and at most 1, got 0.0\n"
        "  3. max_per_member: expected a whole number from 1, or None, got 0\n"
        "  4. limit: expected a whole number from 1, or None, got 2.5\n"
        "  5. seed: expected a whole number from 0, got -1"
    )
