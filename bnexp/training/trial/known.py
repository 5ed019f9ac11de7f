"""Which components need no trial: bnexp's networks with torch's usual optimizers, schedulers and losses."""

from __future__ import annotations

from bnexp import models
from bnexp.config.schema import Component, Config

KNOWN_TARGETS = {
    "model": {f"bnexp.models.{name}" for name in models.__all__},
    "optimizer": {f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")},
    "scheduler": {
        "bnexp.training.schedulers.InverseSqrtLR",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "torch.optim.lr_scheduler.ExponentialLR",
        "torch.optim.lr_scheduler.PolynomialLR",
        "torch.optim.lr_scheduler.StepLR",
    },
    "loss": {"bnexp.training.losses.OneHotMSE", "torch.nn.CrossEntropyLoss", "torch.nn.MultiMarginLoss"},
}
# The keys of torch's known optimizers that need no trial. Others can ask for what a step does not support.
KNOWN_OPTIMIZER_KEYS = {"lr", "momentum", "nesterov", "weight_decay", "betas", "eps"}


def needs_trial(config: Config) -> bool:
    """Whether a part is the user's own, or one of torch's that is not known to work with the others."""
    components = (config.model, config.optimizer, config.scheduler, config.loss)
    has_known_keys = KNOWN_OPTIMIZER_KEYS.issuperset(config.optimizer.keys)
    return not (has_known_keys and all(map(is_known, components)))


def is_known(component: Component) -> bool:
    return component.target is None or component.target in KNOWN_TARGETS[component.key]
