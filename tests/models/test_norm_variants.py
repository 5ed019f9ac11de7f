"""Ghost batch norm against torch's batch norm on slices of a batch, and the moments of noisy batch norm."""

import copy

import pytest
import torch
from torch import nn

from bnexp.errors import UserError
from bnexp.models import norms
from bnexp.models.norm_variants import GhostBatchNorm, MovingNoise
from helpers.yaml_defaults import build, images_for, train_step

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def group_slices(count, images):
    """The groups: full ones, then the other images, which join the last full one if they are one image."""
    starts = list(range(0, count, images))
    if count % images == 1 and len(starts) > 1:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]


@pytest.mark.parametrize("pixels", [(), (3, 2)])
@pytest.mark.parametrize(
    ("count", "images", "sizes"),
    [
        (12, 4, [4, 4, 4]),
        (14, 4, [4, 4, 4, 2]),
        (13, 4, [4, 4, 5]),
        (5, 4, [5]),
        (4, 4, [4]),
        (3, 4, [3]),
        (7, 2, [2, 2, 3]),
        (6, 512, [6]),
    ],
)
def test_each_group_is_normalised_as_torchs_batch_norm_does(count, images, sizes, pixels):
    slices = group_slices(count, images)
    assert [group.stop - group.start for group in slices] == sizes
    ghost = GhostBatchNorm(3, images, eps=1e-3, momentum=0.3).double()
    nn.init.normal_(ghost.weight)
    nn.init.normal_(ghost.bias)
    torch_norm = nn.BatchNorm2d if pixels else nn.BatchNorm1d
    slopes = torch.randn(count, 3, *pixels, dtype=torch.float64)
    mean, var = torch.zeros(3).double(), torch.ones(3).double()  # the running statistics
    for _ in range(3):
        x = (3 * torch.randn(count, 3, *pixels, dtype=torch.float64) + 5).requires_grad_()
        references = [torch_norm(3, eps=1e-3, momentum=1.0).double() for _ in slices]
        for reference in references:
            reference.load_state_dict(ghost.state_dict())
        expected = torch.cat([norm(x[group]) for norm, group in zip(references, slices, strict=True)])
        expected_gradient = torch.autograd.grad((expected.sin() * slopes).sum(), x)[0]
        outputs = ghost(x)
        torch.testing.assert_close(outputs, expected, **CLOSE)
        (outputs.sin() * slopes).sum().backward()
        torch.testing.assert_close(x.grad, expected_gradient, **CLOSE)
        # With momentum 1 the references hold the statistics of their group.
        shares = [size / count for size in sizes]
        pairs = list(zip(references, shares, strict=True))
        mean = 0.7 * mean + 0.3 * sum(share * norm.running_mean for norm, share in pairs)
        var = 0.7 * var + 0.3 * sum(share * norm.running_var for norm, share in pairs)
        torch.testing.assert_close(ghost.running_mean, mean, **CLOSE)
        torch.testing.assert_close(ghost.running_var, var, **CLOSE)
    assert ghost.num_batches_tracked == 3
    reference = torch_norm(3, eps=1e-3).double()
    reference.load_state_dict(ghost.state_dict())
    torch.testing.assert_close(ghost.eval()(x), reference.eval()(x), **CLOSE)


