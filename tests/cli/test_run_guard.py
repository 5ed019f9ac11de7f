"""Before Hydra creates a folder, bnexp looks for foreign files, another run or a finished run in it."""

from __future__ import annotations

import shutil
from pathlib import Path

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


@pytest.mark.parametrize("mode", ["run", "sweep"])
@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "link", "link/run"])
def test_a_folder_that_cannot_exist_is_one_line_with_its_key(commands, mode, name):
    (commands.folder / "link").symlink_to("nowhere")
    result = commands.bnexp(*QUICK, *(["-m"] if mode == "sweep" else []), f"hydra.{mode}.dir={name}")
    assert (result.code, result.out) == (2, "")
    key = f"hydra.{mode}.dir={Path(name)}"
    reason = (
        "link is a link to a folder that does not exist" if "link" in name else "cannot be read (File name"
    )
    assert result.err.startswith(f"bnexp: {key}: {reason}")
    assert len(result.err.splitlines()) == 1


def test_a_run_whose_lock_cannot_be_written_is_one_line(commands):
    """As in a folder of another user."""
    assert commands.bnexp(*QUICK, "hydra.run.dir=run").code == 0
    (commands.folder / "run/.lock").unlink(missing_ok=True)
    (commands.folder / "run/.lock").mkdir()
    result = commands.resume("run", "epochs=2")
    assert (result.code, result.out) == (2, "")
    assert result.err == "bnexp: run/.lock: cannot be written (Is a directory)\n"


@pytest.mark.parametrize("mode", [(), ("-m", "seed=0,1")], ids=["run", "sweep"])
@pytest.mark.parametrize("value", ["..", "x/../..", "config"])
def test_the_configuration_is_saved_in_the_runs_folder_and_nowhere_else(commands, mode, value):
    """Hydra would write its config.yaml over one of the user."""
    users_file = commands.folder / "config.yaml"
    users_file.write_text("mine")
    result = commands.bnexp(*QUICK, *mode, f"hydra.output_subdir={value}")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"bnexp: hydra.output_subdir={value}: must be null: ")
    assert [path.name for path in commands.folder.iterdir()] == ["config.yaml"]
    assert users_file.read_text() == "mine"


def test_a_descent_is_named_as_such(commands):
    assert commands.descend("steps=2", "hydra.run.dir=descent").code == 0
    result = commands.bnexp(*QUICK, "hydra.run.dir=descent")
    assert result.code == 2
    assert result.err == "bnexp: descent: a descent of bnexp-descend, which trains no network\n"


def write_files(files: dict[str, str], folder: str) -> dict[str, tuple[str, int]]:
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return contents(folder)


def contents(folder: str) -> dict[str, tuple[str, int]]:
    """Text and time of change of every file, and an entry for every folder."""
    paths = sorted(Path(folder).rglob("*"))
    return {str(p): (p.read_text(), p.stat().st_mtime_ns) if p.is_file() else ("folder", 0) for p in paths}


FOREIGN_FILES = {
    "results": {"metrics.csv": "mine", "steps.csv": "mine", "checkpoints/net.pt": "weights"},
    "another program's summary": {"summary.json": '{"accuracy": 0.9}', "metrics.csv": "mine"},
    "a summary with a status": {"summary.json": '{"status": "ok", "epochs": "ten"}'},
    "another Hydra project's run": {
        ".hydra/config.yaml": "a: 1",
        ".hydra/hydra.yaml": "",
        "train.log": "done",
    },
    "a log": {"train.log": "my own"},
    "events": {"events.out.tfevents.1.host": "events"},
    "a hidden file": {".gitkeep": ""},
    "a data set": {"data/x": ""},
}


@pytest.mark.parametrize("overrides", [(), ("epochs=0",)], ids=["valid", "mistake"])
@pytest.mark.parametrize("folder", [".", "other"])
@pytest.mark.parametrize("name", FOREIGN_FILES)
def test_a_folder_that_holds_no_run_of_bnexp_is_refused_and_unchanged(commands, name, folder, overrides):
    files = write_files(FOREIGN_FILES[name], folder)
    result = commands.bnexp(*QUICK, f"hydra.run.dir={folder}", *overrides)
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1
    assert f"bnexp: hydra.run.dir={folder}: holds files but no run of bnexp" in result.err or (
        "summary.json: damaged" in result.err
    )
    assert contents(folder) == files


