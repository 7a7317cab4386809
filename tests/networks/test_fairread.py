"""FairREAD's networks: shapes, the published size, formulas by hand, what is frozen, and the sign of the adversary."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.networks.nets import DenseNet121
from torch import nn
from torch.nn import functional

from monai_fair.errors import MonaiFairError
from monai_fair.losses import AttributeLoss
from monai_fair.networks import (
    AttributeColumns,
    AttributeEncoder,
    EmbeddingClassifier,
    FairREAD,
    GradientReversal,
    MarginalInferer,
    RefusionBlock,
    marginal_probabilities,
)

NAN = float("nan")
SCRIPTED = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def encoder(spatial_dims: int = 2, channels: int = 16) -> nn.Sequential:
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if spatial_dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return nn.Sequential(conv(1, channels, 3, stride=2, padding=1), norm(channels))


def make(levels: Any = (2, 2, 2), *, spatial_dims: int = 2, missing: bool = False, **options: Any) -> FairREAD:
    torch.manual_seed(0)
    attributes = AttributeEncoder(levels, 8, missing=missing)
    return FairREAD(
        encoder(spatial_dims), attributes, channels=16, latent=8, spatial_dims=spatial_dims, reduction=4, **options
    )


def images(count: int, spatial_dims: int = 2) -> torch.Tensor:
    return torch.randn(count, 1, *[9] * spatial_dims, generator=torch.Generator().manual_seed(1))


ALL = torch.tensor([[a, b, c] for a in (0.0, 1.0) for b in (0.0, 1.0) for c in (0.0, 1.0)])


def test_it_has_the_published_number_of_weights() -> None:
    network = FairREAD(nn.Identity(), AttributeEncoder([2, 2, 2]), channels=1024)
    assert sum(weight.numel() for weight in network.parameters()) == 2_358_276


@SCRIPTED
@pytest.mark.parametrize(
    ("spatial_dims", "options"),
    [
        (2, {}),
        (3, {"blocks": 1}),
        (2, {"residual": True, "blocks": 3, "out_channels": 4}),
        (2, {"layout": "double", "end_channels": 6}),
        (3, {"layout": "double", "residual": True, "adversary": False}),
        (2, {"freeze_encoder": True}),
    ],
)
def test_every_layout_gives_logits_and_can_be_scripted(spatial_dims: int, options: dict[str, Any]) -> None:
    network = make(spatial_dims=spatial_dims, **options)
    x = images(3, spatial_dims)
    outputs = options.get("out_channels", 1)
    assert network.train()(x, ALL[:3]).shape == (3, outputs)
    network.eval()
    expected = network(x, ALL[:3])
    assert expected.isfinite().all()
    torch.testing.assert_close(torch.jit.script(network)(x, ALL[:3]), expected)
    # a batch of one is a batch
    torch.testing.assert_close(network(x[:1], ALL[:1]), expected[:1])


@SCRIPTED
def test_a_monai_densenet_is_an_encoder() -> None:
    features = DenseNet121(spatial_dims=2, in_channels=1, out_channels=1).features
    network = FairREAD(features, AttributeEncoder([2, 2, 2]), channels=1024).eval()
    x = torch.randn(2, 1, 32, 32)
    assert network(x, ALL[:2]).shape == (2, 1)
    first = EmbeddingClassifier(features, channels=1024, out_channels=3).eval()
    z = first.embed(x)
    assert z.shape == (2, 128)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(first(x), first.out(z))
    torch.testing.assert_close(torch.jit.script(first)(x), first(x))
    pooled = features(x).relu().mean(dim=(2, 3))
    torch.testing.assert_close(z, functional.normalize(first.projection(pooled)))


def test_a_block_by_hand() -> None:
    block = RefusionBlock(2, 2, 2, dropout=0.0, reduction=2, residual=True).eval()
    with torch.no_grad():
        for weight in block.parameters():
            weight.zero_()
        block.to_latent[1].weight.copy_(torch.eye(2))
        block.to_channels[1].weight.copy_(torch.eye(2))
    block.conv = nn.Identity()
    x = torch.tensor([[[[1.0, 3.0]], [[-4.0, -2.0]]]])  # means 2 and -3, so v = (2, 0)
    shift, scale = torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 7.0]])
    # s = ReLU(v sigma + mu) = (7, 5)
    torch.testing.assert_close(block(x, shift, scale), x + x * torch.tensor([7.0, 5.0]).reshape(1, 2, 1, 1))
    # a shift below 0 closes the channel
    torch.testing.assert_close(block(x, -10 * shift, scale), x)


def test_shift_and_scale_by_hand() -> None:
    attributes = AttributeEncoder([2, 2], 2, dropout=0.0, hidden=[2]).eval()
    with torch.no_grad():
        attributes.hidden[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        attributes.hidden[1].bias.copy_(torch.tensor([0.5, 0.5]))
        for layer, weight in ((attributes.shift, 2.0), (attributes.scale, -3.0)):
            layer.weight.copy_(weight * torch.eye(2))
            layer.bias.zero_()
    shift, scale = attributes(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))  # h = (1.5, 0) and (0.5, 0.5)
    torch.testing.assert_close(shift, torch.tensor([[3.0, 0.0], [1.0, 1.0]]))
    torch.testing.assert_close(scale, torch.tensor([[-4.5, 0.0], [-1.5, -1.5]]))
    attributes.positive_scale = True
    torch.testing.assert_close(attributes(torch.tensor([[1.0, 1.0]]))[1], functional.softplus(scale[:1]))


def test_columns_of_every_kind_of_attribute() -> None:
    rows = torch.tensor([[1.0, 2.0, 0.3], [NAN, NAN, NAN]])
    plain = AttributeColumns([2, 3, 0])
    assert plain.width == 5
    torch.testing.assert_close(plain(rows[:1]), torch.tensor([[1.0, 0, 0, 1, 0.3]]))
    assert plain(rows)[1].isnan().all()
    told = AttributeColumns([2, 3, 0], missing=True)
    assert told.width == 8
    torch.testing.assert_close(told(rows), torch.tensor([[0.0, 1, 0, 0, 0, 1, 0, 0.3], [1.0, 0, 1, 0, 0, 0, 1, 0]]))


def test_attributes_are_never_dropped_out_by_default() -> None:
    """Dropout of a column of 0 and 1 would move subjects of group 1 to group 0."""
    attributes = AttributeEncoder([2, 2, 2], dropout=0.0).train()
    torch.testing.assert_close(attributes(ALL), attributes(ALL))
    torch.manual_seed(0)
    published = AttributeEncoder([2, 2, 2], dropout=0.0, attribute_dropout=0.5).train()
    assert not torch.equal(published(ALL)[0], published(ALL)[0])


def test_attributes_change_the_prediction() -> None:
    network = make().eval()
    found = network(images(1).expand(8, -1, -1, -1), ALL)
    assert len(found.detach().unique()) == 8


def test_a_frozen_encoder_stays_as_it_is_while_the_rest_trains() -> None:
    network = make(freeze_encoder=True, adversary=False)
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    optimiser = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], lr=0.1)
    norms = [module for module in network.blocks.modules() if isinstance(module, nn.BatchNorm2d)]
    for _ in range(3):
        network.train()  # as every epoch does
        network(images(4), ALL[:4]).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(network.encoder.state_dict(), before, rtol=0, atol=0)
    assert norms[0].num_batches_tracked == 3
    free = make(adversary=False).train()
    free(images(4), ALL[:4])
    assert free.encoder[1].num_batches_tracked == 1


def test_a_reversed_gradient_by_hand() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    layer = GradientReversal(0.3)
    y = layer(x)
    assert torch.equal(y, x)
    (y * torch.tensor([5.0, 7.0])).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([-1.5, -2.1]))
    with pytest.raises(MonaiFairError, match="expected a strength of at least 0, got -1"):
        GradientReversal(-1)


def guess(network: FairREAD, x: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
    """The adversary's own loss, through a hook, as a trainer sees it."""
    seen: list[torch.Tensor] = []
    hook = network.adversary.register_forward_hook(lambda *passed: seen.append(passed[2]))  # type: ignore[union-attr]
    network(x, attributes)
    hook.remove()
    return AttributeLoss([2, 2, 2])(seen[0], attributes)


