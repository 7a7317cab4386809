"""Random deformations by sampled codes: the right direction, only where asked, never folded, reproducible."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy.ndimage import map_coordinates
from torch import Tensor

from monai_fair.errors import MonaiFairError
from monai_fair.geometry import voxel_points
from monai_fair.transforms import RandINRDeformationd, smallest_determinant

SHAPE = (10, 12, 9)
MASK = np.zeros(SHAPE, dtype=bool)
MASK[3:7, 3:8, 3:6] = True


@dataclass
class Drawn:
    code: Any


class Sampler:
    """Codes of one number: what a cell is listed with, then a random one around it."""

    def __init__(self, **codes: list[float]) -> None:
        self.codes = codes
        self.asked: list[Any] = []

    def draw(self, cell: Any, rng: np.random.Generator) -> Drawn:
        self.asked.append(cell)
        listed = self.codes[cell]
        return Drawn(np.array([listed.pop(0) if len(listed) > 1 else listed[0] + 0.01 * rng.standard_normal()]))


def decode(codes: Tensor) -> Tensor:
    """Scale about the centre by 1 + code: det J is (1 + code)^3 everywhere."""
    centre = (torch.tensor(SHAPE)[:, None, None, None] - 1) / 2
    return codes[:, :, None, None, None] * (voxel_points(SHAPE) - centre)


def images(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(1, *SHAPE, generator=generator) for name in ("image", "on_template")}


def pulled(image: Tensor, field: Tensor) -> Tensor:
    """The image at x + u(x), read by SciPy."""
    points = np.indices(SHAPE) + field[0].numpy()
    return torch.from_numpy(map_coordinates(image[0].numpy(), points, order=1, mode="nearest"))[None]


def deformation(sampler: Sampler, **options: Any) -> RandINRDeformationd:
    return RandINRDeformationd("image", sampler, decode, template_keys="on_template", mask=MASK, **options)


@pytest.mark.parametrize("code", [-0.3, 0.0, 0.2])
def test_the_determinant_of_a_scaling(code: float) -> None:
    found = smallest_determinant(decode(torch.tensor([[code]])), torch.from_numpy(MASK))
    torch.testing.assert_close(found, torch.tensor([(1 + code) ** 3]), rtol=1e-5, atol=0)


def test_only_folds_in_the_brain_count_and_the_brain_moves_with_the_field() -> None:
    # at the face the difference is one-sided, det J = 1 + (-2 - 0) = -1; at x = 8 it is central, 1 + (-2 - 0) / 2 = 0
    field = torch.zeros(1, 3, *SHAPE)
    field[0, 0, 9] = -2.0
    assert float(smallest_determinant(field, torch.ones(SHAPE))[0]) == pytest.approx(-1.0)
    assert float(smallest_determinant(field, torch.from_numpy(MASK))[0]) == 1.0
    # shifted by 3 voxels the brain, at 3 to 6 on the template, lies at 0 to 3 on the subject, away from what is at 8
    shifted = torch.zeros(1, 3, *SHAPE)
    shifted[0, 0] = 3.0
    shifted[0, 0, 0] = 5.0  # det J = 1 + (3 - 5) = -1 at the face, where the shifted brain begins
    assert float(smallest_determinant(shifted, torch.from_numpy(MASK))[0]) == pytest.approx(-1.0)


def test_a_brain_that_left_the_image_has_no_determinant() -> None:
    gone = torch.full((1, 3, *SHAPE), 50.0)
    both = smallest_determinant(torch.cat([gone, torch.zeros_like(gone)]), torch.from_numpy(MASK))
    assert torch.isnan(both).tolist() == [True, False]


def test_the_image_is_pulled_through_the_field_of_its_cell() -> None:
    sampler = Sampler(small=[-0.2], large=[0.3])
    item = {**images(), "cell": "large", "label": 1}
    before = {name: value.clone() for name, value in images().items()}
    found = deformation(sampler, prob=1.0).set_random_state(seed=3)(item)
    assert sampler.asked == ["large"]
    code = np.random.default_rng(_seed_of(3)).standard_normal() * 0.01 + 0.3
    field = decode(torch.tensor([[code]], dtype=torch.float32))
    expected = pulled(item["on_template"], field)
    torch.testing.assert_close(found["image"], expected, rtol=1e-4, atol=1e-5)
    assert found["label"] == 1
    # the item that was given is left as it is
    for name, value in before.items():
        torch.testing.assert_close(item[name], value, rtol=0, atol=0)
    torch.testing.assert_close(found["on_template"], before["on_template"], rtol=0, atol=0)


def _seed_of(seed: int) -> int:
    """The seed that a transform hands on after its decision, which takes the first number."""
    state = np.random.RandomState(seed)
    state.rand()
    return int(state.randint(2**31, dtype=np.int64))


def test_probability_decides_and_zero_leaves_everything() -> None:
    item = {**images(), "cell": "a"}
    never = deformation(Sampler(a=[0.2]), prob=0.0)
    assert all(never(item)["image"] is item["image"] for _ in range(5))
    sometimes = deformation(Sampler(a=[0.2]), prob=0.3).set_random_state(seed=0)
    changed = [sometimes(item)["image"] is not item["image"] for _ in range(200)]
    assert 0.2 < np.mean(changed) < 0.4  # three standard errors of 0.3 over 200 are 0.1


def test_a_seed_of_monai_gives_the_same_images_again() -> None:
    item = {**images(), "cell": "a"}
    runs = []
    for seed in (5, 5, 6):
        chain = Compose([deformation(Sampler(a=[0.2]), prob=1.0)]).set_random_state(seed=seed)
        runs.append(torch.stack([chain(item)["image"] for _ in range(3)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0], runs[0][1])


def test_labels_keep_their_values_and_images_their_place_and_type() -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    labels = torch.randint(0, 3, (1, *SHAPE), dtype=torch.int16)
    item = {**images(), "label_map": labels, "labels_on_template": labels, "cell": "a"}
    item["image"] = MetaTensor(item["image"].double(), affine=affine)
    transform = RandINRDeformationd(
        ["image", "label_map", "absent"],
        Sampler(a=[0.3]),
        decode,
        template_keys=["on_template", "labels_on_template", "absent_on_template"],
        mask=MASK,
        mode=("bilinear", "nearest", "nearest"),
        prob=1.0,
        allow_missing_keys=True,
    )
    found = transform(item)
    assert found["label_map"].dtype == torch.int16
    assert set(found["label_map"].unique().tolist()) <= {0, 1, 2}
    assert not torch.equal(found["label_map"], labels)
    assert isinstance(found["image"], MetaTensor)
    assert found["image"].dtype == torch.float64
    torch.testing.assert_close(found["image"].affine, affine)


def test_a_draw_that_folds_is_drawn_again() -> None:
    sampler = Sampler(a=[-1.5, -1.2, 0.1, 0.1])
    found = deformation(sampler, prob=1.0)({**images(), "cell": "a"})
    assert sampler.asked == ["a"] * 3
    expected = pulled(images()["on_template"], decode(torch.tensor([[0.1]])))
    torch.testing.assert_close(found["image"], expected, rtol=1e-4, atol=1e-5)


def test_draws_that_all_fold_are_an_error() -> None:
    with pytest.raises(MonaiFairError) as caught:
        deformation(Sampler(a=[-1.5] * 5), prob=1.0, draws=4)({**images(), "cell": "a"})
    # (1 - 1.5)^3 = -0.125
    assert str(caught.value) == (
        "cell 'a': expected a deformation without folds, got none in 4 draws (the last has det J -0.125); fit the "
        "registration with integration_steps, or take another rule"
    )
