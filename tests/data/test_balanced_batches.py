"""Batches with as many samples of every class: no sample twice, all classes, repeatable."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from monai_fair.data import ClassBalancedBatchSampler
from monai_fair.errors import ManifestError


def rows(*counts: int) -> list[dict[str, int]]:
    return [{"label": label} for label, count in enumerate(counts) for _ in range(count)]


@given(st.lists(st.integers(3, 30), min_size=2, max_size=4), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_every_batch_is_balanced_and_without_repeats(counts: list[int], each: int, seed: int) -> None:
    torch.manual_seed(seed)
    datalist, size = rows(*counts), each * len(counts)
    sampler = ClassBalancedBatchSampler(datalist, size, num_classes=len(counts))
    batches = list(sampler)
    assert len(batches) == len(sampler) == max(1, sum(counts) // size)
    for batch in batches:
        assert len(set(batch)) == size
        labels = [datalist[row]["label"] for row in batch]
        assert all(labels.count(label) == each for label in range(len(counts)))
    torch.manual_seed(seed)
    assert list(sampler) == batches


def test_rows_of_a_class_are_drawn_alike_and_classes_are_mixed() -> None:
    torch.manual_seed(0)
    datalist = rows(90, 10)
    drawn = list(ClassBalancedBatchSampler(datalist, 4, num_batches=2000))
    count = torch.bincount(torch.tensor(drawn).flatten(), minlength=100).float()
    # each row of class 1 is in a batch with chance 0.2: 400 +- 18 of 2000; of class 0 with 1 / 45
    assert (count[90:] - 400).abs().max() < 5 * 18
    assert (count[:90] - 2000 / 45).abs().max() < 5 * 6.6
    first = torch.tensor([batch[0] >= 90 for batch in drawn]).float().mean()
    assert abs(first - 0.5) < 5 * 0.0112


def test_it_serves_a_loader() -> None:
    datalist = rows(6, 2)
    loader = DataLoader(datalist, batch_sampler=ClassBalancedBatchSampler(datalist, 4))  # type: ignore[arg-type,var-annotated]
    assert [sorted(batch["label"].tolist()) for batch in loader] == [[0, 0, 1, 1]] * 2


@pytest.mark.parametrize(
    ("counts", "size", "options", "message"),
    [
        ((5, 1), 4, {}, r"expected at least 2 rows of label 1 \(2 in a batch\), got 1; take smaller batches"),
        ((5, 0), 2, {}, r"expected at least 1 rows of label 1 \(1 in a batch\), got 0"),
        ((5, 5), 3, {}, "expected a batch_size that is a multiple of 2, got 3"),
        ((5, 5), 0, {"num_batches": 0}, "2 problems"),
    ],
)
def test_bad_input(counts: tuple[int, ...], size: int, options: dict[str, int], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        ClassBalancedBatchSampler(rows(*counts), size, **options)
