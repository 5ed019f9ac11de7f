"""A few trials of scripts/torture, on real processes. ``make torture`` tries all faults."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "torture"))

import disks
import stops
from trial import Trial, TrialFailed


@pytest.mark.slow
def test_runs_after_a_kill_or_a_full_disk_resume_to_the_same_bits(tmp_path):
    def attempt(fault, number: int) -> None:
        fault(Trial(tmp_path / f"{fault.__name__}-{number}", fault.__name__, number))

    trials = [(stops.kill_run, 0), (disks.full_by_limit, 0), (stops.kill_run, 1)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda trial: attempt(*trial), trials))


def test_a_trial_fails_if_the_records_of_two_runs_differ(tmp_path, commands):
    small = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50")
    trial = Trial(tmp_path / "trial", "none", 0)
    for seed in (0, 1):
        commands.bnexp(*small, f"seed={seed}", f"hydra.run.dir={trial.folder}/{seed}")
    trial.require_same_record(trial.folder / "0", "0")
    with pytest.raises(TrialFailed, match="1: other checkpoints, metrics, steps"):
        trial.require_same_record(trial.folder / "0", "1")
