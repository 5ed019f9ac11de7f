"""Composes the jobs of a sweep, each once, and checks every value of every axis."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from bnexp.cli.composed_config import config_identity, make_job
from bnexp.config import instantiate
from bnexp.config.overrides import override_values, split_override
from bnexp.config.schema import parse
from bnexp.runs.job import Job
from bnexp.sweeps.axes import label_of, varying_keys
from bnexp.sweeps.job_folders import job_folder


class JobComposer:
    """Makes jobs of overrides. ``folder`` is the sweep's."""

    def __init__(
        self, config: DictConfig, context: HydraContext, folder: Path, jobs: list[list[str]]
    ) -> None:
        self.config, self.context, self.folder = config, context, folder
        self.keys = varying_keys(jobs)  # those that distinguish the jobs
        self.command = shlex.join(sys.argv)
        self._checked: set[str] = set()
        self._recipes: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: list[str], place: int) -> Job:
        """The job ``place`` of the sweep, from 0. Raises UserError for an invalid configuration.

        Every value of every axis is checked once, not every combination of values: there may be thousands.
        """
        composed = self._composed(overrides)
        path = self._set_place(composed, overrides, place)
        task = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        values = override_values(overrides)
        job = make_job(
            task, path, number=place, command=self.command,
            label=" ".join(label_of(overrides, self.keys)),
            hparams={
                key: float(values[key]) if numeric else values[key]
                for key, numeric in self.keys.items() if key in values
            },
        )  # fmt: skip
        if not self._checked.issuperset(overrides):
            self._checked.update(overrides)
            instantiate.check_components(parse(job.values))
            _check_images(job)
        return job

    def _composed(self, overrides: list[str]) -> DictConfig:
        """The configuration of these overrides.

        Hydra needs 50 ms for one. A seed chooses nothing else, so it is put into the configuration of the
        same overrides with another seed, if it is a number.
        """
        values = override_values(overrides)
        recipe = tuple(override for override in overrides if split_override(override)[0] != "seed")
        seed = values.get("seed", "")
        if seed.isdecimal() and (composed := self._recipes.get(recipe)) is not None:
            hydra = composed.hydra
            with read_write(hydra), open_dict(hydra):
                name = hydra.job.override_dirname
                hydra.job.override_dirname = name.replace(f"seed={composed.seed}", f"seed={seed}")
                hydra.overrides.task = overrides
            composed.seed = int(seed)
            return composed
        composed = self.context.config_loader.load_sweep_config(self.config, overrides)
        if seed.isdecimal():
            self._recipes[recipe] = composed
        return composed

    def _set_place(self, composed: DictConfig, overrides: list[str], place: int) -> Path:
        """Writes into Hydra's part of the configuration what Hydra writes there before a job; the folder."""
        names = {split_override(override)[0] for override in overrides}
        hydra = composed.hydra
        with read_write(hydra), open_dict(hydra):
            hydra.job.num, hydra.job.id = place, str(place)
            hydra.job.config.override_dirname.exclude_keys = sorted(names - self.keys.keys())
            hydra.sweep.dir = str(self.folder)
        HydraConfig.instance().set_config(composed)  # names use its choices
        path = self.folder / str(OmegaConf.select(composed, "hydra.sweep.subdir"))
        with read_write(hydra), open_dict(hydra):
            hydra.runtime.output_dir = os.path.abspath(path)
        HydraConfig.instance().set_config(composed)
        return path


def _check_images(job: Job) -> None:
    """Raises UserError where the images of a folder have no fingerprint, because they cannot be read."""
    dataset = job.values["dataset"]
    if dataset["name"] == "image_folder" and dataset["root"] and "dataset" not in job.fingerprints:
        from bnexp.data.fingerprint import folder_fingerprint  # imports torch

        folder_fingerprint(str(dataset["root"]))


def _folder_of_job(*, _root_: DictConfig) -> str:
    """The name of a job's folder in the sweep's folder."""
    excluded = set(_root_.hydra.job.config.override_dirname.exclude_keys)
    overrides = [o for o in _root_.hydra.overrides.task if split_override(o)[0] not in excluded]
    return job_folder(Path(_root_.hydra.sweep.dir), ",".join(sorted(overrides)), config_identity(_root_))


OmegaConf.register_new_resolver("bnexp.job_folder", _folder_of_job, replace=True)
