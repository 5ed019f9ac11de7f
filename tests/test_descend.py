"""The command bnexp-descend: the exact values of the tutorials, its files, its mistakes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from bnexp.cli.help import help_text
from bnexp.cli.hydra_commands import DESCEND
from bnexp.list_results import list_entries

QUIET = "tracking.tensorboard=false"


def points(folder):
    """The coordinates of each row of path.csv."""
    with (folder / "path.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    return [[float(cell) for cell in row[6:]] for row in rows[1:]]


# Computed with 50 digits from the formulas of the functions and their derivatives, without this package:
# x^2 multiplies x by 1 - 2 lr, the ellipse x1 by 0.8 and x2 by 0.6.
EXACT_VALUES = [
    ("function=square start=10 steps=10 optimizer.lr=0.2", [0.060466176], 1e-12),
    ("function=square start=10 steps=10 optimizer.lr=0.05", [3.486784401], 1e-9),
    ("function=square start=10 steps=10 optimizer.lr=1.1", [61.91736422], 1e-7),
    ("function=ellipse start=[-5,-2] steps=20 optimizer.lr=0.1", [-0.05764607523, -7.31231688e-5], 1e-11),
    ("function=cosh start=10 steps=10 optimizer=newton", [0.0], 1e-9),
    ("function=wave start=10 steps=10 optimizer=newton", [26.8341329132], 1e-9),
    ("function=wave start=10 steps=10 optimizer=newton optimizer.lr=0.5", [7.26986016868], 1e-10),
]


@pytest.mark.parametrize(
    ("arguments", "expected", "tolerance"), EXACT_VALUES, ids=[v[0] for v in EXACT_VALUES]
)
def test_the_exact_values_of_the_tutorials(commands, arguments, expected, tolerance):
    result = commands.descend(*arguments.split(), QUIET, "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    assert points(commands.folder / "run")[-1] == pytest.approx(expected, abs=tolerance)


def test_a_descent_leaves_a_folder_with_its_path_picture_and_events(commands):
    result = commands.descend("optimizer=newton", "seed=3")
    assert result.code == 0
    assert "converged to a minimum: within 0.001 of its value from step 1 on" in result.out
    (folder,) = commands.runs()
    names = {path.name.split(".vm.")[0] for path in folder.iterdir()}
    assert {"summary.json", "path.csv", "path.png", "path.svg", "environment.json", ".hydra"} <= names
    assert {path.name for path in (folder / ".hydra").iterdir()} == {
        "config.yaml", "hydra.yaml", "overrides.yaml"
    }  # fmt: skip
    assert "ellipse-newton" in folder.name
    assert os.path.samefile(commands.folder / "outputs" / "latest", folder)
    summary = commands.summary()
    assert (summary["kind"], summary["status"], summary["seed"]) == ("descent", "finished", 3)
    assert summary["result"]["state"] == "converged"
    assert summary["result"]["point"] == {"x1": 0, "x2": 0}
    assert summary["result"]["distance"] == summary["result"]["gradient_norm"] == 0
    assert points(folder)[:2] == [[-5, -2], [0, 0]]


def test_tensorboard_gets_every_step(commands):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    commands.descend("steps=7", "hydra.run.dir=run")
    events = EventAccumulator(str(commands.folder / "run")).Reload()
    assert [event.step for event in events.Scalars("value")] == list(range(8))
    assert events.Scalars("value")[0].value == 33
    assert {"gradient_norm", "lr", "point/x1", "point/x2"} <= set(events.Tags()["scalars"])


def test_several_descents_are_ranked_and_drawn_in_one_picture(commands):
    result = commands.descend(
        "-m", "optimizer=sgd,momentum,adam,newton", "optimizer.lr=0.1,1", "steps=50", QUIET
    )
    assert (result.code, result.err) == (0, "")
    (sweep,) = (commands.folder / "outputs" / "multirun").glob("*/*")
    assert "ellipse-optimizer-lr" in sweep.name
    assert {path.name for path in sweep.iterdir() if path.is_file()} == {
        "paths.png", "paths.svg", "ranking.csv", "summary.json"
    }  # fmt: skip
    with (sweep / "ranking.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["descent"] == "optimizer=newton lr=1"
    assert rows[-1]["state"] == "diverges"
    steps = [int(row["steps_to_tolerance"]) for row in rows if row["steps_to_tolerance"]]
    assert steps == sorted(steps)
    assert {row["folder"] for row in rows} == {path.name for path in sweep.iterdir() if path.is_dir()}
    lines = result.out.splitlines()
    assert lines[2].startswith("1  optimizer=newton lr=1 ")
    assert lines[-1] == os.path.relpath(sweep / "paths.png")
    assert json.loads((sweep / "summary.json").read_text())["descents"] == 8
    assert (sweep / "0-optimizer=sgd,optimizer.lr=0.1" / "path.csv").is_file()


def test_axes_of_lists_ranges_and_globs(commands):
    result = commands.descend(
        "-m", "start=[1,1],[2,2]", "steps=range(2,4)", "optimizer=glob(sg*)", QUIET, "hydra.sweep.dir=sweep"
    )
    assert (result.code, result.err) == (0, "")
    folders = sorted(path.name for path in (commands.folder / "sweep").iterdir() if path.is_dir())
    assert folders == [
        "0-start=_1,1_,steps=2", "1-start=_1,1_,steps=3", "2-start=_2,2_,steps=2", "3-start=_2,2_,steps=3"
    ]  # fmt: skip
    assert "start=[2,2] steps=3" in result.out


def test_functions_of_a_sweep_have_a_picture_each_and_keys_of_their_own(commands):
    result = commands.descend(
        "-m", "function=cosh,wave", "function.c=0.3,0.5", QUIET, "hydra.sweep.dir=sweep"
    )
    assert result.code == 0
    pictures = sorted(path.name for path in (commands.folder / "sweep").glob("*.png"))
    assert pictures == [f"paths-{i}.png" for i in range(1, 5)]


def test_a_descent_that_cannot_step_does_not_stop_the_others(commands):
    result = commands.descend(
        "-m", "function=cubic", "start=0,1", "optimizer=newton", QUIET, "hydra.sweep.dir=s"
    )
    assert result.code == 1
    assert result.err.startswith("bnexp: start=0: optimizer=newton: the Hessian is singular here")
    assert "converged to a flat point" in result.out
    assert (
        json.loads((commands.folder / "s" / "0-start=0" / "summary.json").read_text())["status"] == "failed"
    )


def test_regression_on_a_table_with_tabs(commands):
    rows = ["\t".join(map(str, (i, i % 3, 2 * i + (i % 3) + 0.1 * (i % 5)))) for i in range(40)]
    (commands.folder / "table.dat").write_text("\n".join(rows))
    result = commands.descend(
        "function=regression",
        "function.table=table.dat",
        "function.rows=30",
        "batch_size=10",
        "epochs=4",
        QUIET,
    )
    assert result.code == 0
    assert "by hand, with numpy" in result.out
    result = commands.summary()["result"]
    assert result["by_hand_difference"] < 1e-12
    assert set(result["point"]) == {"x1", "x2", "bias"}


FUNCTIONS = """
import torch
def bowl(x1, x2): return (x1 - 1) ** 2 + 3 * (x2 + 1) ** 2
def scaled(x, a: float): return a * x**2
def logarithm(x): return torch.log(x)
def detached(x): return x.detach() ** 2
def fails(x): raise KeyError("no")
def number(x): return 3.0
def line(x): return 2 * x
"""


@pytest.fixture
def own(commands):
    (commands.folder / "myfunctions.py").write_text(FUNCTIONS)
    yield commands
    sys.modules.pop("myfunctions", None)
    while str(commands.folder) in sys.path:
        sys.path.remove(str(commands.folder))


def custom(name):
    return ("function=custom", f"function._target_=myfunctions.{name}")


def test_a_function_of_the_users_own(own):
    assert own.descend(*custom("bowl"), "start=[4,4]", "steps=60", QUIET, "hydra.run.dir=run").code == 0
    assert points(own.folder / "run")[-1] == pytest.approx([1, -1], abs=1e-4)
    assert own.summary()["fingerprints"].keys() == {"function"}
    assert own.descend(*custom("scaled"), "start=4", "+function.a=2", QUIET, "hydra.run.dir=a").code == 0


MISTAKES = [
    ("noise=-1", "noise=-1: must be a number, at least 0"),
    ("steps=0", "steps=0: must be a whole number, at least 1"),
    ("tolerance=0", "tolerance=0: must be a number, above 0"),
    ("start=[1]", "start=[1.0]: must have 2 numbers, for x1, x2"),
    ("function=square start=[1,2]", "start=[1.0, 2.0]: must have 1 number, for x"),
    ("start=[1,nan]", "start[1]=nan: must be a number"),
    ("start=[]", "start=[]: must have a number for each variable"),
    ("batch_size=10", "batch_size=10: only function=regression has examples"),
    ("epochs=2", "epochs=2: only function=regression has examples"),
    ("function=elipse", "did you mean ellipse?"),
    ("optimizer=newtn", "did you mean newton?"),
    ("optimizer=rmsprop", "optimizer=custom optimizer._target_=torch.optim.RMSprop takes torch's"),
    ("lr=0.1", "lr: unknown key; did you mean optimizer.lr?"),
    ("model=conv", "model: unknown key; keys are: batch_size, epochs, function"),
    ("function.c=2", "function.c: unknown key"),
    ("optimizer=sgd,adam", "several values are a sweep (add -m)"),
    ("ellipse", "ellipse: write function=ellipse"),
    ("scheduler=plateau scheduler.monitor=val/accuracy", "a function has no accuracy"),
    ("-m steps=5,0", "steps=0: must be a whole number"),
    ("-m optimizer=sgd,adamm", "did you mean adam?"),
    ("optimizer=newton function=cubic start=0", "the Hessian is singular here, with the eigenvalue 0"),
    ("optimizer=preconditioned function=cubic start=0", "singular here, with the eigenvalue 0"),
    ("-m optimizer=newton,preconditioned function=cubic start=0", "the Hessian is singular here"),
    ("function=regression function.table=none.csv", "function.table=none.csv: cannot be read"),
    ("function=regression function.rows=1", "has one row"),
    ("function=custom", "function._target_: give the class or function to call"),
    ("function=custom function._target_=myfunctions.bowl", "start: this key needs a value"),
    (
        "function=custom function._target_=myfunctions.logarithm start=-1",
        "the function's value is not finite",
    ),
    ("function=custom function._target_=myfunctions.scaled start=1", "set: +function.a=..."),
    ("function=custom function._target_=myfunctions.detached start=1", "so it has no gradient"),
    ("function=custom function._target_=myfunctions.number start=1", "must return a tensor with one number"),
    (
        "function=custom function._target_=myfunctions.fails start=1",
        "fails at 1 (KeyError: 'no'; myfunctions.py, line 7)",
    ),
    ("function=custom function._target_=myfunctions.line start=1 optimizer=newton", "the eigenvalue 0"),
    ("--config-dir nowhere", "--config-dir nowhere: there is no such folder"),
    ("--config-name other", "--config-name: bnexp-descend does not take this flag"),
    ("--steps 5", "--steps: unrecognized arguments; keys have no dashes: steps=... (bnexp-descend --help"),
    ("hydra.mode=MULTIRUN", "hydra.mode: bnexp-descend takes only hydra.run.dir, hydra.sweep.dir"),
    ("-m steps=1,2 hydra/launcher=ray", "hydra/launcher: bnexp-descend takes only hydra.run.dir"),
    ("-m optimizer.lr=interval(0,1)", "an axis is a list of values, as in a,b or range(5)"),
    ("name=a/b", "name='a/b': must be one line without /"),
    ("hydra.run.dir=myfunctions.py", "hydra.run.dir=myfunctions.py: must name a folder"),
    ("hydra.run.dir=.", "hydra.run.dir=.: holds files; choose another folder"),
    ("-m steps=1,2 hydra.sweep.dir=.", "hydra.sweep.dir=.: holds files; choose another folder"),
]


@pytest.mark.parametrize(("arguments", "line"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_no_folder(own, arguments, line):
    result = own.descend(*arguments.split())
    assert result.code == 2
    assert line in result.err
    assert len(result.err.splitlines()) == 1
    assert result.out == ""
    assert {path.name for path in own.folder.iterdir()} <= {"myfunctions.py", "__pycache__"}


@pytest.mark.parametrize("optimizer", ["newton", "preconditioned"])
def test_training_does_not_know_the_optimizers_of_descent(commands, optimizer):
    result = commands.bnexp(f"optimizer={optimizer}")
    assert result.code == 2
    assert result.err.startswith(
        f"bnexp: optimizer={optimizer}: must be one of adam, adamw, custom, momentum"
    )


def test_training_takes_the_scheduler_inverse_sqrt(commands):
    quick = ("epochs=3", "dataset.train_size=100", "dataset.test_size=50", QUIET)
    assert commands.bnexp(*quick, "scheduler=inverse_sqrt", "hydra.run.dir=run").code == 0
    with (commands.folder / "run" / "metrics.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.1, 0.1 * 1.1**-0.5, 0.1 * 1.2**-0.5])


def test_a_folder_of_your_own_choices(own):
    folder = own.folder / "conf" / "function"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\n# mine\nstart: [2, 2]\nfunction:\n  _target_: myfunctions.bowl\n"
    )
    result = own.descend("--config-dir", "conf", "function=mine", QUIET, "hydra.run.dir=run")
    assert result.code == 0
    assert points(own.folder / "run")[0] == [2, 2]
    assert "did you mean mine?" in own.descend("--config-dir", "conf", "function=min").err


def test_the_help_has_every_key_and_choice_and_no_key_of_hydra(commands):
    result = commands.descend("--help")
    assert result.code == 0
    text = help_text(DESCEND)
    assert result.out.strip() == text.strip()
    assert max(map(len, text.splitlines())) <= 100
    assert "  hydra." not in text
    for key in (
        "start",
        "steps",
        "noise",
        "tolerance",
        "batch_size",
        "epochs",
        "function.c",
        "function.table",
    ):
        assert f"  {key}=" in text
    for group in DESCEND.groups:
        for name in DESCEND.choices(group):
            assert name in text


EXAMPLES = [
    line.split("  ")[0] for line in re.findall(r"^  bnexp-descend(.*)$", DESCEND.examples, re.MULTILINE)
]


@pytest.mark.parametrize("arguments", EXAMPLES)
def test_the_examples_of_the_help_run(commands, arguments):
    result = commands.descend(*arguments.split(), QUIET)
    assert (result.code, result.err) == (0, "")


def test_the_configuration_is_printed_and_nothing_is_run(commands):
    result = commands.descend("--cfg", "job", "function=wave", "optimizer=newton")
    assert result.code == 0
    assert "c: 0.47123889803846897" in result.out
    assert not list(commands.folder.iterdir())


def test_the_other_commands_say_in_one_line_what_a_descent_is(commands):
    assert commands.descend(QUIET, "hydra.run.dir=out/single").code == 0
    assert commands.descend("-m", "optimizer=sgd,newton", QUIET, "hydra.sweep.dir=out/several").code == 0
    for folder in ("out/single", "out/several"):
        for command in (commands.resume, commands.eval, commands.compare):
            result = command(folder)
            assert result.code != 0
            assert result.err.splitlines()[0].startswith(
                f"bnexp: {folder}: a descent of bnexp-descend, which trains no network"
            )
    entries = {entry.name: entry for entry in list_entries(commands.folder / "out")}
    assert entries["single"].result.startswith("has not converged after 20 steps")
    assert (entries["several"].progress, entries["several"].result) == (
        "2 descents", "ellipse: optimizer=newton is first",
    )  # fmt: skip


def test_compare_passes_over_descents_among_runs(commands):
    quick = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50", QUIET)
    assert commands.bnexp(*quick, "hydra.run.dir=out/run").code == 0
    assert commands.descend(QUIET, "hydra.run.dir=out/descent").code == 0
    result = commands.compare("out")
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_descent_and_saves_its_path(tmp_path, number, code):
    command = [sys.executable, "-m", "bnexp.descend", "function=regression", "batch_size=1", "epochs=1000000"]
    script = tmp_path / "slow.py"  # tells when the first step is taken
    script.write_text(
        "import pathlib, torch\n"
        "class Slow(torch.optim.SGD):\n"
        "    def step(self, closure):\n"
        "        pathlib.Path('started').touch()\n"
        "        return super().step(closure)\n"
    )
    command += [
        "optimizer=custom",
        "optimizer._target_=slow.Slow",
        "+optimizer.lr=0.001",
        QUIET,
        "hydra.run.dir=run",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert err.strip() == f"bnexp: interrupted ({signal.Signals(number).name})"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    assert len(points(tmp_path / "run")) >= 2
