"""A little of scripts/torture: faults tried for real, in fresh processes; ``make torture`` tries all."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "torture"))

import disks
import stops
from trial import Lost, Trial


@pytest.mark.slow
def test_killed_runs_and_full_disks_end_in_the_same_bits(tmp_path):
    def attempt(tried, number: int) -> None:
        tried(Trial(tmp_path / f"{tried.__name__}-{number}", tried.__name__, number))

    with ThreadPoolExecutor(2) as pool:
        tries = [(stops.kill_run, 0), (disks.full_by_limit, 0), (stops.kill_run, 1)]
        list(pool.map(lambda one: attempt(*one), tries))


def test_a_run_that_differs_counts_as_lost(tmp_path, commands):
    small = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50")
    trial = Trial(tmp_path / "trial", "none", 0)
    for seed in (0, 1):
        commands.bnexp(*small, f"seed={seed}", f"hydra.run.dir={trial.folder}/{seed}")
    trial.same(trial.folder / "0", "0")
    with pytest.raises(Lost, match="1: other checkpoints, metrics, steps"):
        trial.same(trial.folder / "0", "1")
