"""``bnexp-plan``: the jobs that the same words would give ``bnexp -m``, and which of them are done."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict

from bnexp.cli import argument_parser, composed_config, exit_codes, hydra_errors
from bnexp.config.schema import parse
from bnexp.runs.folder import load_summary
from bnexp.sweeps import sweep
from bnexp.sweeps.job_folders import completed_jobs


def jobs_of(words: list[str]) -> tuple[list[list[str]], Path | None]:
    """The overrides of each job, and the sweep's folder if one of the words names it."""
    parsed = OverridesParser.create().parse_overrides(words)
    single = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    composed = compose("config", overrides=single, return_hydra_config=True)
    named = [word.partition("=")[2] for word in single if word.startswith("hydra.sweep.dir=")]
    jobs = sweep.jobs_of(composed, [word for word in words if not word.startswith("hydra")])
    return jobs, Path(named[-1]) if named else None


def plan(words: list[str]) -> None:
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        jobs, folder = jobs_of(words)
        configs = [compose("config", overrides=job) for job in jobs]
        for config in configs:
            with open_dict(config):
                config.name = ""  # Hydra's choices, which are not there outside of its runs
            parse(composed_config.resolve_config(config))
        seconds, waiting = [], 0  # of those that finished: one that diverged says little of the others
        for number, (job, config) in enumerate(zip(jobs, configs, strict=True), 1):
            done = folder and completed_jobs(folder, composed_config.config_identity(config))
            if done:
                summary = load_summary(done[0])
                state = f"{summary['status']}, {sweep.format_duration(summary['time']['total_s'])}"
                if summary["status"] == "finished":
                    seconds.append(summary["time"]["total_s"])
            else:
                waiting, state = waiting + 1, "to run"
            print(f"[{number}/{len(jobs)}] {' '.join(job)} | {state}")
    estimate = ""
    if seconds and waiting:
        estimate = f", about {sweep.format_duration(waiting * statistics.fmean(seconds))} one after the other"
    print(f"{len(jobs) - waiting} done, {waiting} to run{estimate}")


def arguments() -> argparse.Namespace:
    parser = argument_parser.ArgumentParser(
        prog="bnexp-plan",
        description="Lists the jobs that bnexp -m would run with the same words, and runs none. With"
        " hydra.sweep.dir=DIR it says which of them are done there, and how long the rest may take.",
    )
    parser.add_argument("words", nargs="*", metavar="key=value,value")
    parser.add_argument("-m", action="store_true", help="as for bnexp; makes no difference")
    return parser.parse_args()


def main() -> None:
    def run() -> None:
        words = arguments().words
        hydra_errors.translate_hydra_errors(lambda: plan(words), words)

    sys.exit(exit_codes.exit_code(run))


if __name__ == "__main__":
    main()
