"""Environment variables of a process whose reports have no pictures: drawing takes two seconds a sweep."""

from __future__ import annotations

import os
from pathlib import Path

_PATHS = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
NO_PICTURES = {"PYTHONPATH": os.pathsep.join(path for path in _PATHS if path)}
