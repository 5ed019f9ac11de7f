"""Batch norm written out by hand against torch's, synchronization, and the norms by name."""

import copy

import pytest
import torch
from torch import nn

from bnexp.errors import UserError
from bnexp.models import norms
from bnexp.models.norms import BatchNorm, has_manual_batch_norm, synchronize_batch_norms

SIZES = [(64, 5), (2, 3), (8, 5, 7, 6), (1, 4, 3, 3), (5, 1), (3, 2, 1, 1)]
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def double_pair(channels, dim, **settings):
    """(BatchNorm, torch's batch norm) in float64, with the same random scale and shift."""
    manual = BatchNorm(channels, **settings).double()
    reference = (nn.BatchNorm1d if dim == 2 else nn.BatchNorm2d)(channels, **settings).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter, reference_parameter in zip(manual.parameters(), reference.parameters(), strict=True):
            parameter.normal_(generator=generator)
            reference_parameter.copy_(parameter)
    return manual, reference


def batches(size, count, **kwargs):
    """``count`` random float64 batches of shape ``size``, with mean 5 and standard deviation 3."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        yield torch.randn(size, dtype=torch.float64, generator=generator, **kwargs) * 3 + 5


def assert_same_state(manual, reference):
    state, reference_state = manual.state_dict(), reference.state_dict()
    assert list(state) == list(reference_state)
    for name in state:
        torch.testing.assert_close(state[name], reference_state[name], **CLOSE)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "settings", [{}, {"momentum": 0.3, "eps": 1e-2}, {"momentum": 1.0}, {"momentum": 0.0}]
)
def test_training_and_evaluation_equal_torch(size, settings):
    pair = manual, reference = double_pair(size[1], len(size), **settings)
    optimizers = [torch.optim.SGD(norm.parameters(), lr=0.01) for norm in pair]
    slopes = torch.linspace(-1, 1, torch.Size(size).numel(), dtype=torch.float64).view(size)
    for images in batches(size, 4):
        results = []
        for norm, optimizer in zip(pair, optimizers, strict=True):
            x = images.clone().requires_grad_()
            y = norm(x)
            optimizer.zero_grad()
            (y.sin() * slopes).sum().backward()
            optimizer.step()
            results.append([y, x.grad, norm.weight.grad, norm.bias.grad])
        for tensor, reference_tensor in zip(*results, strict=True):
            torch.testing.assert_close(tensor, reference_tensor, **CLOSE)
        assert_same_state(manual, reference)
    for norm in pair:
        norm.eval()
    (images,) = batches(size, 1)
    x, reference_x = images.clone().requires_grad_(), images.clone().requires_grad_()
    torch.testing.assert_close(manual(x), reference(reference_x), **CLOSE)
    manual(x).square().sum().backward()
    reference(reference_x).square().sum().backward()
    torch.testing.assert_close(x.grad, reference_x.grad, **CLOSE)
    assert_same_state(manual, reference)


@pytest.mark.parametrize("size", [(6, 3), (3, 2, 2, 2)])
def test_gradients_equal_finite_differences(size):
    norm = double_pair(size[1], len(size))[0]
    (images,) = batches(size, 1, requires_grad=True)

    def normalise(x, weight, bias):
        norm_copy = copy.deepcopy(norm)  # each call moves the running statistics
        return torch.func.functional_call(norm_copy, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(normalise, (images, norm.weight, norm.bias))


def test_five_equally_spaced_values_by_hand():
    normalised = BatchNorm(3)(torch.arange(15.0).view(5, 3))
    column = torch.tensor([-1.4142, -0.7071, 0.0, 0.7071, 1.4142])
    torch.testing.assert_close(normalised, column.unsqueeze(1).expand(5, 3), rtol=0, atol=5e-5)


def test_running_statistics_by_hand():
    norm = BatchNorm(1, momentum=0.25)
    norm(torch.tensor([[1.0], [2.0], [6.0]]))
    assert norm.running_mean.item() == pytest.approx(0.75 * 0 + 0.25 * 3)
    assert norm.running_var.item() == pytest.approx(0.75 * 1 + 0.25 * 7)  # (4 + 1 + 9) / 2, not / 3
    assert norm.num_batches_tracked.item() == 1


@pytest.mark.parametrize("dim", [2, 4])
def test_state_dicts_load_into_torchs_batch_norm_and_back(dim):
    manual, reference = double_pair(3, dim)
    (images,) = batches((6, 3) if dim == 2 else (6, 3, 4, 4), 1)
    manual(images)
    new_reference = type(reference)(3).double()
    new_reference.load_state_dict(manual.state_dict())
    assert_same_state(manual, new_reference)
    reference(images + 1)
    manual.load_state_dict(reference.state_dict())
    assert_same_state(manual, reference)
    torch.testing.assert_close(manual.eval()(images), reference.eval()(images), **CLOSE)
    manual_types, reference_types = (
        {name: (value.dtype, value.shape) for name, value in norm.float().state_dict().items()}
        for norm in (manual, reference)
    )
    assert manual_types == reference_types


def test_evaluation_uses_running_statistics_and_does_not_change_them():
    norm = BatchNorm(2).eval()
    before = copy.deepcopy(norm.state_dict())
    images = torch.randn(4, 2) + 9
    torch.testing.assert_close(norm(images), images / (1 + 1e-5) ** 0.5)
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


def test_running_statistics_have_no_autograd_graph():
    norm = BatchNorm(2)
    for _ in range(2):
        norm(torch.randn(4, 2, requires_grad=True)).sum().backward()
    assert not any(buffer.requires_grad or buffer.grad_fn for buffer in norm.buffers())
    copy.deepcopy(norm)  # fails on a tensor with a graph


@pytest.mark.parametrize("size", [(1, 3), (1, 3, 1, 1)])
def test_one_value_per_channel_raises_torchs_error(size):
    manual, reference = double_pair(3, len(size))
    images = torch.zeros(size, dtype=torch.float64)
    with pytest.raises(ValueError, match="more than 1 value per channel") as reference_error:
        reference(images)
    with pytest.raises(ValueError, match="more than 1 value per channel") as error:
        manual(images)
    assert str(error.value) == str(reference_error.value)
    assert manual.eval()(images).shape == size


@pytest.mark.parametrize("size", [(4, 1), (4, 2, 3, 3), (4,), (4, 3, 5), (0, 3)])
def test_other_shapes_raise_and_leave_the_statistics_unchanged(size):
    norm = BatchNorm(3)
    with pytest.raises(ValueError, match=r"expected|Expected"):
        norm(torch.zeros(size))
    assert norm.running_mean.isfinite().all()
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("size", [(16, 3), (16, 3, 4, 4)])
def test_half_precision_keeps_statistics_in_float32(size):
    manual, reference = BatchNorm(3), (nn.BatchNorm1d if len(size) == 2 else nn.BatchNorm2d)(3)
    images = (torch.randn(size, generator=torch.Generator().manual_seed(0)) + 100).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, reference_y = manual(images), reference(images)
    assert y.dtype == reference_y.dtype == torch.bfloat16
    torch.testing.assert_close(y, reference_y)
    assert manual.running_var.dtype == torch.float32
    torch.testing.assert_close(manual.running_mean, reference.running_mean)
    torch.testing.assert_close(manual.running_var, reference.running_var)


def test_a_module_cast_to_bfloat16_stays_in_bfloat16():
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

    outputs = torch.vmap(run)(parameters, buffers, images)
    for i, replica in enumerate(replicas):
        torch.testing.assert_close(outputs[i], replica(images[i]), **CLOSE)
        torch.testing.assert_close(buffers["running_var"][i], replica.running_var, **CLOSE)


def small_network():
    """Three BatchNorms at two depths, one of them in two places, and a batch norm of torch's."""
    shared = BatchNorm(4)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        BatchNorm(3, eps=1e-3, momentum=0.3),
        nn.Sequential(nn.Conv2d(3, 4, 3), shared, BatchNorm(4), shared),
        nn.BatchNorm2d(4),
    )
    network(torch.randn(5, 2, 9, 9))  # running statistics other than 0 and 1
    return network


