"""Random command lines: each must end in success or in one line."""

from __future__ import annotations

import json
import resource
from functools import partial
from pathlib import Path

from trial import Trial, TrialFailed

PROCESSES, CASES_PER_PROCESS = 4, 500
SCRIPT = Path(__file__).resolve().parent / "try_command_lines.py"


def random_lines(trial: Trial) -> None:
    """Tries a share of the cases in a process of its own, which may use 12 GB."""
    limit_memory = partial(resource.setrlimit, resource.RLIMIT_AS, (12 << 30, 12 << 30))
    args = (str(CASES_PER_PROCESS), str(trial.number))
    process = trial.start(*args, python_args=[str(SCRIPT)], preexec_fn=limit_memory)
    result = trial.finish(process, 3000)
    failures = [json.loads(line) for line in result.out.splitlines() if line.startswith("[")]
    if failures or result.code:
        head = f"seed {trial.number}, exit code {result.code}: {result.err[-300:]}"
        cases = CASES_PER_PROCESS if result.code else len(failures)
        raise TrialFailed("\n    ".join([head, *map(str, failures)]), cases)
