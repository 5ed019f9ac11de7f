"""Which ``_target_`` a run's folder may name: a folder can be a stranger's, and an import runs code."""

from __future__ import annotations

import re
from collections.abc import Collection

from bnexp.errors import UserError

# Classes that only compute. The pattern leaves out two ways to run a stranger's code: functions such as
# torch.hub.load, and modules that a torch module imports, which have lower-case names.
_SAFE_TARGETS = re.compile(
    r"bnexp\.(models|probes\.[a-z]+|training\.(losses|schedulers))\.\w+"
    r"|torch\.nn\.(modules\.\w+\.)?[A-Z]\w*"
    r"|torch\.optim\.(lr_scheduler\.)?[A-Z]\w*"
)


def check_target(key: str, target: str | None, trusted_names: Collection[str]) -> None:
    """Raises UserError where ``target`` is no class of bnexp or torch and not among ``trusted_names``."""
    if target is None or _SAFE_TARGETS.fullmatch(target) or target in trusted_names:
        return
    requirement = "must be a class of bnexp, torch.nn or torch.optim"
    raise UserError(f"{key}={target}: {requirement}; --trust {target} allows it")