def test_the_adversary_descends_its_own_loss_and_the_encoder_ascends_it() -> None:
    x, network = images(8), make().double().train()
    x = x.double()
    network.reversal.strength.fill_(0.7)
    guess(network, x, ALL.double()).backward()
    found = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    # the plain gradients of the same loss, without a reversal
    plain = make().double().train()
    loss = AttributeLoss([2, 2, 2])(plain.adversary(plain.encoder(x)), ALL.double())  # type: ignore[misc]
    names = [name for name, _ in plain.named_parameters() if name.startswith(("encoder", "adversary"))]
    weights = dict(plain.named_parameters())
    own = dict(zip(names, torch.autograd.grad(loss, [weights[name] for name in names]), strict=True))
    assert set(found) == set(names)
    for name in names:
        torch.testing.assert_close(found[name], own[name] * (1 if name.startswith("adversary") else -0.7))


def test_in_eval_there_is_no_adversary() -> None:
    network = make().eval()
    called: list[int] = []
    network.adversary.register_forward_hook(lambda *_: called.append(1))  # type: ignore[union-attr]
    network(images(2), ALL[:2])
    assert not called
    assert make(adversary=False).adversary is None


def test_missing_attributes_are_averaged_over() -> None:
    network = make().eval()
    x, weights = images(4), torch.arange(1.0, 9.0)
    rows = torch.tensor([[0.0, 1.0, 1.0], [NAN, 1.0, 0.0], [NAN, NAN, 1.0], [NAN, NAN, NAN]])
    found = marginal_probabilities(network, x, rows, ALL, weights)
    every = torch.stack([network(x, row.expand(4, 3)).sigmoid() for row in ALL], dim=1)[:, :, 0].detach()
    torch.testing.assert_close(found[0, 0], every[0, 3])
    torch.testing.assert_close(found[1, 0], (3 * every[1, 2] + 7 * every[1, 6]) / 10)
    torch.testing.assert_close(
        found[2, 0], (2 * every[2, 1] + 4 * every[2, 3] + 6 * every[2, 5] + 8 * every[2, 7]) / 20
    )
    torch.testing.assert_close(found[3, 0], (weights * every[3]).sum() / 36)
    inferer = MarginalInferer(ALL.tolist(), weights.tolist())
    torch.testing.assert_close(inferer(x, network, rows), found)


