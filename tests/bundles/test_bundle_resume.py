"""KilledError and started again equals uninterrupted, to the bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from monai_fair.data.artifacts import sha256
from monai_fair.errors import ArtifactError

from .conftest import same

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

EPOCHS = 4
STEPS = 5  # 37 training rows in batches of 8


class KilledError(Exception):
    pass


def kill(_: Engine) -> None:
    raise KilledError


def trainer_of(bundle: Any, output: Path, overlays: tuple[str, ...], **overrides: Any) -> tuple[Any, Any]:
    options = {"max_epochs": EPOCHS, "batch_size": 8, **overrides}
    workflow = bundle.workflow("train", "small", *overlays, output=output, **options)
    return workflow, workflow.parser.get_parsed_content("train#trainer")


def run_and_kill(
    bundle: Any, output: Path, *overlays: str, event: Any, of_evaluator: bool = False, **overrides: Any
) -> None:
    workflow, trainer = trainer_of(bundle, output, overlays, **overrides)
    engine = workflow.parser.get_parsed_content("validate#evaluator") if of_evaluator else trainer
    engine.add_event_handler(event, kill)
    with pytest.raises((KilledError, RuntimeError)) as caught:
        workflow.run()
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, KilledError):
        error = error.__cause__
    assert isinstance(error, KilledError)


def run(bundle: Any, output: Path, *overlays: str, **overrides: Any) -> Any:
    """Run to the end; return the trainer."""
    workflow, trainer = trainer_of(bundle, output, overlays, **overrides)
    workflow.run()
    return trainer


def state(output: Path) -> dict[str, Any]:
    return torch.load(output / "training_state.pt", weights_only=True)


def assert_equal_runs(one: Path, other: Path, state_of: Callable[[Path], Any]) -> None:
    assert same(state_of(one), state_of(other))
    assert same(state(one), state(other))


@pytest.fixture(scope="module")
def uninterrupted(bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted")
    assert run(bundle, output).state.iteration == EPOCHS * STEPS
    return output


@pytest.mark.parametrize(
    ("event", "of_evaluator", "epochs_kept"),
    [
        (Events.EPOCH_STARTED(once=3), False, 2),
        (Events.ITERATION_COMPLETED(once=2 * STEPS + 3), False, 2),
        (Events.ITERATION_COMPLETED(event_filter=lambda engine, _: engine.state.epoch == 3), True, 2),
        (Events.EPOCH_STARTED(once=2), False, 1),
        (Events.ITERATION_COMPLETED(once=1), False, 0),
    ],
    ids=["between epochs", "within an epoch", "within validation", "after one", "at once"],
)
def test_killed_and_run_again_equals_uninterrupted(
    bundle: Any,
    uninterrupted: Path,
    tmp_path: Path,
    state_of: Callable[[Path], Any],
    event: Any,
    of_evaluator: bool,
    epochs_kept: int,
) -> None:
    run_and_kill(bundle, tmp_path, event=event, of_evaluator=of_evaluator)
    if epochs_kept:
        assert state(tmp_path)["epoch"] == epochs_kept
    else:
        assert not (tmp_path / "training_state.pt").exists()
    trainer = run(bundle, tmp_path)
    assert trainer.state.epoch == EPOCHS
    assert_equal_runs(tmp_path, uninterrupted, state_of)
    assert not list(tmp_path.glob(".*"))  # no half file is left


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_nir_resumes_with_its_running_sums(
    bundle: Any, tmp_path: Path, state_of: Callable[[Path], Any], momentum: float
) -> None:
    options = {"nir#regularizer#momentum": momentum}
    run(bundle, tmp_path / "whole", "nir", **options)
    run_and_kill(bundle, tmp_path / "killed", "nir", event=Events.EPOCH_STARTED(once=3), **options)
    run(bundle, tmp_path / "killed", "nir", **options)
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed", state_of)


def test_early_stopping_counts_on_after_a_resume(bundle: Any, tmp_path: Path, state_of: Callable[[Path], Any]) -> None:
    options = {"max_epochs": 30, "patience": 2}
    whole = run(bundle, tmp_path / "whole", **options).state.epoch
    assert 3 <= whole < 30  # it stops early, and not before the kill
    run_and_kill(bundle, tmp_path / "killed", event=Events.EPOCH_STARTED(once=whole), **options)
    assert state(tmp_path / "killed")["objects"]["early_stopping"]["counter"] == 1
    run(bundle, tmp_path / "killed", **options)
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed", state_of)
    assert state(tmp_path / "killed")["finished"]


@pytest.mark.parametrize("options", [{}, {"max_epochs": 30, "patience": 2}], ids=["by its epochs", "early"])
def test_a_finished_run_returns_at_once(bundle: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    run(bundle, tmp_path, **options)
    before = {path.name: (sha256(path), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    workflow, trainer = trainer_of(bundle, tmp_path, (), **options)
    trainer.add_event_handler(Events.EPOCH_STARTED, kill)
    workflow.run()
    assert {path.name: (sha256(path), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_more_epochs_continue_a_finished_run(
    bundle: Any, uninterrupted: Path, tmp_path: Path, state_of: Callable[[Path], Any]
) -> None:
    run(bundle, tmp_path, max_epochs=2)
    run(bundle, tmp_path)
    assert_equal_runs(tmp_path, uninterrupted, state_of)


def _refusal(bundle: Any, output: Path, *overlays: str, **overrides: Any) -> str:
    digest = sha256(output / "training_state.pt")
    with pytest.raises((ArtifactError, RuntimeError)) as caught:
        run(bundle, output, *overlays, **overrides)
    assert sha256(output / "training_state.pt") == digest
    error: BaseException = caught.value
    while not isinstance(error, ArtifactError):
        assert error.__cause__ is not None, f"expected an ArtifactError, got {error}"
        error = error.__cause__
    return str(error)


def test_other_settings_are_refused_by_name(bundle: Any, tmp_path: Path) -> None:
    run(bundle, tmp_path, max_epochs=1)
    message = _refusal(bundle, tmp_path, learning_rate=0.01, seed=3)
    assert message == (
        f"{tmp_path}/training_state.pt: this run has other settings than the one saved there "
        "(learning_rate: 0.001 there, 0.01 now; seed: 0 there, 3 now); "
        "choose another output_dir, or delete the file to start anew"
    )
    message = _refusal(bundle, tmp_path, "nir")
    assert "nir_scale_free: not set there, True now; nir_weight: not set there, 0.1 now" in message


@pytest.mark.parametrize("size", [0, 1000])
def test_a_damaged_state_is_refused(bundle: Any, tmp_path: Path, size: int) -> None:
    run(bundle, tmp_path, max_epochs=1)
    path = tmp_path / "training_state.pt"
    path.write_bytes(path.read_bytes()[:size])
    message = _refusal(bundle, tmp_path)
    assert message.startswith(f"{path}: expected a training state; ")
    assert message.endswith("; delete it to start anew")
