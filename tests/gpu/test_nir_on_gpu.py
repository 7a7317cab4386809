"""A GPU gives what the CPU gives (``-m gpu``). Each test mirrors one of tests/losses or tests/handlers."""

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer

from monai_fair.handlers import NIRHandler
from monai_fair.losses import ClassificationLoss, NIRRegularizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def batch(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(32, 512, generator=generator)
    logits = torch.randn(32, 1, generator=generator)
    return logits.to(device).requires_grad_(), features.to(device).requires_grad_()


@pytest.mark.parametrize("scale_free", [False, True])
def test_value_and_gradient_equal_the_cpu(scale_free: bool) -> None:
    results = []
    for device in ("cpu", "cuda"):
        logits, features = batch(device)
        value = NIRRegularizer(scale_free=scale_free)(logits, features)
        value.backward()
        results.append([tensor.detach().cpu() for tensor in (value, logits.grad, features.grad)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-5, atol=1e-8)


def test_the_penalty_does_not_wait_for_the_device() -> None:
    logits, features = batch("cuda")
    regularizer = NIRRegularizer()
    torch.cuda.set_sync_debug_mode("error")
    try:
        regularizer(logits, features).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:`torch.cuda.amp:FutureWarning")  # MONAI's trainer makes its scaler the old way
@pytest.mark.parametrize("amp", [False, True])
def test_a_trainer_with_nir_learns(amp: bool) -> None:
    torch.manual_seed(0)
    device = torch.device("cuda")
    network = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)).to(device)
    image = torch.randn(64, 8)
    batches = [{"image": image, "label": (image[:, 0] > 0).long()}] * 20
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=2,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=0.01),
        loss_function=ClassificationLoss(),
        train_handlers=[NIRHandler("2")],
        amp=amp,
        decollate=False,
    )
    losses: list[torch.Tensor] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"]))
    trainer.run()
    assert float(losses[-1]) < float(losses[0]) / 2
    assert trainer.state.metrics["nir_cv"] > 0
