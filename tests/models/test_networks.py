"""Every network with every norm: shapes, gradients, parameter counts, the order of layers, mistakes."""

from typing import get_args

import pytest
import torch
from torch import nn

from bnexp.errors import UserError
from bnexp.models import MLP, norms
from bnexp.models.blocks import ACTIVATIONS
from bnexp.models.densenet import DenseBlock, transition
from bnexp.models.norm_variants import MovingNoise
from bnexp.models.pooling import MaxPool
from bnexp.models.resnet import BasicBlock, BottleneckBlock, PreactBlock
from bnexp.runs.identity import LATER_KEYS
from helpers.yaml_defaults import CONF, SHAPES, build, defaults, images_for, target, train_step

NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "custom")
FAMILIES = sorted(SHAPES)
NORMS = get_args(norms.NormName)
WITH_VECTOR_NORMS = ("mlp", "lenet")  # instance norm does not fit vectors
SMALL_ARCH = {"arch": "squeezenet1_1"}  # 0.7 million parameters


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_model_with_every_norm(name, norm):
    if norm == "instance" and name in WITH_VECTOR_NORMS:
        with pytest.raises(UserError, match=r"^model\.norm=instance: needs height and width"):
            build(name, norm=norm)
        return
    keys = {"torchvision": SMALL_ARCH | {"norm_groups": 2}, "resnet": {"depths": [1, 1, 1, 1]}}.get(name, {})
    model = build(name, norm=norm, **keys)
    kinds = {
        "none": nn.Identity,
        "batch": nn.modules.batchnorm._BatchNorm,
        "batch_manual": norms.BatchNorm,
        "layer": (nn.GroupNorm, nn.LayerNorm),
        "group": nn.GroupNorm,
        "instance": nn.InstanceNorm2d,
        "batch_noise": (nn.modules.batchnorm._BatchNorm, MovingNoise),
    }
    several_kinds = ("layer", "batch_noise")
    norm_classes = tuple(kind for name, kind in kinds.items() if name not in ("none", *several_kinds))
    norm_classes += tuple(kind for name in several_kinds for kind in kinds[name])
    norm_layers = [module for module in model.modules() if isinstance(module, norm_classes)]
    assert all(isinstance(module, kinds[norm]) for module in norm_layers)
    assert bool(norm_layers) == (norm != "none")
    assert any(isinstance(module, MovingNoise) for module in norm_layers) == (norm == "batch_noise")
    train_step(model, images_for(name))
    with torch.no_grad():
        logits = model.eval()(images_for(name, 1))
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "torchvision"])
def test_every_yaml_builds_with_its_own_keys(name):
    model = build(name)  # checks the keys against the constructor
    assert model(images_for(name)).shape == (3, 10)
    norm = defaults(name)["norm"]
    batch_norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert bool(batch_norms) == (norm == "batch")


@pytest.mark.parametrize("name", NAMES)
def test_only_keys_that_came_later_have_default_values_in_constructors(name):
    """Older runs lack these keys. Their default is the same in the constructor, the YAML and the hash."""
    function = target(name) if name == "torchvision" else target(name).__init__
    yaml_keys, later_keys = defaults(name), LATER_KEYS["model", "bnexp.models."]
    own_keys = {key: value for key, value in later_keys.items() if key in yaml_keys}
    assert function.__kwdefaults__ == own_keys
    assert {key: yaml_keys[key] for key in own_keys} == own_keys


@pytest.mark.parametrize(
    ("name", "shape", "keys", "count"),
    [
        ("conv_bn", (1, 28), {}, 6530),
        ("conv", (1, 28), {}, 6530 - 2 * (6 + 16)),
        ("mlp_bn", (1, 28), {}, 784 * 100 + 100 + 200 + 1010),
        ("lenet", (1, 28), {}, 156 + 2416 + 257 * 120 + 121 * 84 + 85 * 10),
        ("resnet", (3, 32), {"bias": False}, 11_173_962),  # ResNet-18 for CIFAR-10, as published
        ("resnet", (3, 32), {"bias": False, "block": "bottleneck", "depths": [3, 4, 6, 3]}, 23_520_842),
    ],
)
def test_parameter_counts(name, shape, keys, count):
    assert sum(p.numel() for p in build(name, shape=shape, **keys).parameters()) == count


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "linear"])
def test_activations_by_name(activation):
    model = build("mlp", activation=activation)
    inputs = torch.linspace(-2, 2, 9)
    function = getattr(nn.functional, activation, None) or getattr(torch, activation)
    torch.testing.assert_close(model.hidden[0].activation(inputs), function(inputs))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "torchvision"])
