"""Classifiers of torchvision, with their norm swapped."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from typing import Any

from torch import nn

from bnexp.config.validation import Count
from bnexp.errors import UserError, bad_value, nearest_match, one_line
from bnexp.models import norms
from bnexp.models.norms import Norm, NormName


def from_torchvision(
    in_channels: int, image_size: int, num_classes: int, *, arch: str, norm: NormName, norm_groups: Count
) -> nn.Module:
    """``torchvision.models.<arch>``, untrained: (N, in_channels, image_size, image_size) -> logits (N, K).

    Each BatchNorm2d gives way to ``norm``; a network without any norm gets one after each convolution but
    the one that gives the logits. Layer norms of transformers stay: they sit in the tokens' layout, so an
    architecture with no other norm takes norm=layer alone. For ``in_channels`` other than 3 the first
    convolution is built anew, with torch's own start.

    Raises UserError for an unknown ``arch``, one that can't be built for this image size, and a norm that
    doesn't fit it.
    """
    model = _build(arch, image_size, num_classes)
    if in_channels != 3:
        _rebuild_first_conv(model, in_channels)
    make_norm = norms.make(norm, norm_groups, spatial=True)
    if _has(model, nn.BatchNorm2d):
        if norm != "batch":  # they are that already
            _swap_norms(model, make_norm)
    elif _has(model, nn.LayerNorm):
        if norm != "layer":
            raise bad_value("model.norm", norm, f"must be layer for model.arch={arch}, which is built on it")
    elif norm != "none":
        _insert_norms(model, make_norm)
    return model


def _build(arch: str, image_size: int, num_classes: int) -> nn.Module:
    from torchvision import models  # here, since it takes seconds to import

    names = models.list_models(module=models)
    if arch not in names:
        like = difflib.get_close_matches(arch, names, n=4, cutoff=0.3) or ["alexnet", "vgg11", "resnet18"]
        near = nearest_match(arch, names)
        hint = f"; did you mean {near}?" if near else ""
        allowed = f"must be one of torchvision's {len(names)} classifiers, such as {', '.join(like)}{hint}"
        raise bad_value("model.arch", arch, allowed)
    extra: dict[str, Any] = {}
    if arch.startswith("vit_"):
        extra = {"image_size": image_size}
    elif arch.startswith("maxvit_"):
        extra = {"input_size": (image_size, image_size)}
    elif arch in ("googlenet", "inception_v3"):
        # Auxiliary logits would make the output a tuple in training; init_weights unsaid warns.
        extra = {"aux_logits": False, "init_weights": True}
    try:
        return models.get_model(arch, weights=None, num_classes=num_classes, **extra)
    except (AssertionError, ValueError) as error:  # torchvision's word for an image size it can't take
        size = f"{image_size} x {image_size}"
        raise UserError(
            one_line(f"model.arch={arch}: can't take images of {size} ({error}); try dataset.resize=224")
        ) from None


def _has(model: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in model.modules())


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def _rebuild_first_conv(model: nn.Module, in_channels: int) -> None:
    old = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    _replace(model, old, new)


def _swap_norms(model: nn.Module, norm: Norm) -> None:
    for old in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        new = norm(old.num_features)
        if isinstance(new, norms.BatchNorm):  # some architectures set their own: the twin keeps them
            new.eps, new.momentum = old.eps, old.momentum or 0.0
        _replace(model, old, new)


def _insert_norms(model: nn.Module, norm: Norm) -> None:
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for layer in layers[:-1]:  # the last one gives the logits
        if isinstance(layer, nn.Conv2d):
            pair = OrderedDict(conv=layer, norm=norm(layer.out_channels))
            _replace(model, layer, nn.Sequential(pair))