def test_a_network_that_was_told_of_missing_attributes_needs_no_mean() -> None:
    network, rows = make(missing=True, out_channels=2).eval(), torch.tensor([[NAN, 1.0, 0.0]])
    weights = torch.arange(1.0, 9.0).tolist()
    found = MarginalInferer(ALL.tolist(), weights, told=[True, False, False])(images(1), network, rows)
    torch.testing.assert_close(found, network(images(1), rows).softmax(dim=1).detach())
    # of two that are missing it knows the one, and the mean is over the other
    rows = torch.tensor([[NAN, NAN, 0.0]])
    found = MarginalInferer(ALL.tolist(), weights, told=[True, False, False])(images(1), network, rows)
    low, high = (network(images(1), torch.tensor([[NAN, level, 0.0]])).softmax(dim=1).detach() for level in (0.0, 1.0))
    torch.testing.assert_close(found, ((1 + 5) * low + (3 + 7) * high) / 16)  # weights of all with the last at 0
    with pytest.raises(MonaiFairError, match="expected a FairREAD network, got Identity"):
        MarginalInferer([], [])(images(1), nn.Identity(), rows)


def test_a_known_number_stays_and_known_levels_need_no_combination() -> None:
    network = make((2, 0), out_channels=3).eval()
    rows = torch.tensor([[NAN, 0.2], [1.0, 0.4]])
    combinations = torch.tensor([[0.0, 9.0], [0.0, 7.0]])
    found = marginal_probabilities(network, images(2), rows, combinations, torch.ones(2))
    expected = network(images(2), torch.tensor([[0.0, 0.2], [1.0, 0.4]])).softmax(dim=1)
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: AttributeColumns([]), "expected at least one attribute, got none"),
        (lambda: AttributeColumns([2, 1, -3]), "AttributeColumns: 2 problems"),
        (lambda: AttributeEncoder([2], 8, hidden=[0]), r"expected positive sizes, got latent 8 and hidden \[0\]"),
        (lambda: make(blocks=0), "expected at least one block and attributes of the latent size 8, got 0 and 8"),
        (lambda: make(layout="dense"), "expected layout 'bottleneck' or 'double', got 'dense'"),
        (lambda: make(end_channels=4), "as many channels after a bottleneck block as before, 16, got 10"),
        (lambda: make(layout="double", end_channels=4, residual=True), "after a residual block as before, 16, got 10"),
        (
            lambda: marginal_probabilities(make(), images(1), ALL[:1], ALL, torch.ones(8)),
            r"expected a network in eval\(\), got one in train\(\)",
        ),
        (
            lambda: marginal_probabilities(
                make().eval(), images(1), torch.tensor([[NAN, 1.0, 1.0]]), ALL[:2], torch.ones(2)
            ),
            "expected a combination with the attributes .* of row 0, got none",
        ),
    ],
)
def test_bad_input(use: Callable[[], Any], message: str) -> None:
    with pytest.raises(MonaiFairError, match=message):
        use()