def test_a_network_with_linear_activations_and_no_norm_is_affine(name):
    keys = {"pool": "avg"} if name in ("conv", "lenet") else {}
    model = build(name, activation="linear", norm="none", **keys).double()
    first, second = images_for(name, 4).double().chunk(2)
    mixture = model(0.3 * first + 0.7 * second)
    torch.testing.assert_close(mixture, 0.3 * model(first) + 0.7 * model(second))


@pytest.mark.parametrize("name", ["conv", "lenet"])
def test_pools_by_name(name):
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert build(name, pool="max").layers[0].pool(maps).item() == 6
    assert build(name, pool="avg").layers[1].pool(maps).item() == 3


@pytest.mark.parametrize("name", ["mlp", "conv", "lenet"])
def test_dropout_is_active_only_in_training(name):
    model, images = build(name, dropout=0.5), images_for(name)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
    assert torch.equal(build(name)(images), build(name)(images))


def test_order_of_modules_in_a_layer():
    layer = build("conv_bn").layers[0]
    assert [type(m) for m in layer] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, MaxPool]
    layer = build("mlp_bn", dropout=0.5).hidden[0]
    assert [type(m) for m in layer] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout]


@pytest.mark.parametrize(("name", "layers"), [("mlp", "hidden"), ("conv", "layers")])
def test_the_norm_stands_before_or_after_the_activation(name, layers):
    first, pool = ("conv", ["pool"]) if name == "conv" else ("linear", [])
    for position, order in {"before": ["norm", "activation"], "after": ["activation", "norm"]}.items():
        model = build(name, norm="batch", norm_position=position)
        names = [child for child, _ in getattr(model, layers)[0].named_children()]
        assert names == [first, *order, *pool]
        train_step(model, images_for(name))
    # After the activation the inputs of the next layer have mean 0.
    model = build("mlp", norm="batch", norm_position="after")
    assert model.hidden(images_for("mlp", 50).flatten(1)).mean(0).abs().max() < 1e-5


def test_depth_repeats_the_hidden_layers():
    model = build("mlp", hidden=[6, 5], depth=3)
    assert [layer.linear.out_features for layer in model.hidden] == [6, 5] * 3
    assert [layer.linear.in_features for layer in model.hidden] == [64, 6, 5, 6, 5, 6]
    explicit = build("mlp", hidden=[6, 5, 6, 5, 6, 5])
    for name, parameter in explicit.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))


def test_depth_repeats_the_convolutions_with_their_kernels():
    model = build("conv", widths=[4, 3], depth=2, kernel_size=[3, 5], padding=[1, 2], pool="none")
    convs = [layer.conv for layer in model.layers]
    assert [conv.out_channels for conv in convs] == [4, 3, 4, 3]
    assert [conv.kernel_size[0] for conv in convs] == [3, 5, 3, 5]
    assert [conv.padding[0] for conv in convs] == [1, 2, 1, 2]


def test_a_deep_plain_convolutional_network_without_pools():
    model = build(
        "conv", widths=[16], depth=20, kernel_size=3, padding=1, pool="none", norm="batch", shape=(1, 12)
    )
    assert len(model.layers) == 20
    assert [name for name, _ in model.layers[0].named_children()] == ["conv", "norm", "activation"]
    assert model.layers(torch.randn(2, 1, 12, 12)).shape == (2, 16, 12, 12)
    assert build("conv", pool="none").layers(images_for("conv")).shape == (3, 16, 24, 24)


@pytest.mark.parametrize(("layers", "expected"), [("all", [1, 1, 1]), ("last", [0, 0, 1])])
def test_dropout_after_all_hidden_layers_or_after_the_last_alone(layers, expected):
    model = build("mlp", hidden=[6], depth=3, norm="batch", dropout=0.5, dropout_layers=layers)
    counts = [sum(isinstance(module, nn.Dropout) for module in layer) for layer in model.hidden]
    assert counts == expected


