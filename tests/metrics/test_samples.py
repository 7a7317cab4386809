import numpy as np
import pytest

from monai_fair.metrics.arrays import IntArray
from monai_fair.metrics.groups import Grouping
from monai_fair.metrics.samples import Samples, by_appearance, canonical_samples


def grouping(name: str, codes: IntArray, size: int) -> Grouping:
    names = tuple("abcdef"[:size])
    return Grouping((name,), tuple((level,) for level in names), names, codes)


def draw(seed: int, *, images: int, codes: tuple[int, ...] = (0, 1, 2)) -> Samples:
    """The same samples in an order, with subject numbers and group codes, that depend on the seed only by name."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    y, score = fixed.random(80) < 0.5, fixed.integers(0, 5, 80) / 4
    subject = fixed.integers(0, 80 // images, 80) if images > 1 else np.arange(80)
    first, second = fixed.integers(-1, 3, 80), fixed.integers(0, 2, 80)
    order = rng.permutation(80)
    named = by_appearance(rng.permutation(80)[subject])
    groups = [grouping("g", np.append(codes, -1)[first][order], 3), grouping("h", second[order], 2)]
    return canonical_samples(y[order], [score[order], score[order] ** 2], named[order], groups)


def test_codes_by_appearance() -> None:
    assert by_appearance(np.array([7, 3, 7, 9, 3])).tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("images", [1, 4])
def test_the_order_depends_on_what_samples_hold_alone(images: int) -> None:
    one, other = draw(1, images=images), draw(2, images=images, codes=(2, 0, 1))
    for name in ("y", "cell", "subject", "unit"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    groups = one.members.toarray(), other.members.toarray()
    np.testing.assert_array_equal(groups[0][[1, 2, 0, 3, 4]], groups[1])


def test_counts_of_cells_are_added_up_to_groups() -> None:
    samples = draw(0, images=1)
    codes = [part.codes[samples.rows] for part in samples.groupings]
    of_cells = np.zeros((samples.num_cells, 2, 1, 1))
    np.add.at(of_cells, (samples.cell, samples.y.astype(int), 0, 0), 1)
    expected = [
        [(code == k)[samples.y == truth].sum() for truth in (0, 1)] for code in codes for k in range(code.max() + 1)
    ]
    assert samples.group_counts(of_cells)[0, :, :, 0].tolist() == expected
    assert samples.starts.tolist() == [0, 3]


def test_units_are_the_images_of_a_subject_in_a_cell() -> None:
    codes = np.array([0, 0, 1, 1, 0])
    subject, score = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    samples = canonical_samples(np.ones(5, bool), [score], subject, [grouping("g", codes, 2)])
    units = [set(samples.rows[samples.unit == unit].tolist()) for unit in range(samples.unit.max() + 1)]
    assert sorted(units, key=min) == [{0, 1}, {2}, {3}, {4}]


def test_cells_that_hold_the_same_are_told_apart_by_their_groups() -> None:
    # One case each in (a, a) and (b, b) with the same score; a and b of the first attribute differ in another case.
    first, second = np.array([0, 1, 0, 1]), np.array([0, 1, 2, 2])
    y, score = np.ones(4, bool), np.array([0.5, 0.5, 0.1, 0.3])
    renamed = grouping("g", 1 - first, 2), grouping("h", np.array([1, 0, 2])[second], 3)
    named = grouping("g", first, 2), grouping("h", second, 3)
    found = [canonical_samples(y, [score], np.arange(4), groups).rows.tolist() for groups in (named, renamed)]
    assert found[0] == found[1]
