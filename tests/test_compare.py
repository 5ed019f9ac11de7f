"""bnexp-compare on the command line: one line for each damaged folder, and all other runs are compared."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

import bnexp
from helpers.run_folders import HEADER, write_run, write_sweep

GROUPS = {"none": [97.0, 97.2, 96.9], "batch": [98.0, 98.1, 98.0]}


@pytest.mark.pictures
def test_runs_are_compared_and_the_report_is_written(commands):
    write_sweep(commands.folder / "sweep", GROUPS)
    first = commands.compare("sweep", "--output", "out")
    assert (first.code, first.err) == (0, "")
    assert "batch was ahead of none in 3 of 3 seeds" in first.out
    assert first.out.rstrip().endswith("out/report.html")
    second = commands.compare("sweep", "--output", "out")
    assert second.code == 0
    assert "Look 2" not in second.out  # the same runs are no new look


@pytest.mark.pictures
@pytest.mark.parametrize("name", ["report.html", "comparison.json", "comparison.csv", "forest.png"])
def test_a_file_that_bnexp_did_not_write_is_not_replaced(commands, name):
    write_sweep(commands.folder / "sweep", GROUPS)
    (commands.folder / "out").mkdir()
    (commands.folder / "out" / name).write_text("{}")
    result = commands.compare("sweep", "--output", "out")
    assert result.code == 2
    assert result.err == f"bnexp: out/{name}: not written by bnexp; choose another folder\n"
    assert {path.name: path.read_text() for path in (commands.folder / "out").iterdir()} == {name: "{}"}


def test_overlapping_folders_count_each_run_once(commands):
    write_sweep(commands.folder / "a", {"none": [97.0, 97.2, 96.9]})
    write_sweep(commands.folder / "b", {"batch": [98.0, 98.1, 98.0]})
    result = commands.compare("a", "b", "a/model.norm=none,seed=0", ".")
    assert result.err == ""
    assert "3 paired seeds" in result.out


@pytest.mark.parametrize("kind", ["sweep", "run"])
def test_the_folder_of_another_sweep_or_run_gets_no_report(commands, kind):
    write_sweep(commands.folder / "sweep", GROUPS)
    other = write_sweep(commands.folder / "other", GROUPS)
    if kind == "run":
        other = next(other.iterdir())
    else:
        (other / "multirun.yaml").touch()
    files = sorted(other.rglob("*"))
    result = commands.compare("sweep", "--output", str(other))
    assert (result.code, result.out) == (2, "")
    reason = f"holds a {kind} that is not compared; choose another folder"
    assert result.err == f"bnexp: --output={other}: {reason}\n"
    inside = commands.compare("sweep", "--output", str(other / "means"))
    assert (inside.code, inside.out) == (2, "")
    assert f"--output={other}/means: lies in a {kind} that is not compared" in inside.err
    assert sorted(other.rglob("*")) == files
    assert commands.compare("other", "--output", "other").code == 0


def test_a_copy_of_a_run_is_counted_once(commands):
    sweep = write_sweep(commands.folder / "sweep", GROUPS)
    for number, run in enumerate(sweep.iterdir()):
        (run / "environment.json").write_text(json.dumps({"started": f"2026-11-27T05:00:0{number}+00:00"}))
    shutil.copytree(run, sweep / "backup")
    result = commands.compare("sweep")
    line = f"bnexp: sweep/{run.name}: a copy of sweep/backup, counted once\n"
    assert (result.code, result.err) == (0, line)
    assert "3 paired seeds" in result.out
    opened = bnexp.open_sweep("sweep")
    assert (len(opened), len(opened.problems)) == (6, 1)


def test_a_folder_that_may_not_be_read_is_told(commands, monkeypatch):
    sweep = write_sweep(commands.folder / "sweep", GROUPS)
    locked = sweep / "model.norm=none,seed=0"

    def deny(function):
        def call(path, *args, **options):
            if str(path).startswith(str(locked.relative_to(commands.folder))):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *args, **options)

        return call

    monkeypatch.setattr(os, "scandir", deny(os.scandir))
    monkeypatch.setattr(os, "stat", deny(os.stat))
    result = commands.compare("sweep")
    assert result.code == 0
    assert (
        result.err
        == "bnexp: sweep/model.norm=none,seed=0: cannot be read (Permission denied); not compared\n"
    )


def truncate_summary(run):
    (run / "summary.json").write_text('{"status": "finis')


def truncate_config(run):
    (run / ".hydra" / "config.yaml").write_text("a: [")


def put_code_in_config(run):
    (run / ".hydra" / "config.yaml").write_text("!!python/object/apply:os.system ['touch executed']")


def put_aliases_in_config(run):
    (run / ".hydra" / "config.yaml").write_text("a: &a [1, 1]\nb: [*a, *a]\n")


def remove_config(run):
    (run / ".hydra" / "config.yaml").unlink()


def remove_summary(run):
    (run / "summary.json").unlink()


def change_summary(run, **values):
    summary = json.loads((run / "summary.json").read_text()) | values
    (run / "summary.json").write_text(json.dumps(summary))


DAMAGES = {
    "summary cut": (truncate_summary, "summary.json: damaged"),
    "no summary": (remove_summary, "no summary.json"),
    "configuration cut": (truncate_config, ".hydra/config.yaml: damaged"),
    "configuration that runs code": (put_code_in_config, ".hydra/config.yaml: damaged"),
    "configuration with aliases": (put_aliases_in_config, "YAML aliases"),
    "no configuration": (remove_config, ".hydra/config.yaml: No such file"),
    "running": (lambda run: change_summary(run, status="running"), "still being written, or killed"),
    "failed": (
        lambda run: change_summary(run, status="failed", error="out of memory"),
        "failed: out of memory",
    ),
    "interrupted": (lambda run: change_summary(run, status="interrupted"), "interrupted"),
    "edited status": (lambda run: change_summary(run, status="done"), "status 'done'"),
    "edited words": (lambda run: change_summary(run, final={"test/accuracy": "high"}), "'high' is no number"),
    "edited per cent": (
        lambda run: change_summary(run, final={"test/accuracy": 97.5}),
        "lies outside 0 to 1",
    ),
    "a list": (lambda run: (run / "summary.json").write_text("[]"), "damaged (no status in it)"),
    "no results": (lambda run: change_summary(run, final=None), "finished, but without results"),
    "empty results": (lambda run: change_summary(run, final={}), "finished, but without results (final is"),
    "metric missing": (lambda run: change_summary(run, final={"train/loss": 0.1}), "no test/accuracy among"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_named_and_the_others_are_compared(commands, name):
    damage, message = DAMAGES[name]
    write_sweep(commands.folder / "sweep", GROUPS)
    run = write_run(commands.folder / "sweep", 0.981, model_norm="batch", seed=3)
    damage(run)
    result = commands.compare("sweep")
    assert result.code == 0
    (line,) = result.err.splitlines()
    assert line.startswith("bnexp: sweep/model.norm=batch,seed=3: ")
    assert message in line
    assert line.endswith("; not compared")
    assert "3 paired seeds" in result.out
    assert not (commands.folder / "executed").exists()


CURVE_DAMAGES = {
    "cut": (lambda text: text[:-30], "line 4 cannot be read; its curves end before it"),
    "edited": (lambda text: text.replace(",0.1,0.96", ",0.1,0.5"), ""),
    "edited at the end": (lambda text: text.replace("0.98", "0.99"), "disagree about the last epoch"),
    "words": (lambda text: text.replace("1000", "fast", 1), "line 2 cannot be read"),
    "headless": (lambda text: "\n".join(text.splitlines()[1:]), "no header"),
    "empty": (lambda text: "", "no header"),
    "endless cell": (lambda text: text + "9" * 200_000, "field larger than field limit"),
    "header alone": (lambda text: HEADER + "\n", ""),
}


@pytest.mark.parametrize("name", CURVE_DAMAGES)
def test_damaged_curves_are_named_and_the_run_is_compared(commands, name):
    damage, message = CURVE_DAMAGES[name]
    write_sweep(commands.folder / "sweep", GROUPS)
    path = commands.folder / "sweep" / "model.norm=batch,seed=0" / "metrics.csv"
    path.write_text(damage(path.read_text()))
    result = commands.compare("sweep", "--output", "out")
    assert result.code == 0
    assert "3 paired seeds" in result.out
    if message:
        (line,) = result.err.splitlines()
        assert message in line
        assert "not compared" not in line
    else:
        assert result.err == ""


def test_missing_curves_are_named_and_the_runs_are_compared(commands):
    for path in write_sweep(commands.folder / "sweep", GROUPS).rglob("metrics.csv"):
        path.unlink()
    result = commands.compare("sweep", "--output", "out")
    assert result.code == 0
    assert result.err.count("metrics.csv: No such file or directory") == 6


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("absent", "no such folder"),
        ("swee*", "no such folder"),
        ("empty", "no run in this folder"),
        ("other", "no run in this folder"),
        ("descent", "a descent of bnexp-descend, which trains no network"),
    ],
)
def test_an_argument_without_runs_is_refused_beside_others(commands, argument, reason):
    write_sweep(commands.folder / "sweep", GROUPS)
    for folder in ("empty", "other", "descent"):
        (commands.folder / folder).mkdir()
    (commands.folder / "other" / "notes.txt").write_text("nothing")
    (commands.folder / "descent" / "summary.json").write_text('{"kind": "descent", "status": "finished"}')
    for folders in ((argument, "sweep"), ("sweep", argument), (argument,)):
        result = commands.compare(*folders, "--output", "out", "--metric", "test/loss")
        assert (result.code, result.out, result.err) == (2, "", f"bnexp: {argument}: {reason}\n")
    assert not Path("out").exists()


def test_runs_without_results_have_not_diverged(commands):
    for path in write_sweep(commands.folder / "sweep", GROUPS).rglob("summary.json"):
        change_summary(path.parent, final={})
    result = commands.compare("sweep")
    assert result.code == 2
    assert result.err.count("finished, but without results") == 6
    assert result.err.splitlines()[-1] == "bnexp: no finished run to compare"


def test_a_seed_that_is_an_interpolation_is_read_from_the_summary(commands):
    write_sweep(commands.folder / "sweep", GROUPS)
    for path in (commands.folder / "sweep").rglob("config.yaml"):
        path.write_text(re.sub(r"(?m)^seed: .*", "seed: ${epochs}", path.read_text()))
    result = commands.compare("sweep")
    assert (result.code, result.err) == (0, "")
    assert "3 paired seeds" in result.out


def test_one_run_or_two_data_sets_are_nothing_to_compare(commands):
    write_run(commands.folder / "one", 0.97, seed=0)
    assert "A single run: nothing to compare it with, no verdict." in commands.compare("one").out
    write_run(commands.folder / "two", 0.97, seed=0, dataset_name="digits")
    result = commands.compare("one", "two")
    assert result.code == 0
    assert "nothing but the data set differs" in result.out


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["absent"], "bnexp: absent: no such folder"),
        (["sweep", "--by", "norn"], "bnexp: --by=norn: must be one of model.norm"),
        (
            ["sweep", "--metric", "accuracy"],
            "bnexp: --metric=accuracy: must be one of test/accuracy, test/loss",
        ),
        (["sweep", "--baseline", "nome"], "did you mean none?"),
        (["sweep", "--target", "97"], "bnexp: --target=97: must be above 0 and at most 1"),
        (["sweep", "--delta", "0"], "bnexp: --delta=0: must be above 0"),
        (["sweep", "--delta", "x"], "bnexp: --delta: invalid float value: 'x'"),
        (["sweep", "--delta", "inf"], "bnexp: --delta=inf: must be above 0 and at most 100"),
        (["sweep", "--output", ""], "bnexp: --output: '' must name a file or folder"),
        ([""], "bnexp: DIR: '' must name a file or folder"),
        (["sweep", "--colour"], "bnexp: unrecognized arguments: --colour"),
        ([], "bnexp: the following arguments are required: DIR"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(commands, args, line):
    write_sweep(commands.folder / "sweep", GROUPS)
    result = commands.compare(*args)
    assert result.code == 2
    assert line in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert "usage" not in result.err


def test_help_lists_the_options(commands):
    result = commands.compare("--help")
    assert result.code == 0
    assert "--baseline NAME" in result.out


def test_the_differences_of_two_runs_are_one_line_a_key(commands):
    folder = commands.folder / "sweep"
    a = write_run(folder, 0.97, folder="a", seed=0, record={"fingerprints": {"dataset": "11aa"}})
    b = write_run(
        folder, None, folder="b", status="failed", seed=1, model_norm="batch", model_hidden=[50, 20]
    )
    (b / "summary.json").unlink()  # a run that never got that far
    for run, torch, threads in ((a, "2.14.1", 1), (b, "2.14.0", 1)):
        environment = {"versions": {"torch": torch, "python": "3.11.7"}, "threads": threads, "host": run.name}
        (run / "environment.json").write_text(json.dumps(environment))
    result = commands.compare("--diff", "sweep/a", "sweep/b")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "model.hidden                  [100]   [50,20]",
        "model.norm                    none    batch",
        "seed                          0       1",
        "environment.versions.torch    2.14.1  2.14.0",
        "summary.fingerprints.dataset  11aa    (absent)",
    ]
    same = commands.compare("--diff", "sweep/a", "sweep/a")
    assert (same.code, same.out, same.err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "--diff: takes two runs, not 1: bnexp-compare --diff RUN RUN"),
        (["a", "b", "a"], "--diff: takes two runs, not 3: bnexp-compare --diff RUN RUN"),
        (["a", "."], ".: not a run but a folder of runs; --diff takes two runs, as a"),
        (["a", "nowhere"], "nowhere: no such folder"),
        (["a", "empty"], "empty: no run in this folder"),
        (["a", "no_config"], "no_config: no .hydra/config.yaml"),
        (["a", "damaged"], "damaged: .hydra/config.yaml: damaged (no keys in it)"),
        (["a", "b", "--target", "0"], "--diff: takes two runs and no other option; leave out --target"),
        (["a", "b", "--details"], "--diff: takes two runs and no other option; leave out --details"),
        (
            ["a", "b", "--metric", "test/accuracy"],
            "--diff: takes two runs and no other option; leave out --metric",
        ),
    ],
)
def test_a_wrong_use_of_diff_is_one_line(commands, arguments, message):
    for name in ("a", "b", "no_config", "damaged"):
        write_run(commands.folder, 0.97, folder=name)
    (commands.folder / "no_config" / ".hydra" / "config.yaml").unlink()
    (commands.folder / "damaged" / ".hydra" / "config.yaml").write_text("[]")
    (commands.folder / "empty").mkdir()
    result = commands.compare("--diff", *arguments)
    assert (result.code, result.out, result.err) == (2, "", f"bnexp: {message}\n")
