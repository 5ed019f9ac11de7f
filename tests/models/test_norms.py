import copy

import pytest
import torch
from torch import nn

from bnexp.errors import UserError
from bnexp.models import norms
from bnexp.models.norms import BatchNorm

SIZES = [(64, 5), (2, 3), (8, 5, 7, 6), (1, 4, 3, 3), (5, 1), (3, 2, 1, 1)]
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def same_numbers_every_time():
    torch.manual_seed(0)


def double_pair(channels, dim, **settings):
    """Ours and torch's, with the same random scale and shift."""
    ours = BatchNorm(channels, **settings).double()
    theirs = (nn.BatchNorm1d if dim == 2 else nn.BatchNorm2d)(channels, **settings).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter, twin in zip(ours.parameters(), theirs.parameters(), strict=True):
            parameter.normal_(generator=generator)
            twin.copy_(parameter)
    return ours, theirs


def batches(size, count, **kwargs):
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        yield torch.randn(size, dtype=torch.float64, generator=generator, **kwargs) * 3 + 5


def assert_same_state(ours, theirs):
    mine, reference = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(reference)
    for name in mine:
        torch.testing.assert_close(mine[name], reference[name], **CLOSE)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "settings", [{}, {"momentum": 0.3, "eps": 1e-2}, {"momentum": 1.0}, {"momentum": 0.0}]
)
def test_training_and_evaluation_equal_torch(size, settings):
    ours, theirs = double_pair(size[1], len(size), **settings)
    optimizers = [torch.optim.SGD(norm.parameters(), lr=0.01) for norm in (ours, theirs)]
    slopes = torch.linspace(-1, 1, torch.Size(size).numel(), dtype=torch.float64).view(size)
    for images in batches(size, 4):
        found = []
        for norm, optimizer in zip((ours, theirs), optimizers, strict=True):
            x = images.clone().requires_grad_()
            y = norm(x)
            optimizer.zero_grad()
            (y.sin() * slopes).sum().backward()
            optimizer.step()
            found.append([y, x.grad, norm.weight.grad, norm.bias.grad])
        for mine, reference in zip(*found, strict=True):
            torch.testing.assert_close(mine, reference, **CLOSE)
        assert_same_state(ours, theirs)
    for norm in (ours, theirs):
        norm.eval()
    (images,) = batches(size, 1)
    x, twin = images.clone().requires_grad_(), images.clone().requires_grad_()
    torch.testing.assert_close(ours(x), theirs(twin), **CLOSE)
    ours(x).square().sum().backward()
    theirs(twin).square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, **CLOSE)
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("size", [(6, 3), (3, 2, 2, 2)])
def test_gradients_are_those_of_finite_differences(size):
    norm = double_pair(size[1], len(size))[0]
    (images,) = batches(size, 1, requires_grad=True)

    def step(x, weight, bias):
        fresh = copy.deepcopy(norm)
        return torch.func.functional_call(fresh, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(step, (images, norm.weight, norm.bias))


def test_the_unit_check_of_seeds_s1():
    found = BatchNorm(3)(torch.arange(15.0).view(5, 3))
    column = torch.tensor([-1.4142, -0.7071, 0.0, 0.7071, 1.4142])
    torch.testing.assert_close(found, column.unsqueeze(1).expand(5, 3), rtol=0, atol=5e-5)


def test_running_statistics_by_hand():
    norm = BatchNorm(1, momentum=0.25)
    norm(torch.tensor([[1.0], [2.0], [6.0]]))
    assert norm.running_mean.item() == pytest.approx(0.75 * 0 + 0.25 * 3)
    assert norm.running_var.item() == pytest.approx(0.75 * 1 + 0.25 * 7)  # (4 + 1 + 9) / 2, not / 3
    assert norm.num_batches_tracked.item() == 1


@pytest.mark.parametrize("dim", [2, 4])
def test_state_dicts_go_both_ways(dim):
    ours, theirs = double_pair(3, dim)
    (images,) = batches((6, 3) if dim == 2 else (6, 3, 4, 4), 1)
    ours(images)
    fresh = type(theirs)(3).double()
    fresh.load_state_dict(ours.state_dict())
    assert_same_state(ours, fresh)
    theirs(images + 1)
    ours.load_state_dict(theirs.state_dict())
    assert_same_state(ours, theirs)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), **CLOSE)
    kinds = [{k: (v.dtype, v.shape) for k, v in norm.float().state_dict().items()} for norm in (ours, theirs)]
    assert kinds[0] == kinds[1]


def test_evaluation_reads_running_statistics_and_leaves_them():
    norm = BatchNorm(2).eval()
    before = copy.deepcopy(norm.state_dict())
    images = torch.randn(4, 2) + 9
    torch.testing.assert_close(norm(images), images / (1 + 1e-5) ** 0.5)
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


