"""LabelPropagation: the label map that a registration writes, as channels, with the template's own values."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import AsDiscreted

from monai_fair.data import read_labels
from monai_fair.engines import LabelPropagation, LabelValuesd
from monai_fair.engines.registration_files import write_subject
from monai_fair.errors import RegistrationError

LOGGER = "monai_fair.engines.label_propagation"


def propagation(brain: Any, *, space: Any = None, max_folds: float = 0.01, **options: Any) -> LabelPropagation:
    return LabelPropagation(brain.fit(residual=False), space or brain.space, max_folds=max_folds, **options)


def labels_of(answer: torch.Tensor, inferer: LabelPropagation) -> np.ndarray[Any, Any]:
    """What postprocessing makes of a subject's channels, without turning."""
    chain = AsDiscreted(keys="pred", argmax=True)({"pred": answer})
    return np.asarray(LabelValuesd("pred", inferer)(chain)["pred"])[0]


@pytest.fixture(scope="module")
def answered(brain: Any) -> tuple[LabelPropagation, torch.Tensor]:
    inferer = propagation(brain)
    return inferer, inferer(brain.images[:2, None], brain.network())


def test_every_voxel_has_one_label(answered: Any, brain: Any) -> None:
    inferer, answer = answered
    assert inferer.values == (0, 1, 2, 3)
    assert answer.dtype == torch.uint8
    assert answer.shape == (2, 4, *brain.grid.shape)
    assert torch.equal(answer.sum(dim=1), torch.ones_like(answer[:, 0]))


def test_labels_are_those_that_a_registration_writes(answered: Any, brain: Any, tmp_path: Path) -> None:
    inferer, answer = answered
    for place, found in enumerate(inferer.register(brain.images[:2, None], brain.network())):
        field = found.displacement
        options = {"displacement": field, "inverse": field, "exports": ["labels"]}
        write_subject(tmp_path, str(place), brain.space, brain.images[place], **options)
        written = read_labels(tmp_path / f"sub-{place}_space-T1w_dseg.nii.gz").array
        np.testing.assert_array_equal(labels_of(answer[place], inferer), written)


def test_labels_are_the_nearest_ones_of_the_template(answered: Any, brain: Any) -> None:
    """In numpy: S(x) = T(round(x + u(x))), but for places half way between two voxels."""
    inferer, answer = answered
    found = inferer.register(brain.images[:1, None], brain.network())[0]
    points = np.indices(brain.grid.shape) + found.displacement.numpy()
    size = np.array(brain.grid.shape)[:, None, None, None]
    places = np.clip(np.rint(points), 0, size - 1).astype(int)
    clear = (np.abs(points - np.floor(points) - 0.5) > 1e-3).all(axis=0)
    assert clear.mean() > 0.99
    expected = brain.anatomy.tissue[tuple(places)]
    moved = labels_of(answer[0], inferer)
    np.testing.assert_array_equal(moved[clear], expected[clear])
    assert (moved != brain.anatomy.tissue).mean() > 0.01


@settings(max_examples=8, deadline=None)
@given(values=st.lists(st.integers(-100, 2**24), min_size=4, max_size=4, unique=True))
def test_other_values_of_the_template_are_those_of_the_answer(answered: Any, brain: Any, values: list[int]) -> None:
    """A template's labels under other numbers give the same parts under these numbers."""
    inferer = answered[0]
    table = np.array(values)
    space = replace(brain.space, labels={"own": table[brain.anatomy.tissue]})
    renamed = LabelPropagation(inferer.fit, space)
    assert renamed.values == tuple(sorted(values))
    field = inferer.register(brain.images[:1, None], brain.network(width=24))[0].displacement
    channels = renamed.one_hot(field)
    np.testing.assert_array_equal(labels_of(channels, renamed), table[labels_of(inferer.one_hot(field), inferer)])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 255), torch.uint8),
        ((0, 256), torch.int16),
        ((-1, 3), torch.int16),
        ((0, 2035, 32767), torch.int16),
        ((0, 32768), torch.int32),
    ],
)
def test_labels_have_the_smallest_type_that_holds_them(
    answered: Any, values: Iterable[int], expected: torch.dtype
) -> None:
    inferer = propagation_of(answered[0], tuple(values))
    channels = torch.tensor([[[[0.0, 1.0]]]])
    found = LabelValuesd("pred", inferer)({"pred": channels})["pred"]
    assert found.dtype == expected
    assert found.flatten().tolist() == list(inferer.values[:2])


