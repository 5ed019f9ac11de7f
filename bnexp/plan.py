"""``bnexp-plan``: lists the jobs that ``bnexp -m`` would run, or how far a sweep's folder has come."""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from bnexp.cli import argument_parser, composed_config, exit_codes, hydra_errors
from bnexp.cli.environment_values import insert_environment
from bnexp.config.instantiate import check_components
from bnexp.config.overrides import check_deletions, override_key, split_override
from bnexp.config.schema import COMPONENTS, Sweep, check_looks, parse
from bnexp.config.validation import check_mapping
from bnexp.errors import UserError
from bnexp.report.read.runs import TUNING_FOLDER
from bnexp.runs.summary import load_summary
from bnexp.sweeps.axes import Axes, read_axes
from bnexp.sweeps.job_folders import completed_jobs
from bnexp.sweeps.progress.status import FINISHED, RUNNING, SweepReader
from bnexp.sweeps.progress.time_left import format_duration
from bnexp.sweeps.progress.view import counts_text
from bnexp.sweeps.seeds import first_jobs


def list_jobs(overrides: list[str]) -> tuple[Axes, Sweep, Path | None]:
    """The sweep's axes and settings, and its folder if an override sets it."""
    single_values = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if not override.is_sweep_override():
            single_values.append(override)
        elif _is_of_hydra(str(override.input_line)):
            raise UserError(f"{override.input_line}: a key of Hydra takes one value, and is no axis")
    composed = compose(
        "config", overrides=[str(o.input_line) for o in single_values], return_hydra_config=True
    )
    values: Any = OmegaConf.to_container(composed.sweep, resolve=True)
    settings = check_mapping(values, Sweep, "sweep")
    check_looks(settings.looks)
    axes = read_axes(
        composed,
        [override for override in overrides if not _is_of_hydra(override)],
        GlobalHydra.instance().config_loader(),
        settings,
    )
    has_folder = any(o.key_or_group in composed_config.OTHER_FOLDER for o in single_values)
    return axes, settings, composed_config.output_folder(composed, "hydra.sweep.dir") if has_folder else None


def _is_of_hydra(override: str) -> bool:
    return re.split(r"[./]", override_key(override))[0] == "hydra"


def print_plan(overrides: list[str]) -> None:
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        axes, settings, folder = list_jobs(overrides)
        jobs = first_jobs(axes, settings)
        folder = folder / TUNING_FOLDER if folder and axes.intervals else folder
        configs = [compose("config", overrides=job) for job in jobs]
        for job, config in zip(jobs, configs, strict=True):
            _check(config, job)
            check_deletions(job)
        first_numbers: dict[str, int] = {}  # of the jobs of each experiment: it is trained once
        durations = []  # of the finished jobs: a job that diverged says little about the others
        waiting = 0
        for number, (job, config) in enumerate(zip(jobs, configs, strict=True), 1):
            identity = composed_config.config_identity(config)
            folders = completed_jobs(folder, identity) if folder else []
            if (first := first_numbers.setdefault(identity, number)) != number:
                state = f"the same experiment as [{first}]"
            elif folders:
                summary = load_summary(folders[0])
                state, seconds = summary["status"], (summary.get("time") or {}).get("total_s")
                if isinstance(seconds, int | float):
                    state += f", {format_duration(seconds)}"
                    if summary["status"] == "finished":
                        durations.append(seconds)
            else:
                state = "to run"
                waiting += 1
            print(f"[{number}/{len(jobs)}] {' '.join(job)} | {state}")
    estimate = ""
    if durations and waiting:
        duration = format_duration(waiting * statistics.fmean(durations))
        estimate = f", about {duration} one after the other"
    print(f"{len(first_numbers) - waiting} done, {waiting} to run{estimate}")
    for line in _later_jobs(axes, settings):
        print(line)


def _later_jobs(axes: Axes, settings: Sweep) -> list[str]:
    """What follows the listed jobs where their results decide it."""
    lines = []
    if axes.intervals:
        keys = ", ".join(interval.name for interval in axes.intervals)
        lines.append(f"then as many trials again where a best {keys} lies at an edge; at the best ones:")
    if axes.plans_seeds:
        least, most = (len(axes.arms) * seeds for seeds in (settings.looks[0], settings.looks[-1]))
        lines.append(
            f"seed=auto: at least {least} jobs ({settings.looks[0]} seeds), at most {most}"
            f" ({settings.looks[-1]} seeds)"
        )
    elif axes.intervals:
        lines.append(f"{len(axes.jobs)} jobs")
    return lines


def print_progress(sweep_folder: Path) -> None:
    """The jobs of a sweep that are not finished, one line each, and the counts.

    Raises UserError where the folder holds no sweep.
    """
    status = SweepReader(sweep_folder).read()
    for number, job in enumerate(status.jobs, 1):
        if job.state == FINISHED:
            continue
        state = f"{job.state}: {job.error}" if job.error else job.state
        epochs = f", epoch {job.epoch}/{job.epochs}" if job.state == RUNNING else ""
        print(f"[{number}/{len(status.jobs)}] {job.job.label} | {state}{epochs}")
    print(counts_text(status))


def _check(config: DictConfig, job: list[str]) -> None:
    """Raises UserError for a mistake in a job's configuration.

    A component's keys are compared with its class, which imports torch (1 to 3 s). This is left out where no
    override changes them: the files of ``conf`` are right.
    """
    if OmegaConf.is_interpolation(config, "name"):
        with open_dict(config):
            config.name = "plan"  # the default asks for Hydra's choices, which exist only while Hydra runs
    settings = parse(composed_config.resolve_config(config))
    if any(_changes_component(override) for override in job):
        check_components(settings)


def _changes_component(override: str) -> bool:
    """Whether an override sets a key of a component: it is no choice of a file, as ``model=conv``."""
    key, value = override_key(override), split_override(override)[1]
    is_choice = key in COMPONENTS and re.fullmatch(r"\w+", value)
    return re.split(r"[.@]", key)[0] in (*COMPONENTS, "probes") and not is_choice


def arguments() -> argparse.Namespace:
    parser = argument_parser.ArgumentParser(
        prog="bnexp-plan",
        description="Lists the jobs that bnexp -m would run with the same arguments, and runs none."
        " With hydra.sweep.dir=DIR it says which jobs are done there, and how long the others may take."
        " With DIR alone it says how far the sweep in this folder has come, and lists what is unfinished.",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value,value", help="as for bnexp -m; or the folder of a sweep"
    )
    parser.add_argument("-m", action="store_true", help="allowed as in bnexp -m; it has no effect")
    return parser.parse_args()


def main() -> None:
    def plan() -> None:
        overrides = insert_environment(arguments().overrides)
        folders = [text for text in overrides if "=" not in text and text[:1] not in "~+"]
        if folders and len(overrides) > 1:
            hint = f"with keys write hydra.sweep.dir={folders[0]}"
            raise UserError(f"{folders[0]}: a folder stands alone; {hint}")
        if folders:
            print_progress(Path(folders[0]))
        else:
            hydra_errors.translate_hydra_errors(lambda: print_plan(overrides), overrides)

    sys.exit(exit_codes.printed_exit_code(plan))


if __name__ == "__main__":
    main()
