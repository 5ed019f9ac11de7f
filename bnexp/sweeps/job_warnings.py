"""What the jobs of a sweep warn of: each distinct message once, with the number of jobs that have it."""

from __future__ import annotations

from collections import Counter

from bnexp.sweeps.launchers.launcher import JobEnd

MAX_LINES = 8


class JobWarnings:
    """Counts the warnings of the jobs. Without the run's name those of all seeds are equal."""

    def __init__(self) -> None:
        self._jobs = 0
        self._counts: Counter[str] = Counter()  # jobs by message

    def add(self, end: JobEnd) -> None:
        self._jobs += 1
        name = f"{end.job.values['name']}: "
        self._counts.update(list(dict.fromkeys(text.removeprefix(name) for text in end.warnings)))

    def lines(self) -> list[str]:
        """``2 of 4 jobs: MESSAGE``, those of most jobs first; at most eight, then how many more there are."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))  # not by who ends first
        lines = [f"{count} of {self._jobs} jobs: {text}" for text, count in ordered]
        remaining = len(lines) - MAX_LINES
        more = [f"{remaining} more warning{'s' * (remaining > 1)}, in each job's train.log"] * (remaining > 0)
        return lines[:MAX_LINES] + more
