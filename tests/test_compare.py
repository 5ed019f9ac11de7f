"""bnexp-compare as a user meets it: whatever lies in the folders, a line says so and the rest is compared."""

import json

import pytest

from helpers.run_folders import HEADER, write_run, write_sweep

GROUPS = {"none": [97.0, 97.2, 96.9], "batch": [98.0, 98.1, 98.0]}


def test_it_compares_and_writes(commands):
    write_sweep(commands.folder / "sweep", GROUPS)
    done = commands.compare("sweep", "--output", "out")
    assert (done.code, done.err) == (0, "")
    assert "batch was ahead of none in 3 of 3 seeds" in done.out
    assert done.out.rstrip().endswith("out/report.html")
    again = commands.compare("sweep", "--output", "out")
    assert again.code == 0
    assert "Look 2" not in again.out  # the same runs, not a new look


def test_folders_may_overlap_and_mix(commands):
    write_sweep(commands.folder / "a", {"none": [97.0, 97.2, 96.9]})
    write_sweep(commands.folder / "b", {"batch": [98.0, 98.1, 98.0]})
    done = commands.compare("a", "b", "a/model.norm=none,seed=0", ".")
    assert done.err == ""
    assert "3 paired seeds" in done.out


def damage_summary(run):
    (run / "summary.json").write_text('{"status": "finis')


def damage_config(run):
    (run / ".hydra" / "config.yaml").write_text("a: [")


def execute(run):
    (run / ".hydra" / "config.yaml").write_text("!!python/object/apply:os.system ['touch owned']")


def bomb(run):
    (run / ".hydra" / "config.yaml").write_text("a: &a [1, 1]\nb: [*a, *a]\n")


def remove_config(run):
    (run / ".hydra" / "config.yaml").unlink()


def remove_summary(run):
    (run / "summary.json").unlink()


def write_summary(run, **values):
    summary = json.loads((run / "summary.json").read_text()) | values
    (run / "summary.json").write_text(json.dumps(summary))


BAD = {
    "summary cut": (damage_summary, "summary.json: damaged"),
    "no summary": (remove_summary, "no summary.json"),
    "configuration cut": (damage_config, ".hydra/config.yaml: damaged"),
    "configuration that runs code": (execute, ".hydra/config.yaml: damaged"),
    "configuration with aliases": (bomb, "YAML aliases"),
    "no configuration": (remove_config, ".hydra/config.yaml: No such file"),
    "running": (lambda run: write_summary(run, status="running"), "still being written, or killed"),
    "failed": (
        lambda run: write_summary(run, status="failed", error="out of memory"),
        "failed: out of memory",
    ),
    "interrupted": (lambda run: write_summary(run, status="interrupted"), "interrupted"),
    "edited status": (lambda run: write_summary(run, status="done"), "status 'done'"),
    "edited words": (lambda run: write_summary(run, final={"test/accuracy": "high"}), "'high' is no number"),
    "edited per cent": (lambda run: write_summary(run, final={"test/accuracy": 97.5}), "lies outside 0 to 1"),
    "a list": (lambda run: (run / "summary.json").write_text("[]"), "damaged (no status in it)"),
    "metric missing": (lambda run: write_summary(run, final={"train/loss": 0.1}), "no test/accuracy among"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_run_is_named_and_the_others_compared(commands, name):
    spoil, words = BAD[name]
    write_sweep(commands.folder / "sweep", GROUPS)
    run = write_run(commands.folder / "sweep", 0.981, model_norm="batch", seed=3)
    spoil(run)
    done = commands.compare("sweep")
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert line.startswith("bnexp: sweep/model.norm=batch,seed=3: ")
    assert words in line
    assert line.endswith("; not compared")
    assert "3 paired seeds" in done.out
    assert not (commands.folder / "owned").exists()


CURVES = {
    "cut": (lambda text: text[:-30], "line 4 cannot be read; its curves end before it"),
    "edited": (lambda text: text.replace(",0.1,0.96", ",0.1,0.5"), ""),
    "edited at the end": (lambda text: text.replace("0.98", "0.99"), "disagree about the last epoch"),
    "words": (lambda text: text.replace("1000", "fast", 1), "line 2 cannot be read"),
    "headless": (lambda text: "\n".join(text.splitlines()[1:]), "no header"),
    "empty": (lambda text: "", "no header"),
    "header alone": (lambda text: HEADER + "\n", ""),
}


@pytest.mark.parametrize("name", CURVES)
def test_damaged_curves_are_named_and_the_run_is_compared(commands, name):
    spoil, words = CURVES[name]
    write_sweep(commands.folder / "sweep", GROUPS)
    path = commands.folder / "sweep" / "model.norm=batch,seed=0" / "metrics.csv"
    path.write_text(spoil(path.read_text()))
    done = commands.compare("sweep", "--output", "out")
    assert done.code == 0
    assert "3 paired seeds" in done.out
    if words:
        (line,) = done.err.splitlines()
        assert words in line
        assert "not compared" not in line
    else:
        assert done.err == ""


def test_curves_that_are_missing(commands):
    for path in write_sweep(commands.folder / "sweep", GROUPS).rglob("metrics.csv"):
        path.unlink()
    done = commands.compare("sweep", "--output", "out")
    assert done.code == 0
    assert done.err.count("metrics.csv: No such file or directory") == 6


def test_folders_without_runs_are_named(commands):
    write_sweep(commands.folder / "sweep", GROUPS)
    (commands.folder / "empty").mkdir()
    (commands.folder / "other").mkdir()
    (commands.folder / "other" / "notes.txt").write_text("nothing")
    done = commands.compare("empty", "other", "gone", "sweep")
    assert done.code == 0
    assert done.err.splitlines() == [
        "bnexp: empty: no run in this folder; not compared",
        "bnexp: other: no run in this folder; not compared",
        "bnexp: gone: no such folder; not compared",
    ]


def test_one_run_and_two_data_sets(commands):
    write_run(commands.folder / "one", 0.97, seed=0)
    assert "A single run: nothing to compare it with, no verdict." in commands.compare("one").out
    write_run(commands.folder / "two", 0.97, seed=0, dataset_name="digits")
    done = commands.compare("one", "two")
    assert done.code == 0
    assert "nothing but the data set differs" in done.out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["gone"], "bnexp: no finished run to compare"),
        (["sweep", "--by", "norn"], "bnexp: --by=norn: must be one of model.norm"),
        (
            ["sweep", "--metric", "accuracy"],
            "bnexp: --metric=accuracy: must be one of test/accuracy, test/loss",
        ),
        (["sweep", "--baseline", "nome"], "did you mean none?"),
        (["sweep", "--target", "97"], "bnexp: --target=97: must be above 0 and at most 1"),
        (["sweep", "--delta", "0"], "bnexp: --delta=0: must be above 0"),
        (["sweep", "--delta", "x"], "bnexp: argument --delta: invalid float value: 'x'"),
        (["sweep", "--colour"], "bnexp: unrecognized arguments: --colour"),
        ([], "bnexp: the following arguments are required: DIR"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(commands, words, line):
    write_sweep(commands.folder / "sweep", GROUPS)
    done = commands.compare(*words)
    assert done.code == 2
    assert line in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert "usage" not in done.err


def test_help(commands):
    done = commands.compare("--help")
    assert done.code == 0
    assert "--baseline NAME" in done.out
