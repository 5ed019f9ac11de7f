"""Networks: a file per family, each called with in_channels, image_size, num_classes and its YAML's keys."""

from bnexp.models.conv import ConvNet
from bnexp.models.densenet import DenseNet
from bnexp.models.lenet import LeNet
from bnexp.models.mlp import MLP
from bnexp.models.resnet import ResNet
from bnexp.models.torchvision_models import from_torchvision

__all__ = ["MLP", "ConvNet", "DenseNet", "LeNet", "ResNet", "from_torchvision"]
