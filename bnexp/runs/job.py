"""A job: one run as plain data. A worker that gets it needs neither Hydra nor the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnexp.files import write_text

SHOWN_CHOICES = ("model", "dataset", "optimizer")


@dataclass(frozen=True)
class Job:
    folder: str  # absolute
    values: dict[str, Any]  # the configuration
    config_hash: str
    overrides: list[str]
    fingerprints: dict[str, str]
    choices: dict[str, str | None]  # the chosen file of each group
    texts: dict[str, str]  # the files of .hydra: name -> text
    config_yaml: str  # the configuration with resolved interpolations
    command: str | None = None  # the command that started the sweep; None: the command of this process
    new_folders: tuple[Path, ...] = ()  # folders that were created for this run alone
    number: int | None = None  # the place in the sweep, from 0; None for a single run
    label: str = ""  # the overrides that distinguish the job from the sweep's others
    hparams: dict[str, float | str] = field(default_factory=dict)  # the same as keys and values

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def is_in_sweep(self) -> bool:
        return self.number is not None

    @property
    def shown_hparams(self) -> dict[str, float | str]:
        """For TensorBoard's HParams tab; empty outside of a sweep.

        Model, data set and optimizer are shown in any case: another sweep may vary them.
        """
        if not self.is_in_sweep:
            return {}
        choices = {group: choice for group in SHOWN_CHOICES if (choice := self.choices.get(group))}
        return {**choices, **self.hparams}

    def write_texts(self) -> None:
        """Writes ``.hydra``: the configuration as Hydra saves it."""
        folder = self.path / ".hydra"
        folder.mkdir(exist_ok=True)
        for name, text in self.texts.items():
            write_text(folder / name, text)


@dataclass(frozen=True)
class MachineShare:
    """What a job gets of the machine that it runs on."""

    jobs_at_once: int = 1  # the number of jobs that share the cores
    gpu: int | None = None  # the number of its GPU, round-robin; None: the current one
    has_console: bool = True  # whether the job's lines go to the terminal
