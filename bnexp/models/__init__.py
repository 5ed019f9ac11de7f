"""The networks, one file for each family, and the layers that they are built from.

Each network takes ``in_channels``, ``image_size``, ``num_classes`` and the keys of its YAML in conf/model/.

``norms`` has the normalisation layers by name and batch normalisation written out by hand (class BatchNorm).
``initialization`` draws the first weights from the seed. ``blocks`` and ``pooling`` have the other layers.
``summary`` counts parameters and FLOPs.
"""

from bnexp.models.conv import ConvNet
from bnexp.models.densenet import DenseNet
from bnexp.models.lenet import LeNet
from bnexp.models.mlp import MLP
from bnexp.models.resnet import ResNet
from bnexp.models.torchvision_models import from_torchvision

__all__ = ["MLP", "ConvNet", "DenseNet", "LeNet", "ResNet", "from_torchvision"]
