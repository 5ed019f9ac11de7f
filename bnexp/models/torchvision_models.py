"""torchvision's classifiers, with a choice of norm."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from typing import Any

from torch import nn

from bnexp.config.validation import Count
from bnexp.errors import UserError, bad_value, nearest_match, one_line
from bnexp.models import norms
from bnexp.models.norm_variants import GroupImages
from bnexp.models.norms import Norm, NormName


def from_torchvision(
    in_channels: int,
    image_size: int,
    num_classes: int,
    *,
    arch: str,
    norm: NormName | None,
    norm_groups: Count,
    norm_images: GroupImages | None = None,
) -> nn.Module:
    """``torchvision.models.<arch>``, untrained: (N, in_channels, image_size, image_size) -> logits (N, K).

    Without ``norm`` the network is as published. ``norm`` replaces each BatchNorm2d. A network without any
    norm gets one after each convolution, except after a last convolution that gives the logits. The layer
    norms of transformers stay, since their features are in the last dimension: an architecture that has only
    these takes norm=layer alone. If ``in_channels`` is not 3, the first convolution is built anew with
    torch's default initialization.

    Raises UserError for an unknown ``arch``, for an image size that the architecture does not take, and for a
    norm that does not fit it.
    """
    model = _build(arch, image_size, num_classes)
    if in_channels != 3:
        _rebuild_first_conv(model, in_channels)
    if norm is None:
        if norm_images is not None:
            raise bad_value("model.norm_images", norm_images, "needs model.norm=batch, not null")
        return model
    make_norm = norms.make(norm, norm_groups, norm_images, spatial=True)
    if _contains(model, nn.BatchNorm2d):
        if norm != "batch" or norm_images is not None:  # for norm=batch they stay
            _replace_batch_norms(model, make_norm)
    elif _contains(model, nn.LayerNorm):
        if norm != "layer":
            raise bad_value("model.norm", norm, f"must be layer for model.arch={arch}, which has layer norms")
    elif norm != "none":
        _insert_norms(model, make_norm)
    return model


def _build(arch: str, image_size: int, num_classes: int) -> nn.Module:
    from torchvision import models  # not at the top of the file: the import takes seconds

    names = models.list_models(module=models)
    if arch not in names:
        similar = difflib.get_close_matches(arch, names, n=4, cutoff=0.3) or ["alexnet", "vgg11", "resnet18"]
        nearest = nearest_match(arch, names)
        hint = f"; did you mean {nearest}?" if nearest else ""
        rule = f"must be one of torchvision's {len(names)} classifiers, such as {', '.join(similar)}{hint}"
        raise bad_value("model.arch", arch, rule)
    arguments: dict[str, Any] = {}
    if arch.startswith("vit_"):
        arguments = {"image_size": image_size}
    elif arch.startswith("maxvit_"):
        arguments = {"input_size": (image_size, image_size)}
    elif arch in ("googlenet", "inception_v3"):
        # Auxiliary logits would make the output a tuple in training. Without init_weights torchvision warns.
        arguments = {"aux_logits": False, "init_weights": True}
    try:
        return models.get_model(arch, weights=None, num_classes=num_classes, **arguments)
    except (AssertionError, ValueError) as error:  # torchvision raises these for an image size it can't take
        size = f"{image_size} x {image_size}"
        raise UserError(
            one_line(f"model.arch={arch}: can't take images of {size} ({error}); try dataset.resize=224")
        ) from None


def _contains(model: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in model.modules())


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts ``new`` in each place of ``model`` that holds ``old``."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(name, new)


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


def _replace_batch_norms(model: nn.Module, make_norm: Norm) -> None:
    for old in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        new = make_norm(old.num_features)
        for module in new.modules():
            if isinstance(module, (norms.BatchNorm, nn.modules.batchnorm._BatchNorm)):
                module.eps, module.momentum = old.eps, old.momentum or 0.0  # some have values of their own
        _replace(model, old, new)


def _insert_norms(model: nn.Module, make_norm: Norm) -> None:
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for layer in layers[:-1]:  # the last one gives the logits
        if isinstance(layer, nn.Conv2d):
            conv_and_norm = OrderedDict(conv=layer, norm=make_norm(layer.out_channels))
            _replace(model, layer, nn.Sequential(conv_and_norm))
