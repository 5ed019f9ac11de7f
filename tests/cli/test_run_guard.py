"""Before Hydra creates a run's folder, bnexp looks whether the folder holds another run or a finished one."""

from __future__ import annotations

import pytest

from bnexp.config.overrides import quote_value

QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50", "tracking.tensorboard=false")


@pytest.mark.parametrize("folder", ["run", "a'b\\c"])
def test_a_secondary_process_of_torchrun_ends_silently_where_the_run_is_finished(
    commands, monkeypatch, folder
):
    """It looks into the run's folder, which the command line names, and not into its own temporary folder."""
    into_folder = f"hydra.run.dir={quote_value(folder)}"
    assert commands.bnexp(*QUICK, into_folder).code == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    result = commands.bnexp(*QUICK, into_folder)
    assert (result.code, result.out, result.err) == (0, "", "")
    assert [run.name for run in commands.runs()] == [folder]


def test_a_folder_with_an_unreadable_configuration_is_refused(commands):
    assert commands.bnexp(*QUICK, "hydra.run.dir=run").code == 0
    (commands.folder / "run/.hydra/config.yaml").write_text("a: [1")
    result = commands.bnexp(*QUICK, "hydra.run.dir=run", "seed=1")
    assert result.code == 2
    assert result.err == (
        "bnexp: hydra.run.dir=run: holds a run with another configuration; choose another folder\n"
    )
