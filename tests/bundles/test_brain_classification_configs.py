"""The 3D classifier's configs: every component builds, and inference.yaml repeats what makes a score."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from monai_fair.losses import GroupDROLoss
from monai_fair.transforms.subvoxel_shift import shift_voxels

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.mark.parametrize(
    "overlays", [(), ("nir",), ("rebalanced",), ("group_dro",), ("rebalanced", "group_dro", "nir")]
)
def test_every_component_of_brain_classification_builds(brains: Any, tmp_path: Path, overlays: tuple[str, ...]) -> None:
    options = {"tiny_network": False, "image_size": [40, 48, 40], "manifest": f"{brains.cohort}/weighted.csv"}
    built = brains.build_all(brains.workflow("train", *overlays, output=tmp_path, keep_best=True, **options))
    assert isinstance(built["train#trainer"], SupervisedTrainer)
    assert isinstance(built["validate#evaluator"], SupervisedEvaluator)
    weighted = isinstance(built["train#dataloader"].sampler, torch.utils.data.WeightedRandomSampler)
    assert weighted == ("rebalanced" in overlays)
    assert isinstance(built["train#trainer"].loss_function, GroupDROLoss) == ("group_dro" in overlays)
    # 4 mm: 40 x 48 x 40 halved four times is 3 x 3 x 3, of 32 channels
    assert built["network"].final[1].in_features == 864
    assert not list(tmp_path.iterdir())  # building writes nothing


@pytest.mark.parametrize("names", [("train", "evaluate"), ("inference",)], ids="+".join)
def test_every_component_that_scores_brains_builds(
    brains: Any, trained_on_brains: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    options = {"ckpt_path": str(trained_on_brains / "model.pt"), "save_features": True}
    built = brains.build_all(brains.workflow(*names, output=tmp_path, **options))
    evaluator = built["evaluator" if names == ("inference",) else "validate#evaluator"]
    assert isinstance(evaluator, SupervisedEvaluator)
    assert len(evaluator.data_loader.dataset) == (40 if names == ("inference",) else 20)


def test_inference_on_brains_repeats_training_line_by_line_where_it_must(brains: Any) -> None:
    train, inference = (
        ConfigWorkflow(brains.files(name), workflow_type=None).parser.config for name in ("train", "inference")
    )
    for key in ("network_def", "last_layer", "deterministic_transforms", "image_size", "input_settings"):
        assert inference[key] == train[key], key
    postprocessing = train["validate"]["postprocessing"]["transforms"]
    assert inference["postprocessing"]["transforms"] == postprocessing[:1]


def test_a_shift_of_none_leaves_the_image_and_one_moves_it_by_up_to_a_voxel(brains: Any, tmp_path: Path) -> None:
    fixed, moved = (
        brains.workflow("train", output=tmp_path, shift=shift).parser.get_parsed_content("train#dataset")
        for shift in (0, 1)
    )
    validation = brains.workflow("train", output=tmp_path).parser.get_parsed_content("validate#preprocessing")
    for index in range(4):
        image = validation(dict(fixed.data[index]))["image"]
        assert torch.equal(fixed[index]["image"], image)
        for _ in range(5):
            seen = moved[index]["image"]
            step = moved.transform.transforms[-1].shift
            assert 0 < max(map(abs, step)) <= 1
            assert torch.equal(seen, shift_voxels(image, step))


@pytest.mark.parametrize("name", ["train", "inference"])
def test_small_images_make_a_small_network(brains: Any, name: str) -> None:
    parser = ConfigWorkflow(brains.files(name, "small"), workflow_type=None).parser
    # 32 x 40 x 32 halved four times is 2 x 3 x 2, of 32 channels
    assert parser.get_parsed_content("network_def").final[1].in_features == 384
    assert parser.get_parsed_content("input_settings#image_size") == [32, 40, 32]
    assert parser.get_parsed_content("max_epochs") == 20
