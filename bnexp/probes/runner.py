"""Calls the probes of a run at their moments and hands their rows to the loggers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from bnexp.data import Batch
from bnexp.errors import UserError, WriteError, describe, forbid_exit
from bnexp.probes.preserve import preserved
from bnexp.probes.probe import Moment, Probe, Row, Setup
from bnexp.runs.loggers import Logger

log = logging.getLogger(__name__)
Method = Callable[[Moment], Sequence[Row]]


class ProbeRunner:
    """The probes of one run. A probe that fails is left out from then on, and ``failures`` says why.

    ``every``: the number of steps from one measured step to the next; the first step is measured. The methods
    for the moments return the seconds that they took.
    """

    def __init__(self, probes: Sequence[Probe], setup: Setup | None, every: int, logger: Logger) -> None:
        self.probes, self.setup, self.every, self.logger = list(probes), setup, every, logger
        self.failures: dict[str, str] = {}

    def is_due(self, step: int) -> bool:
        return bool(self.probes) and (step - 1) % self.every == 0

    def at_start(self) -> float:
        return self._measure(0, None, lambda probe: probe.at_start)

    def before_step(self, step: int, batch: Batch) -> float:
        return self._measure(step, batch, lambda probe: probe.before_step)

    def after_step(self, step: int, batch: Batch) -> float:
        return self._measure(step, batch, lambda probe: probe.after_step)

    def after_epoch(self, step: int) -> float:
        return self._measure(step, None, lambda probe: probe.after_epoch)

    def _measure(self, step: int, batch: Batch | None, method: Callable[[Probe], Method]) -> float:
        if not self.probes or self.setup is None:
            return 0.0
        start = time.perf_counter()
        images, labels = self.setup.sample() if batch is None else batch.tensors()
        moment = Moment(self.setup, step, images, labels)
        for probe in list(self.probes):
            try:
                with (
                    preserved(self.setup.network),
                    torch.inference_mode(False),
                    torch.enable_grad(),
                    forbid_exit(f"the probe {probe.name}"),
                ):
                    rows = list(method(probe)(moment))
                if rows:
                    check_rows(rows, probe.index)
                    self.logger.measurement(probe.name, probe.index, rows, step)
            except WriteError:  # the disk is full: the run could not write its own records either
                raise
            except Exception as error:  # a measurement must not cost the training
                reason = str(error) if isinstance(error, UserError) else describe(error)
                log.warning(
                    f"probes: {probe.name} fails at step {step} and is left out from now on ({reason})"
                )
                self.failures[probe.name] = f"step {step}: {reason}"
                self.probes.remove(probe)
        return time.perf_counter() - start


def check_rows(rows: Sequence[Row], index: Sequence[str]) -> None:
    """Raises ValueError for rows that the files cannot hold."""
    for row in rows:
        if not isinstance(row, Mapping):
            raise ValueError(f"a row must be a mapping from column to value, not {row!r}")
        if "step" in row or not all(isinstance(column, str) for column in row):
            raise ValueError(f"a row's columns must be text, and none step: {list(row)}")
        if missing := [column for column in index if column not in row]:
            raise ValueError(f"a row lacks {missing[0]}, which its index names")
        for column, value in row.items():
            if column not in index:
                float(value)


NO_PROBES = ProbeRunner([], None, 1, Logger())