@pytest.mark.parametrize("value", ["", "''", "' '", "${oc.env:UNSET_FOLDER,''}"])
@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_an_empty_name_of_a_folder_is_refused(commands, key, value):
    flags = ("-m",) if key == "hydra.sweep.dir" else ()
    result = commands.bnexp(*flags, *QUICK, f"{key}={value}")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"bnexp: {key}=")
    assert result.err.endswith(": must name a folder\n")
    assert contents(".") == {}


@pytest.mark.parametrize("override", ["hydra.run.dir=", "hydra.run.dir=other", "hydra.sweep.dir=other"])
def test_a_resumed_run_stays_in_its_folder(commands, override):
    assert commands.bnexp(*QUICK, "hydra.run.dir=run").code == 0
    result = commands.resume("run", override)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"bnexp: {override}: bnexp-resume continues in run; leave this key out\n"
    assert [path.name for path in commands.folder.iterdir()] == ["run"]


def test_a_job_of_a_sweep_can_be_resumed_alone(commands):
    assert commands.bnexp("-m", *QUICK, "hydra.sweep.dir=sweep").code == 0
    (job,) = commands.runs()
    result = commands.resume(str(job))
    assert (result.code, result.err) == (0, "")
    assert "this run is finished" in result.out


@pytest.mark.parametrize(
    ("folder", "existing"),
    [("run", "run"), ("run/a/b", "run"), ("outputs/a", "outputs"), ("run/a/b", "outputs")],
)
def test_after_a_mistake_only_the_new_folders_are_removed(commands, folder, existing):
    Path(existing).mkdir()
    result = commands.bnexp(*QUICK, "epochs=0", f"hydra.run.dir={folder}")
    assert result.code == 2
    assert result.err.startswith("bnexp: epochs=0: must be a whole number, at least 1")
    assert list(contents(".")) == [existing]


def test_after_a_mistake_the_current_folder_stays(commands):
    assert commands.bnexp(*QUICK, "epochs=0", "hydra.run.dir=.").code == 2
    assert Path.cwd() == commands.folder
    assert contents(str(commands.folder)) == {}


def test_a_run_that_was_killed_before_its_first_summary_starts_again(commands):
    assert commands.bnexp(*QUICK, "hydra.run.dir=run").code == 0
    for path in Path("run").iterdir():
        if path.name not in (".hydra", ".lock", "train.log"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    Path("run/.summary.json.1234.part").write_text("")
    assert commands.bnexp(*QUICK, "hydra.run.dir=run").code == 0
    assert commands.summary()["status"] == "finished"


FOREIGN_SWEEP_FILES = {
    "a report": {"report.html": "my report"},
    "another Hydra project's sweep": {"multirun.yaml": "hydra: {}", "0/train.log": "done"},
    "a run of another program": {"first/summary.json": "{}"},
}


@pytest.mark.parametrize("folder", [".", "other"])
@pytest.mark.parametrize("name", FOREIGN_SWEEP_FILES)
def test_a_folder_that_holds_no_sweep_of_bnexp_is_refused_and_unchanged(commands, name, folder):
    files = write_files(FOREIGN_SWEEP_FILES[name], folder)
    result = commands.bnexp("-m", *QUICK, f"hydra.sweep.dir={folder}")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"bnexp: hydra.sweep.dir={folder}: holds files but no sweep of bnexp; choose another folder\n"
    )
    assert contents(folder) == files


def test_a_sweep_may_join_runs_and_sweeps_of_bnexp(commands):
    assert commands.bnexp(*QUICK, "seed=5", "hydra.run.dir=sweep/first").code == 0
    for seeds in ("seed=0", "seed=0,1"):
        assert commands.bnexp("-m", *QUICK, seeds, "hydra.sweep.dir=sweep").code == 0
    Path("sweep/multirun.yaml").write_text("")  # as a kill can leave it
    assert commands.bnexp("-m", *QUICK, "seed=0", "hydra.sweep.dir=sweep").code == 0
    assert len(commands.runs()) == 3