def propagation_of(inferer: LabelPropagation, values: tuple[int, ...]) -> LabelPropagation:
    labels = np.resize(np.array(values), inferer.space.image.shape)
    return LabelPropagation(inferer.fit, replace(inferer.space, labels={"own": labels}))


def test_metadata_of_the_image_are_those_of_the_labels(brain: Any) -> None:
    affine = torch.from_numpy(brain.grid.affine.copy())
    image = MetaTensor(brain.images[:1], affine=affine)
    image.push_applied_operation({"class": "Orientation"})
    answer = propagation(brain)(image[None], brain.network(width=24))[0]
    assert isinstance(answer, MetaTensor)
    assert answer.dtype == torch.uint8
    torch.testing.assert_close(answer.affine, affine)


def test_the_first_label_map_is_the_default(brain: Any) -> None:
    inferer = propagation(brain)
    assert inferer.label_map == "tissue"
    other = inferer.of_map("roi")
    assert other.fit is inferer.fit
    assert other.max_folds == inferer.max_folds
    assert other.values == tuple(np.unique(brain.anatomy.roi).tolist())
    assert propagation(brain, label_map="roi").values == other.values
    reverse = replace(brain.space, labels=dict(reversed(brain.space.labels.items())))
    assert propagation(brain, space=reverse).label_map == "roi"


def test_what_does_not_count_is_answered_and_said(brain: Any, caplog: pytest.LogCaptureFixture) -> None:
    network, image = brain.network(width=24), brain.images[:1, None]
    with caplog.at_level(logging.WARNING, LOGGER):
        propagation(brain)(image, network)
        assert not [record for record in caplog.records if record.name == LOGGER]
        propagation(brain)(1 - image, network)
    said = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len(said) == 1
    assert said[0].startswith("the registration does not count: expected an image that is bright where the template is")


def test_folds_are_in_doubt(brain: Any) -> None:
    found = propagation(brain, max_folds=-1.0).register(brain.images[:1, None], brain.network(width=24))[0]
    assert found.doubt == f"{100 * found.quality['folds']:.2f} % of the brain folds, more than -100 %"


def test_a_fit_that_diverges_is_an_error(brain: Any) -> None:
    image = torch.full_like(brain.images[:1, None], torch.nan)
    with pytest.raises(RegistrationError, match="expected finite displacements, got some that are not: the fit div"):
        propagation(brain)(image, brain.network(width=24))


def test_what_cannot_be_carried_is_named(brain: Any) -> None:
    bare = replace(brain.space, labels={}, source="t.nii.gz")
    with pytest.raises(RegistrationError) as caught:
        propagation(brain, space=bare)
    assert str(caught.value) == (
        "t.nii.gz: expected a label map beside the template, such as template_dseg.nii.gz, found none; put it there, "
        "labels are what is carried to subjects"
    )
    with pytest.raises(RegistrationError) as caught:
        propagation(brain, label_map="lobes")
    assert str(caught.value) == "label_map: expected one of tissue, roi, got 'lobes'; choose one"
    with pytest.raises(RegistrationError) as caught:
        propagation(brain)(brain.images[:2], brain.network(width=24))
    assert str(caught.value) == (
        "registration: expected images of shape (B, 1, D, H, W), got (2, 28, 32, 28); give one channel"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_request_for_another_device_is_answered_there(answered: Any, brain: Any) -> None:
    """Built on the CPU, asked on the GPU, as a server does; the fit it was built with stays where it is."""
    inferer, expected = answered
    found = inferer(brain.images[:2, None].cuda(), brain.network().cuda())
    assert found.device.type == "cuda"
    assert inferer.fit.match.mask.device.type == "cpu"
    assert (found.cpu() != expected).float().mean() < 1e-3  # sums in another order
    chain = AsDiscreted(keys="pred", argmax=True)({"pred": found[0]})
    assert LabelValuesd("pred", inferer)(chain)["pred"].device.type == "cuda"
