"""torchvision's classifiers with their norms replaced, or with norms inserted."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from bnexp.errors import UserError
from bnexp.models import norms
from helpers.yaml_defaults import build, train_step

SMALL_ARCH = {"arch": "squeezenet1_1"}  # 0.7 million parameters and no norm; resnet18 below has norms


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def test_all_batch_norms_are_replaced():
    model = build("torchvision", arch="resnet18", norm="group", norm_groups=8, shape=(1, 32))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert sum(isinstance(module, nn.GroupNorm) for module in model.modules()) == 20
    assert model.conv1.in_channels == 1
    train_step(model, torch.randn(2, 1, 32, 32))


def test_batch_manual_equals_torchvisions_own_batch_norms():
    original, manual = (
        build("torchvision", arch="mnasnet0_5", norm=norm, shape=(3, 32))
        for norm in ("batch", "batch_manual")
    )
    assert sum(isinstance(module, norms.BatchNorm) for module in manual.modules()) == 52
    assert not any(isinstance(module, nn.BatchNorm2d) for module in manual.modules())
    assert original.state_dict().keys() == manual.state_dict().keys()
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    original, manual = original.double().layers, manual.double().layers  # without dropout and last Linear
    torch.testing.assert_close(original(images), manual(images), rtol=1e-6, atol=1e-9)
    for name, value in original.state_dict().items():  # mnasnet's momentum is 0.0003, not the default
        torch.testing.assert_close(value, manual.state_dict()[name])
    torch.testing.assert_close(original.eval()(images), manual.eval()(images))


def test_norms_are_inserted_after_each_convolution_but_the_last():
    model = build("torchvision", **SMALL_ARCH, norm="batch")
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    batch_norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(batch_norms) == len(convs) - 1
    assert [norm.num_features for norm in batch_norms] == [conv.out_channels for conv in convs[:-1]]


@pytest.mark.parametrize(
    ("arch", "has_batch_norm"), [("alexnet", False), ("vgg11", False), ("vgg11_bn", True)]
)
def test_without_a_norm_an_architecture_is_as_published(arch, has_batch_norm):
    from torchvision import models

    model = build("torchvision", arch=arch, norm=None, shape=(3, 64))
    published = models.get_model(arch, weights=None, num_classes=10)
    assert [type(module) for module in model.modules()] == [type(module) for module in published.modules()]
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()) is has_batch_norm


def test_torchvision_is_not_imported_with_the_package():
    code = "import sys, bnexp.models; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("arch", ["googlenet", "swin_t"])
def test_googlenet_and_swin_train(arch):
    norm = "layer" if arch == "swin_t" else "batch"
    train_step(build("torchvision", arch=arch, norm=norm, shape=(1, 32)), torch.randn(2, 1, 32, 32))


@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ({"arch": "resnet19"}, None, "did you mean resnet1"),
        (
            {"arch": "vit_b_16", "norm": "batch"},
            None,
            "model.norm=batch: must be layer for model.arch=vit_b_16",
        ),
        ({"arch": "vit_b_16"}, (3, 30), "can't take images of 30 x 30"),
    ],
)
def test_a_mistake_names_its_key(keys, shape, message):
    with pytest.raises(UserError) as error:
        build("torchvision", shape=shape, **keys)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