def test_running_statistics_carry_no_graph():
    norm = BatchNorm(2)
    for _ in range(2):
        norm(torch.randn(4, 2, requires_grad=True)).sum().backward()
    assert not any(buffer.requires_grad or buffer.grad_fn for buffer in norm.buffers())
    copy.deepcopy(norm)  # fails on a tensor with a graph


@pytest.mark.parametrize("size", [(1, 3), (1, 3, 1, 1)])
def test_one_value_per_channel_is_the_same_error(size):
    ours, theirs = double_pair(3, len(size))
    images = torch.zeros(size, dtype=torch.float64)
    with pytest.raises(ValueError, match="more than 1 value per channel") as reference:
        theirs(images)
    with pytest.raises(ValueError, match="more than 1 value per channel") as mine:
        ours(images)
    assert str(mine.value) == str(reference.value)
    assert ours.eval()(images).shape == size


@pytest.mark.parametrize("size", [(4, 1), (4, 2, 3, 3), (4,), (4, 3, 5), (0, 3)])
def test_other_shapes_are_refused_before_the_statistics_move(size):
    norm = BatchNorm(3)
    with pytest.raises(ValueError, match=r"expected|Expected"):
        norm(torch.zeros(size))
    assert norm.running_mean.isfinite().all()
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("size", [(16, 3), (16, 3, 4, 4)])
def test_half_precision_keeps_statistics_in_float32(size):
    ours, theirs = BatchNorm(3), (nn.BatchNorm1d if len(size) == 2 else nn.BatchNorm2d)(3)
    images = (torch.randn(size, generator=torch.Generator().manual_seed(0)) + 100).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, reference = ours(images), theirs(images)
    assert found.dtype == reference.dtype == torch.bfloat16
    torch.testing.assert_close(found, reference)
    assert ours.running_var.dtype == torch.float32
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_a_module_cast_to_half_works_too():
    norm = BatchNorm(3).bfloat16()
    assert norm(torch.randn(8, 3, 2, 2).bfloat16()).dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.bfloat16


def test_channels_last_is_kept():
    images = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    assert BatchNorm(3)(images).is_contiguous(memory_format=torch.channels_last)


def test_replicas_stacked_by_vmap_equal_separate_ones():
    replicas = [double_pair(3, 4)[0] for _ in range(2)]
    images = torch.stack(list(batches((4, 3, 2, 2), 2)))
    parameters, buffers = torch.func.stack_module_state(replicas)

    def run(parameters, buffers, x):
        return torch.func.functional_call(replicas[0], (parameters, buffers), (x,))

    found = torch.vmap(run)(parameters, buffers, images)
    for i, replica in enumerate(replicas):
        torch.testing.assert_close(found[i], replica(images[i]), **CLOSE)
        torch.testing.assert_close(buffers["running_var"][i], replica.running_var, **CLOSE)


@pytest.mark.parametrize(
    ("name", "spatial", "kind"),
    [
        ("none", True, nn.Identity),
        ("none", False, nn.Identity),
        ("batch", True, nn.BatchNorm2d),
        ("batch", False, nn.BatchNorm1d),
        ("batch_manual", True, BatchNorm),
        ("batch_manual", False, BatchNorm),
        ("layer", True, nn.GroupNorm),
        ("layer", False, nn.LayerNorm),
        ("group", True, nn.GroupNorm),
        ("group", False, nn.GroupNorm),
        ("instance", True, nn.InstanceNorm2d),
    ],
)
def test_make(name, spatial, kind):
    state = torch.get_rng_state()
    norm = norms.make(name, 2, spatial=spatial)(6)
    assert torch.equal(state, torch.get_rng_state()), "a norm that draws numbers would part the twins"
    assert type(norm) is kind
    assert sum(p.numel() for p in norm.parameters()) == (0 if name == "none" else 12)
    images = torch.randn((4, 6, 5, 5) if spatial else (4, 6), dtype=torch.float64)
    cut = images.view(4, 2, 3, -1)  # (N, groups, channels of a group, pixels)
    over = {"batch": (0, 3), "batch_manual": (0, 3), "layer": (1, 2, 3), "group": (2, 3), "instance": 3}
    if name != "none":  # what each normalises over
        var, mean = torch.var_mean(cut, over[name], correction=0, keepdim=True)
        cut = (cut - mean) / (var + 1e-5).sqrt()
    torch.testing.assert_close(norm.double()(images), cut.view_as(images))


@pytest.mark.parametrize(
    ("name", "spatial", "channels", "line"),
    [
        ("instance", False, 6, "model.norm=instance: needs height and width, not a vector"),
        ("group", True, 5, "model.norm_groups=2: must divide the 5 channels of a layer"),
        ("bacth", True, 6, "did you mean batch?"),
    ],
)
def test_mistakes_name_the_key(name, spatial, channels, line):
    with pytest.raises(UserError) as error:
        norms.make(name, 2, spatial=spatial)(channels)
    assert line in str(error.value)


def test_the_key_is_the_callers():
    with pytest.raises(UserError, match=r"^other\.norm=instance"):
        norms.make("instance", 2, spatial=False, key="other")