def test_synchronize_batch_norms_replaces_every_manual_batch_norm():
    network = small_network()
    replaced = [module for module in network.modules() if isinstance(module, BatchNorm)]
    synchronized = synchronize_batch_norms(network)
    assert synchronized is network
    layers = [module for module in network.modules() if isinstance(module, BatchNorm)]
    assert len(layers) == len(replaced) == 3
    assert all(layer.synchronized for layer in layers)
    assert not any(layer.synchronized for layer in replaced)
    assert [(layer.eps, layer.momentum) for layer in layers] == [(1e-3, 0.3), (1e-5, 0.1), (1e-5, 0.1)]
    assert network[2][1] is network[2][3], "a layer in two places stays one layer"
    assert type(network[3]) is nn.BatchNorm2d


def test_synchronize_batch_norms_keeps_the_same_parameters_and_buffers():
    network = small_network()
    parameters, buffers = dict(network.named_parameters()), dict(network.named_buffers())
    keys = list(network.state_dict())
    synchronize_batch_norms(network)
    assert list(network.state_dict()) == keys
    for before, after in (
        (parameters, dict(network.named_parameters())),
        (buffers, dict(network.named_buffers())),
    ):
        assert list(before) == list(after)
        assert all(before[name] is after[name] for name in before)


def test_synchronize_batch_norms_keeps_the_training_flag():
    network = small_network()
    network[1].eval()
    synchronize_batch_norms(network)
    assert [network[1].training, network[2][1].training, network[2][2].training] == [False, True, True]