def test_one_kernel_size_is_used_for_all_convolutions():
    model = build("conv", kernel_size=3, padding=1, widths=[4, 4, 4])
    assert [layer.conv.kernel_size for layer in model.layers] == [(3, 3)] * 3
    assert model.head.in_features == 4 * 3 * 3


@pytest.mark.parametrize(
    ("name", "keys", "shape", "message"),
    [
        ("conv", {"kernel_size": [3, 5, 5]}, None, "model.kernel_size=[3, 5, 5]: must be one number, or one"),
        ("conv", {"padding": [1]}, None, "model.padding=[1]: must be one number"),
        ("conv", {}, (1, 8), "too large for convolution 2 and its pool, whose input is 4 x 4 pixels"),
        ("conv", {"pool": "none", "depth": 2}, (1, 8), "too large for convolution 4, whose input is 4 x 4"),
        ("conv", {"depth": 0}, None, "model.depth=0: must be a whole number, at least 1"),
        ("lenet", {"pool": "none"}, None, "model.pool=none: must be one of max, avg"),
        (
            "mlp",
            {"norm_position": "behind"},
            None,
            "model.norm_position=behind: must be one of before, after",
        ),
        ("mlp", {"dropout_layers": "first"}, None, "model.dropout_layers=first: must be one of all, last"),
        ("lenet", {}, (1, 8), "need 16 x 16 pixels or more, not 8 x 8"),
        ("resnet", {"depths": [2, 2]}, None, "model.depths=[2, 2]: must list a number for each"),
        (
            "resnet",
            {"norm": "group", "norm_groups": 5},
            None,
            "model.norm_groups=5: must divide the 64 channels",
        ),
        ("densenet", {"blocks": []}, None, "model.blocks=[]: must list at least one"),
        ("mlp", {"hidden": [0]}, None, "model.hidden[0]=0"),
        ("mlp", {"dropout": 1.0}, None, "model.dropout=1.0"),
        ("mlp", {"norm": "bach"}, None, "did you mean batch"),
    ],
)
def test_a_mistake_names_its_key(name, keys, shape, message):
    with pytest.raises(UserError) as error:
        build(name, shape=shape, **keys)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_mlp_without_hidden_layers_is_a_linear_classifier():
    model = build("mlp", hidden=[])
    images = images_for("mlp")
    torch.testing.assert_close(model(images), model.head(images.flatten(1)))
    assert isinstance(model, MLP)


# The residual and dense networks

BATCH = norms.make("batch", 1, spatial=True)


def output_shapes(model, images):
    """The output shape of each module by its name."""
    shapes = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, i, o, name=name: shapes.update({name: o.shape}))
    model(images)
    return shapes


@pytest.mark.parametrize(
    ("block", "channels", "stride", "shape"),
    [
        (BasicBlock, 3, 1, (4, 3, 6, 6)),
        (BasicBlock, 6, 2, (4, 6, 3, 3)),
        (PreactBlock, 6, 2, (4, 6, 3, 3)),
        (BottleneckBlock, 6, 2, (4, 24, 3, 3)),
        (BottleneckBlock, 3, 1, (4, 12, 6, 6)),
    ],
)
def test_output_shapes_of_residual_blocks(block, channels, stride, shape):
    layer = block(3, channels, stride, norm=BATCH, activation=nn.ReLU, bias=True, shortcut_norm=True)
    assert layer(torch.randn(4, 3, 6, 6)).shape == shape


def zero_residual(block):
    """``block`` with a residual branch whose output is 0."""
    last = block.norm3 if isinstance(block, BottleneckBlock) else block.norm2
    last = block.conv2 if isinstance(block, PreactBlock) else last
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
    return block


