"""Random command lines, each in success or in one line."""

from __future__ import annotations

import json
import resource
import sys
from collections import Counter
from pathlib import Path

CASES, PROCESSES = 2000, 4
failed: Counter[int] = Counter()


def random_lines(trial) -> None:  # type: ignore[no-untyped-def]
    """A share of the cases in a process of its own, which may take 12 GB."""
    from trial import Lost

    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))  # noqa: E731
    count = CASES // PROCESSES
    process = trial.start(
        str(count), str(trial.number), argv=[str(Path(__file__).resolve())], preexec_fn=limit
    )
    done = trial.end(process, 3000)
    found = [json.loads(line) for line in done.out.splitlines() if line.startswith("[")]
    failed[trial.number] = len(found) if not done.code else count
    if found or done.code:
        raise Lost(
            "\n    ".join([f"seed {trial.number}, exit {done.code}: {done.err[-300:]}", *map(str, found)])
        )


def try_lines(count: int, seed: int) -> None:
    """Prints a line of JSON for each command line that ended otherwise."""
    import warnings

    import torch  # noqa: F401 - before the first deadline
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from helpers.random_command_lines import LINES, run

    warnings.simplefilter("ignore")

    @seeded(seed)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(LINES)
    def every(line: list[str]) -> None:
        done = run(line, Path.cwd())
        if (wrong := done.wrong()) is not None:
            print(json.dumps([line, done.code, wrong, done.err[-300:]]), flush=True)

    every()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests"))
    try_lines(int(sys.argv[1]), int(sys.argv[2]))
