"""A model is used as it was trained, or not at all."""

import logging
from pathlib import Path

import pytest
from monai.engines import Evaluator

from monai_fair.data.artifacts import write_json
from monai_fair.errors import ArtifactError
from monai_fair.handlers import ModelSettingsCheck


@pytest.fixture
def evaluator() -> Evaluator:
    return Evaluator(device="cpu", val_data_loader=[0], iteration_update=lambda engine, batch: batch)


def test_other_settings_are_refused_with_all_differences(tmp_path: Path, evaluator: Evaluator) -> None:
    write_json(tmp_path / "model.json", "model", {"settings": {"image_size": 224, "mean": [0.5], "num_classes": 2}})
    check = ModelSettingsCheck(
        str(tmp_path / "model.pt"), {"image_size": 56, "mean": [0.4], "num_classes": 2, "new": 1}
    )
    with pytest.raises(ArtifactError) as caught:
        check(evaluator)
    assert str(caught.value) == (
        f"{tmp_path}/model.pt: image_size: trained with 224, now 56; mean: trained with [0.5], now [0.4]; "
        "give the values it was trained with"
    )


def test_equal_settings_run(tmp_path: Path, evaluator: Evaluator) -> None:
    write_json(tmp_path / "model.json", "model", {"settings": {"image_size": 224, "mean": [0.5]}})
    ModelSettingsCheck(str(tmp_path / "model.pt"), {"image_size": 224, "mean": [0.5]}).attach(evaluator)
    evaluator.run()
    assert evaluator.state.iteration == 1


def test_a_model_from_elsewhere_is_not_checked_and_the_log_says_so(
    tmp_path: Path, evaluator: Evaluator, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator.logger = logging.getLogger("evaluator")
    with caplog.at_level(logging.INFO):
        ModelSettingsCheck(str(tmp_path / "model.pt"), {"image_size": 224})(evaluator)
    assert f"{tmp_path}/model.json: not there" in caplog.text


def test_a_damaged_record_is_an_error(tmp_path: Path, evaluator: Evaluator) -> None:
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ArtifactError, match="expected a readable JSON file of kind 'model'"):
        ModelSettingsCheck(str(tmp_path / "model.pt"), {})(evaluator)