def test_the_activation_follows_the_addition_except_in_preact():
    x = torch.randn(4, 8, 6, 6)
    settings = {"norm": BATCH, "activation": nn.ReLU, "bias": True, "shortcut_norm": True}
    torch.testing.assert_close(zero_residual(BasicBlock(8, 8, 1, **settings))(x), x.relu())
    torch.testing.assert_close(zero_residual(BottleneckBlock(8, 2, 1, **settings))(x), x.relu())
    torch.testing.assert_close(zero_residual(PreactBlock(8, 8, 1, **settings))(x), x)


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize("shortcut_norm", [True, False])
def test_a_shortcut_has_a_norm_or_a_bias(block, shortcut_norm):
    layer = block(4, 8, 2, norm=BATCH, activation=nn.ReLU, bias=False, shortcut_norm=shortcut_norm)
    assert isinstance(layer.shortcut.norm, nn.BatchNorm2d) == shortcut_norm
    assert (layer.shortcut.conv.bias is None) == shortcut_norm


def test_preact_puts_the_norm_first():
    block = PreactBlock(4, 8, 2, norm=BATCH, activation=nn.ReLU, bias=True, shortcut_norm=True)
    assert [block.norm1.num_features, block.norm2.num_features] == [4, 8]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.shortcut.modules())
    x = torch.randn(4, 4, 6, 6)
    residual = block.conv2(block.norm2(block.conv1(block.norm1(x).relu())).relu())
    torch.testing.assert_close(block(x), residual + block.shortcut.conv(block.norm1(x).relu()))


def test_preact_ends_in_norm_and_activation():
    model = build("resnet", block="preact", widths=[8, 16], depths=[1, 1])
    pool_inputs = []
    model.pool.register_forward_pre_hook(lambda module, inputs: pool_inputs.append(inputs[0]))
    model(images_for("resnet"))
    assert isinstance(model.last.norm, nn.BatchNorm2d)
    assert pool_inputs[0].min() == 0


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_biases_do_not_depend_on_the_norm(norm):
    small = {"widths": [8, 16], "depths": [1, 1]}
    for bias in (True, False):
        model = build("resnet", norm=norm, bias=bias, **small)
        convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        assert all((conv.bias is not None) == bias for conv in convs)


def test_map_sizes_of_the_cifar10_recipe():
    keys = {"stem": "large", "stem_norm": False, "stem_padding": False, "shortcut_norm": False, "bias": False}
    model = build("resnet", shape=(3, 96), **keys)
    shapes = output_shapes(model, torch.randn(2, 3, 96, 96))
    names = ["stem.conv", "stem.pool", "stages.0", "stages.1", "stages.2", "stages.3"]
    assert [shapes[name][-1] for name in names] == [45, 22, 22, 11, 6, 3]
    assert shapes["pool"] == (2, 512)
    assert not isinstance(model.stem.norm, nn.BatchNorm2d)
    assert isinstance(model.stem.activation, nn.Identity)
    assert model.stages[0][0].conv1.bias is None
    assert model.stem.conv.bias is not None


@pytest.mark.parametrize(("stem", "sides"), [("small", (32, 32)), ("large", (16, 8))])
def test_map_sizes_of_the_stems(stem, sides):
    model = build("resnet", widths=[8], depths=[1], stem=stem)
    shapes = output_shapes(model, images_for("resnet"))
    assert (shapes["stem.conv"][-1], shapes["stem"][-1]) == sides
    assert isinstance(model.stem.norm, nn.BatchNorm2d)


def test_shapes_of_dense_block_and_transition():
    x = torch.randn(4, 3, 8, 8)
    dense = DenseBlock(3, 2, 10, norm=BATCH, activation=nn.ReLU, bias=True)
    maps = dense(x)
    assert maps.shape == (4, 23, 8, 8)
    assert torch.equal(maps[:, :3], x)
    half = transition(23, 10, norm=BATCH, activation=nn.ReLU, bias=True)
    assert half(maps).shape == (4, 10, 4, 4)
    assert [type(m) for m in half] == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.AvgPool2d]


def test_shapes_of_the_fashion_densenet_recipe():
    model = build("densenet", shape=(1, 96), stem="large")
    shapes = output_shapes(model, torch.randn(2, 1, 96, 96))
    assert [shapes[f"body.block{i}"][1:] for i in (1, 2, 3, 4)] == [
        (192, 24, 24),
        (224, 12, 12),
        (240, 6, 6),
        (248, 3, 3),
    ]
    assert model.head.in_features == 248