def test_a_synchronized_network_is_equal_in_evaluation():
    network = small_network().eval()
    images = torch.randn(3, 2, 9, 9)
    outputs = network(images)
    assert torch.equal(synchronize_batch_norms(network)(images), outputs)


def test_synchronize_batch_norms_returns_a_copy_of_a_lone_batch_norm():
    norm = BatchNorm(3, eps=1e-3, momentum=0.3).eval()
    synchronized = synchronize_batch_norms(norm)
    assert synchronized.synchronized
    assert not norm.synchronized
    assert not synchronized.training
    assert (synchronized.eps, synchronized.momentum) == (1e-3, 0.3)
    assert synchronized.weight is norm.weight
    assert synchronized.running_var is norm.running_var
    assert list(synchronized.state_dict()) == list(norm.state_dict())


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (BatchNorm(3), True),
        (nn.Sequential(nn.Sequential(BatchNorm(3))), True),
        (nn.Sequential(nn.BatchNorm1d(3), nn.LayerNorm(3)), False),
    ],
)
def test_has_manual_batch_norm(network, expected):
    assert has_manual_batch_norm(network) is expected


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
def test_make_builds_each_norm_by_name(name, spatial, kind):
    state = torch.get_rng_state()
    norm = norms.make(name, 2, spatial=spatial)(6)
    assert torch.equal(state, torch.get_rng_state()), "building a norm must draw no random number"
    assert type(norm) is kind
    assert sum(p.numel() for p in norm.parameters()) == (0 if name == "none" else 12)
    images = torch.randn((4, 6, 5, 5) if spatial else (4, 6), dtype=torch.float64)
    expected = images.view(4, 2, 3, -1)  # (N, groups, channels of a group, pixels)
    dims = {"batch": (0, 3), "batch_manual": (0, 3), "layer": (1, 2, 3), "group": (2, 3), "instance": 3}
    if name != "none":  # the mean and variance are taken over ``dims``
        var, mean = torch.var_mean(expected, dims[name], correction=0, keepdim=True)
        expected = (expected - mean) / (var + 1e-5).sqrt()
    torch.testing.assert_close(norm.double()(images), expected.view_as(images))


@pytest.mark.parametrize(
    ("name", "spatial", "channels", "message"),
    [
        ("instance", False, 6, "model.norm=instance: needs height and width, not a vector"),
        ("group", True, 5, "model.norm_groups=2: must divide the 5 channels of a layer"),
        ("bacth", True, 6, "did you mean batch?"),
    ],
)
def test_mistakes_name_the_key(name, spatial, channels, message):
    with pytest.raises(UserError) as error:
        norms.make(name, 2, spatial=spatial)(channels)
    assert message in str(error.value)


def test_a_message_has_the_key_of_the_caller():
    with pytest.raises(UserError, match=r"^other\.norm=instance"):
        norms.make("instance", 2, spatial=False, key="other")
