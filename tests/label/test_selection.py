"""Which image is next, against tables worked by hand; and laws of every rule."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, strategies

from monai_fair.errors import LabelError
from monai_fair.label.audit_bounds import AuditBounds, Bound
from monai_fair.label.group_rules import least_represented, worst_subgroup
from monai_fair.label.image_groups import Groups
from monai_fair.label.image_table import ImageTable
from monai_fair.label.selection import Choice, Rule, choose, mix, uncertain

NAN = float("nan")
NOW = 10_000.0


def sexes(values: str, *, names: tuple[str, ...] = ("female", "male"), earlier: tuple[float, ...] = (0, 0)) -> Groups:
    """Groups by a letter each: f, m, or - for missing."""
    shares = np.array([{"f": [1, 0], "m": [0, 1], "-": [NAN, NAN]}[letter] for letter in values], float)
    return Groups("sex", names, shares.reshape(-1, 2), np.array(earlier, float))


def table(labelled: str, *groups: Groups, served: list[float] | None = None, **more: Any) -> ImageTable:
    """Images a, b, c, ... with x for labelled."""
    n = len(labelled)
    return ImageTable(
        tuple("abcdefghijklmnop"[:n]),
        np.array([letter == "x" for letter in labelled]),
        np.array(served or [0.0] * n),
        groups,
        **more,
    )


def scored(labelled: str, scores: list[float], thresholds: list[float] | None = None, *groups: Groups) -> ImageTable:
    n = len(labelled)
    return table(
        labelled,
        *groups,
        scores=np.array(scores, float),
        thresholds=np.array(thresholds or [0.5] * n),
        threshold_sources=("no thresholds are stored",) * n,
    )


def next_of(images: ImageTable, rule: Rule) -> Choice:
    found = choose(images, rule, now=NOW)
    assert found is not None
    return found


def test_the_group_with_the_fewest_labels_is_next() -> None:
    # labelled: c and d are male, e is female; open: a male, b and f female
    found = next_of(table("..xxx.", sexes("mfmmff")), least_represented)
    assert found == Choice("b", "sex=female has 1 labelled image, the fewest of 2 groups", "sex=female")


def test_what_the_model_was_trained_on_counts_too() -> None:
    found = next_of(table("..xxx.", sexes("mfmmff", earlier=(4, 2))), least_represented)
    assert found == Choice(
        "a",
        "sex=male has 4 labelled images, the fewest of 2 groups (2 of them in the training manifest)",
        "sex=male",
    )


def test_a_group_without_open_images_is_passed_over_and_said() -> None:
    found = next_of(table(".xx.", sexes("mfmm")), least_represented)
    assert found == Choice(
        "a",
        "sex=male has 1 labelled image, the fewest of 2 groups",
        "sex=male",
    )
    found = next_of(table(".xxx.", sexes("mfmmm")), least_represented)
    assert found.reason == (
        "sex=male has 2 labelled images, the fewest with images to label of 2 groups; of female (1) no image is free"
    )


def test_images_without_a_value_come_last_and_are_said() -> None:
    found = next_of(table("..x", sexes("-mm")), least_represented)
    assert found.image_id == "b"
    assert found.reason.endswith("; sex of 1 of 2 images without a label is not recorded")
    found = next_of(table(".xx", sexes("-mf")), least_represented)
    assert found == Choice(
        "a", "no image of a known group is left; sex of 1 of 1 images without a label is not recorded", ""
    )


def test_counts_of_several_attributes_are_compared_with_an_equal_share() -> None:
    """Each of six sites has a label, three of sex male and three female: sites are not behind because they are many."""
    sites = np.eye(6)[[0, 1, 2, 3, 4, 5, 5, 5]]
    site = Groups("site", tuple("ABCDEF"), sites, np.zeros(6))
    # labelled: a to f, one of each site; sex: 4 male, 2 female; open: g male of F, h female of F
    images = table("xxxxxx..", site, sexes("mmmmffmf"))
    found = next_of(images, least_represented)
    assert (found.image_id, found.group) == ("h", "sex=female")
    assert found.reason == (
        "sex=female has 2 labelled images, the fewest of 2 groups, and the furthest below an equal share among "
        "site, sex"
    )


def test_of_images_in_one_group_the_next_attribute_decides() -> None:
    # labelled: one female of four, and one old of four; a is female and young, b female and old
    groups = np.array([[0, 1], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]], float)
    age = Groups("age", ("old", "young"), groups, np.zeros(2))
    found = next_of(table("..xxxx", sexes("fffmmm"), age), least_represented)
    assert found.image_id == "b"


def test_the_least_represented_group_of_any_attribute_decides() -> None:
    age = Groups("age", ("old", "young"), np.array([[0, 1], [1, 0], [0, 1], [0, 1], [1, 0]], float), np.zeros(2))
    found = next_of(table("..xxx", sexes("ffffm"), age), least_represented)
    # sex=female 2 of 3 (share 1.33), age=old 1 of 3 (share 0.67), age=young 2 of 3 (1.33)
    assert (found.image_id, found.group) == ("b", "age=old")


def test_discovered_subgroups_count_with_their_probability() -> None:
    shares = np.array([[0.6, 0.4], [0.3, 0.7], [0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [NAN, NAN]])
    found_groups = Groups("subgroup", ("S1", "S2"), shares, np.array([0.0, 1.0]), "not scored yet")
    # labelled d and e: S1 1.7, S2 0.3 + 1; S2 is behind, and c is most surely in it
    found = next_of(table("...xx.", found_groups), least_represented)
    assert found == Choice(
        "c",
        "subgroup=S2 has about 1.3 labelled images, the fewest of 2 groups (1 of them in the training manifest); this "
        "image is in it with probability 0.90; subgroup of 1 of 4 images without a label is not scored yet",
        "subgroup=S2",
    )


def test_no_group_is_an_error_that_says_what_to_do() -> None:
    for rule in (least_represented, lambda images: worst_subgroup(images, AuditBounds("auc", {}))):
        with pytest.raises(
            LabelError, match="expected images with attributes or discovered subgroups, no image has any"
        ):
            next_of(table(".."), rule)


AUDIT = AuditBounds(
    "auc",
    {
        "sex": {"female": Bound(0.8, 0.7, 40), "male": Bound(0.75, 0.72, 90)},
        "site": {"A": Bound(0.9, NAN, 3, "fewer than 10 positives in this group"), "B": Bound(0.7, 0.65, 50)},
    },
)


def worst(images: ImageTable) -> Any:
    return worst_subgroup(images, AUDIT)


def test_the_lower_bound_decides_and_not_the_value() -> None:
    found = next_of(table("..", sexes("mf")), worst)
    assert found == Choice(
        "b",
        "auc of sex=female is 0.800, its lower bound 0.700 (n = 40) the smallest of 2 groups",
        "sex=female",
    )


def test_a_group_of_too_few_cases_comes_first_and_it_is_said() -> None:
    """Left out, it would never get the labels that an interval needs."""
    site = Groups("site", ("A", "B"), np.array([[0, 1], [0, 1], [1, 0]], float), np.zeros(2))
    found = next_of(table("...", sexes("fmm"), site), worst)
    assert (found.image_id, found.group) == ("c", "site=A")
    assert found.reason == (
        "auc of site=A has no lower bound (n = 3; fewer than 10 positives in this group), which counts as 0, the "
        "smallest of 4 groups"
    )
    # without an image of A, B is next
    found = next_of(table("..x", sexes("fmm"), site), worst)
    assert found.group == "site=B"
    assert "the smallest with images to label of 4 groups; of 1 lower one no image is free" in found.reason


def test_images_of_no_audited_group_come_last() -> None:
    images = table("..", sexes("-m"))
    assert next_of(images, worst).image_id == "b"
    found = next_of(table(".x", sexes("-m")), worst)
    assert found.reason.startswith("no image is left in a group that the audit measures")


def test_an_audit_of_other_groups_is_an_error() -> None:
    other = AuditBounds("auc", {"site": {"A": Bound(0.9, 0.8, 30)}})
    with pytest.raises(LabelError, match="expected auc of at least one group of sex, the audit has none; audit the"):
        next_of(table(".", sexes("f")), lambda images: worst_subgroup(images, other))


def test_the_score_nearest_to_its_own_threshold_is_next() -> None:
    # distances 0.1, 0.3, 0.05, and c is labelled
    found = next_of(scored("..x.", [0.6, 0.5, 0.5, 0.25], [0.5, 0.2, 0.5, 0.3]), uncertain)
    assert found == Choice(
        "d",
        "the score 0.250 is 0.050 from the threshold 0.300 (no thresholds are stored), the nearest of 3 scored images",
    )


def test_images_without_a_score_come_last_and_are_said() -> None:
    found = next_of(scored("...", [NAN, 0.9, NAN]), uncertain)
    assert found.image_id == "b"
    assert found.reason.endswith("the nearest of 1 scored image; 2 of 3 images without a label are not scored yet")
    found = next_of(scored(".x", [NAN, 0.9]), uncertain)
    assert found == Choice(
        "a", "no image that is scored is left without a label; 1 of 1 images without a label are not scored yet"
    )
    with pytest.raises(LabelError, match="expected images that are scored, got none; run the bundle's scoring first"):
        next_of(scored("..", [NAN, NAN]), uncertain)


def test_of_several_classes_the_two_highest_scores_count() -> None:
    images = table("...", scores=np.array([[0.6, 0.3, 0.1], [0.1, 0.47, 0.43], [0.5, 0.0, 0.5]]))
    assert next_of(images, uncertain).image_id == "c"
    images = table("..x", scores=np.array([[0.6, 0.3, 0.1], [0.1, 0.47, 0.43], [0.5, 0.0, 0.5]]))
    assert next_of(images, uncertain) == Choice(
        "b", "the scores of class 1 and class 2 are 0.040 apart, the nearest of 2 scored images"
    )


def mixed(uncertain_weight: float, represented_weight: float) -> Rule:
    rules = {"uncertain": (uncertain, uncertain_weight), "least_represented": (least_represented, represented_weight)}
    return lambda images: mix(images, rules)


def test_ranks_are_averaged_by_weight() -> None:
    # uncertain: a 1, b 2, c 3, d 4; female (none labelled) before male: c and d 1.5, a and b 3.5
    images = scored("....x", [0.5, 0.6, 0.7, 0.8, 0.5], None, sexes("mmffm"))
    assert next_of(images, mixed(1, 0)).image_id == "a"
    assert next_of(images, mixed(0, 1)).image_id == "c"
    # 0.5: a 2.25, b 2.75, c 2.25, d 2.75; 0.4: a 2.5, c 2.1; 0.6: a 2.0, c 2.4
    assert next_of(images, mixed(0.5, 0.5)).image_id == "a"
    assert next_of(images, mixed(0.4, 0.6)).image_id == "c"
    found = next_of(images, mixed(6, 4))
    assert found == Choice(
        "a",
        "uncertain (weight 0.6): rank 1 of 4, the score 0.500 is 0.000 from the threshold 0.500 (no thresholds are "
        "stored), the nearest of 4 scored images; least_represented (weight 0.4): rank 3.5 of 4, group sex=male",
        "sex=male",
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.0, 0.0), "mix: expected a weight above 0"),
        ((-1.0, 2.0), "mix: expected weights from 0, got uncertain=-1.0"),
        ((NAN, 1.0), "mix: expected weights from 0, got uncertain=nan"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights: tuple[float, float], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        next_of(scored("..", [0.1, 0.2], None, sexes("fm")), mixed(*weights))


def test_what_somebody_was_given_is_left_to_them() -> None:
    groups = sexes("ffmx".replace("x", "m"))
    served = [NOW - 599.0, 0.0, 0.0, 0.0]
    assert next_of(table("...x", groups, served=served), least_represented).image_id == "b"
    served[1] = NOW - 1.0
    found = next_of(table("...x", groups, served=served), least_represented)
    assert (found.image_id, found.group) == ("c", "sex=male")
    assert found.reason.endswith("; of female (0) no image is free")
    served[0] = NOW - 600.0  # ten minutes are over
    assert next_of(table("...x", groups, served=served), least_represented).image_id == "a"


def test_when_all_are_given_out_the_one_that_waited_longest_is_next() -> None:
    served = [NOW - 10.0, NOW - 300.0, NOW - 20.0]
    found = next_of(table("...", sexes("fmf"), served=served), least_represented)
    assert found.image_id == "b"
    assert found.reason.endswith(
        "; all 3 images without a label were given out within the last 10 minutes, this one longest ago"
    )


def test_nothing_to_label_is_none() -> None:
    assert choose(table("xx", sexes("fm")), least_represented, now=NOW) is None


def either(images: ImageTable) -> Any:
    bounds = {"one": Bound(0.9, 0.8, 9), "two": Bound(0.9, 0.7, 9), "three": Bound(0.9, NAN, 9)}
    return worst_subgroup(images, AuditBounds("auc", {"way": bounds}))


RULES: dict[str, Callable[[ImageTable], Any]] = {
    "least_represented": least_represented,
    "worst_subgroup": either,
    "uncertain": uncertain,
    "mix": lambda images: mix(images, {"u": (uncertain, 0.5), "l": (least_represented, 0.25), "w": (either, 0.25)}),
}


@strategies.composite
def tables(draw: strategies.DrawFn) -> ImageTable:
    n = draw(strategies.integers(1, 8))
    codes = draw(strategies.lists(strategies.integers(-1, 2), min_size=n, max_size=n))
    shares = np.full((n, 3), NAN)
    for row, code in enumerate(codes):
        if code >= 0:
            shares[row] = 0
            shares[row, code] = 1
    scores = draw(strategies.lists(strategies.sampled_from([0.1, 0.4, 0.5, 0.9, NAN]), min_size=n, max_size=n))
    assume(not all(np.isnan(scores)))
    return ImageTable(
        tuple(draw(strategies.permutations([f"image{row}" for row in range(n)]))),
        np.array(draw(strategies.lists(strategies.booleans(), min_size=n, max_size=n))),
        np.array(draw(strategies.lists(strategies.sampled_from([0.0, NOW - 30, NOW - 5]), min_size=n, max_size=n))),
        (Groups("way", ("one", "two", "three"), shares, np.array([1.0, 0.0, 2.0])),),
        np.array(scores),
        np.full(n, 0.5),
        ("fixed",) * n,
    )


def reordered(images: ImageTable, order: list[int]) -> ImageTable:
    (groups,) = images.groups
    assert images.scores is not None
    assert images.thresholds is not None
    return ImageTable(
        tuple(images.ids[row] for row in order),
        images.labelled[order],
        images.served_at[order],
        (Groups(groups.name, groups.names, groups.shares[order], groups.earlier),),
        images.scores[order],
        images.thresholds[order],
        images.threshold_sources,
    )


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
class TestLaws:
    @given(images=tables())
    def test_an_image_without_a_label_comes_back_if_there_is_one(self, rule: Rule, images: ImageTable) -> None:
        found = choose(images, rule, now=NOW)
        assert (found is None) == images.labelled.all()
        if found is not None:
            row = images.ids.index(found.image_id)
            assert not images.labelled[row]
            recent = NOW - images.served_at < 600
            assert not recent[row] or recent[~images.labelled].all()
            assert found.reason

    @given(images=tables(), data=strategies.data())
    def test_the_order_of_rows_does_not_matter(self, rule: Rule, images: ImageTable, data: Any) -> None:
        order = data.draw(strategies.permutations(range(len(images.ids))))
        assert choose(reordered(images, order), rule, now=NOW) == choose(images, rule, now=NOW)

    @given(images=tables(), data=strategies.data())
    def test_names_and_order_of_groups_do_not_matter(self, rule: Rule, images: ImageTable, data: Any) -> None:
        if rule in (RULES["worst_subgroup"], RULES["mix"]):
            return  # an audit knows groups by name
        (groups,) = images.groups
        order = data.draw(strategies.permutations(range(3)))
        names = tuple(f"renamed {place}" for place in range(3))
        other = Groups(groups.name, names, groups.shares[:, order], groups.earlier[order])
        changed = ImageTable(
            images.ids, images.labelled, images.served_at, (other,), images.scores, images.thresholds,
            images.threshold_sources,
        )  # fmt: skip
        one, two = (choose(each, rule, now=NOW) for each in (images, changed))
        assert (one and one.image_id) == (two and two.image_id)


def test_images_whose_scoring_failed_are_counted_apart_from_those_not_scored_yet() -> None:
    images = scored("....x", [0.9, NAN, NAN, NAN, NAN])
    found = next_of(replace(images, failed=np.array([False, True, True, False, True])), uncertain)
    assert found.reason.endswith(
        "; 1 of 4 images without a label are not scored yet; of 2 of 4 images without a label the scoring failed"
    )
    none = replace(scored("..", [NAN, NAN]), failed=np.array([True, False]))
    with pytest.raises(LabelError, match=r"got none \(of 1 the scoring failed; its answer says why, .* retry\)"):
        next_of(none, uncertain)
