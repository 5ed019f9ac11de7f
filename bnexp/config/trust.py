"""What a run's folder may name unvouched: folders come from elsewhere, and a name runs code."""

from __future__ import annotations

import re
from collections.abc import Collection

from bnexp.errors import UserError

# Classes that only compute. Not all of torch: torch.hub.load and torch.utils run what they are told to, and
# lower-case names reach the modules that a module imports.
_SAFE_TARGETS = re.compile(
    r"bnexp\.(models|training\.losses)\.\w+"
    r"|torch\.nn\.(modules\.\w+\.)?[A-Z]\w*"
    r"|torch\.optim\.(lr_scheduler\.)?[A-Z]\w*"
)


def check_target(key: str, target: str | None, trusted: Collection[str]) -> None:
    """Raises UserError for a ``_target_`` under ``key`` neither bnexp's nor torch's nor ``trusted``."""
    if target is None or _SAFE_TARGETS.fullmatch(target) or target in trusted:
        return
    raise UserError(f"{key}={target}: neither bnexp's nor torch's; --trust {target} lets it run")