def test_the_gradients_of_a_ghost_batch_norm_equal_finite_differences():
    ghost = GhostBatchNorm(2, 3).double()
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)

    def normalise(x, weight, bias):
        ghost_copy = copy.deepcopy(ghost)  # each call moves the running statistics
        return torch.func.functional_call(ghost_copy, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(normalise, (x, ghost.weight, ghost.bias))


def test_groups_of_the_whole_batch_are_torchs_batch_norm():
    ghost, reference = GhostBatchNorm(4, 8), nn.BatchNorm2d(4)
    x = torch.randn(8, 4, 5, 5)
    torch.testing.assert_close(ghost(x), reference(x))
    state, expected = ghost.state_dict(), reference.state_dict()
    assert list(state) == list(expected)
    for name in state:
        torch.testing.assert_close(state[name], expected[name])


def test_a_ghost_batch_norm_refuses_other_shapes_and_one_value_a_channel():
    ghost = GhostBatchNorm(3, 4)
    with pytest.raises(ValueError, match=r"more than 1 value per channel when training, got .*\[1, 3\]"):
        ghost(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="expected 2D or 4D input"):
        ghost(torch.zeros(4, 3, 2))
    assert ghost(torch.zeros(1, 3, 2, 2)).shape == (1, 3, 2, 2)  # four values a channel


def test_half_precision_keeps_the_statistics_in_float32():
    ghost, images = GhostBatchNorm(3, 4), (torch.randn(16, 3) + 100).bfloat16()
    outputs = ghost(images)
    assert outputs.dtype == torch.bfloat16
    assert outputs.float().std().item() == pytest.approx(1, rel=0.1)
    assert ghost.running_mean.dtype == torch.float32


@pytest.mark.parametrize("name", ["mlp", "conv", "lenet", "resnet", "densenet", "torchvision"])
def test_every_network_takes_the_size_of_a_group(name):
    keys = {
        "resnet": {"depths": [1, 1], "widths": [4, 8]},
        "torchvision": {"arch": "resnet18"},
    }.get(name, {})
    model = build(name, norm="batch", norm_images=2, **keys)
    sizes = [module.images for module in model.modules() if isinstance(module, GhostBatchNorm)]
    others = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert sizes == [2] * len(sizes) != []
    assert not others
    train_step(model, images_for(name, 4))


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        (
            "mlp",
            {"norm": "layer", "norm_images": 4},
            "model.norm_images=4: needs model.norm=batch, not layer",
        ),
        ("conv", {"norm_images": 4}, "model.norm_images=4: needs model.norm=batch, not none"),
        (
            "mlp",
            {"norm": "batch", "norm_images": 1},
            "model.norm_images=1: must be a whole number, at least 2",
        ),
        (
            "torchvision",
            {"arch": "squeezenet1_1", "norm_images": 2},
            "model.norm_images=2: needs model.norm=batch, not null",
        ),
    ],
)
def test_groups_need_batch_norm(name, keys, message):
    with pytest.raises(UserError) as error:
        build(name, **keys)
    assert message in str(error.value)


# Noisy batch norm


@pytest.mark.parametrize("pixels", [(), (4, 4)])
def test_moments_of_the_noise_within_a_step(pixels):
    """Given the channel's mean and scale, an activation is x · normal(scale, .1) + uniform(mean ± .1)."""
    noise, count = MovingNoise(5), 40_000 // (16 if pixels else 1)
    zeros, ones = torch.zeros(count, 5, *pixels), torch.ones(count, 5, *pixels)
    dims = [0, 2, 3] if pixels else [0]
    torch.manual_seed(1)
    summand = noise(zeros)  # the same draws twice, from one seed: the summand alone, then both
    torch.manual_seed(1)
    factor = noise(ones) - summand
    per_channel = (1, 5) + (1,) * len(pixels)
    mean, scale = summand.mean(dims).view(per_channel), factor.mean(dims).view(per_channel)
    assert mean.flatten().unique().numel() == scale.flatten().unique().numel() == 5
    assert mean.abs().max() < 0.5 + 0.005
    assert 1 - 0.005 < scale.min() < scale.max() < 1.25 + 0.005
    assert (summand - mean).abs().max() <= 0.1 + 0.005
    torch.testing.assert_close((summand - mean).std().item(), 0.1 / 3**0.5, rtol=0.02, atol=0)
    torch.testing.assert_close((factor - scale).std().item(), 0.1, rtol=0.02, atol=0)
    assert (factor - scale).abs().max() > 0.3  # normal, not uniform


def test_moments_of_the_moving_mean_and_scale_over_steps():
    """Mean uniform in ±.5: standard deviation 1 / sqrt(12). Scale uniform in [1, 1.25]."""
    noise = MovingNoise(1000)
    steps = [noise(torch.full((64, 1000), x)).mean(0) for x in (0.0, 100.0) for _ in range(10)]
    means, scaled = torch.cat(steps[:10]), torch.cat(steps[10:]) / 100
    assert means.mean().item() == pytest.approx(0, abs=0.01)
    assert means.std().item() == pytest.approx(12**-0.5, rel=0.03)
    assert scaled.mean().item() == pytest.approx(1.125, rel=0.003)
    assert scaled.std().item() == pytest.approx((0.25**2 / 12 + 0.1**2 / 64) ** 0.5, rel=0.03)


def test_noise_is_that_of_training_and_of_the_global_generator():
    norm = norms.make("batch_noise", 1, spatial=True)(3)
    x = torch.randn(6, 3, 4, 4)
    torch.manual_seed(3)
    first = norm(x)
    second = norm(x)
    torch.manual_seed(3)
    assert torch.equal(norm(x), first)
    assert not torch.equal(first, second)
    norm.eval()
    assert torch.equal(norm(x), norm.batch(x))


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 4)])
def test_the_gradient_goes_through_the_factor(shape):
    noise = MovingNoise(3).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def perturb(x):
        torch.manual_seed(0)
        return noise(x)

    assert torch.autograd.gradcheck(perturb, (x,))
