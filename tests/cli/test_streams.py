"""No output stream costs a result: closed, full, without a reader, or without the characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.no_pictures import NO_PICTURES
from helpers.run_folders import write_sweep

ON_POSIX = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a shell and /dev/full")
SWEEP = (
    "-m bnexp.train -m seed=0,1 epochs=1 dataset.train_size=100 dataset.test_size=50"
    " tracking.tensorboard=false hydra.sweep.dir=sweep"
)
CLOSED = "bnexp: standard output: cannot be written (it is closed)\n"
FULL = "bnexp: standard output: cannot be written (No space left on device)\n"


def shell_line(folder: Path, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash in ``folder``; in it, $PYTHON is this interpreter."""
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=folder, capture_output=True, text=True, encoding="utf-8",
        errors="replace", timeout=240, env=environment | {"PYTHON": sys.executable} | env,
    )  # fmt: skip


@ON_POSIX
@pytest.mark.parametrize(
    ("redirection", "err"),
    [
        (">&-", ""),
        ("<&- >&- 2>&-", ""),
        # Workers write to a file: these streams are the main process's alone.
        ("hydra.launcher.jobs=1 2>&-", ""),
        ("hydra.launcher.jobs=1 | head -1", ""),
        ("hydra.launcher.jobs=1 > /dev/full", FULL),
        ("hydra.launcher.jobs=1 > /dev/full 2> /dev/full", ""),
        ("hydra.launcher.jobs=1 >&- 2>&-", ""),
    ],
)
def test_a_sweep_is_trained_and_its_files_are_written(tmp_path, redirection, err):
    result = shell_line(tmp_path, f"$PYTHON {SWEEP} {redirection}", **NO_PICTURES)
    assert (result.returncode, result.stderr) == (0, err)
    summaries = [
        json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("sweep/*/summary.json")
    ]
    assert [summary["status"] for summary in summaries] == ["finished", "finished"]
    assert {"report.html", "comparison.md", "comparison.csv", "comparison.json"} <= {
        path.name for path in (tmp_path / "sweep").iterdir()
    }


@ON_POSIX
def test_a_descent_in_a_folder_that_python_reads_as_no_utf8_is_complete(tmp_path):
    folder = tmp_path / "größe"
    folder.mkdir()
    line = "$PYTHON -m bnexp.descend hydra.run.dir=run"
    result = shell_line(folder, line, LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (result.returncode, result.stderr) == (0, "")
    assert {"path.csv", "path.png", "summary.json"} <= {path.name for path in (folder / "run").iterdir()}


@ON_POSIX
@pytest.mark.parametrize(("utf8_mode", "jobs"), [("0", 2), ("1", 1)])
def test_ascii_streams_replace_what_they_cannot_show(tmp_path, utf8_mode, jobs):
    folder = tmp_path / "größe"
    folder.mkdir()
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": utf8_mode}
    sweep = f"$PYTHON {SWEEP} hydra.launcher.jobs={jobs}"
    result = shell_line(folder, sweep, **ascii_only, PYTHONCOERCECLOCALE="0")
    assert (result.returncode, result.stderr) == (0, "")
    result = shell_line(
        tmp_path,
        "$PYTHON -m bnexp.compare größe --output größe/seiten",
        **ascii_only,
        PYTHONCOERCECLOCALE="0",
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.rstrip().endswith("e/seiten/report.html")
    assert (folder / "seiten" / "report.html").exists()


@ON_POSIX
@pytest.mark.parametrize(("reader", "code"), [("| head -1", 141), ("> /dev/full", 1), (">&-", 1)])
def test_a_comparison_is_written_before_it_is_printed(tmp_path, reader, code):
    write_sweep(tmp_path / "sweep", {"none": [97.0, 97.2, 96.9], "batch": [98.0, 98.1, 98.0]})
    # The pipe's reader ends before the first line.
    reader = reader.replace("| head -1", "| true")
    result = shell_line(tmp_path, f"$PYTHON -m bnexp.compare sweep --output out {reader}")
    assert result.returncode == code
    assert result.stderr == {"> /dev/full": FULL, ">&-": CLOSED}.get(reader, "")
    assert (tmp_path / "out" / "report.html").exists()


@ON_POSIX
@pytest.mark.parametrize(
    ("command", "redirection", "err"),
    [
        ("list_results .", ">&-", CLOSED),
        ("list_results .", "> /dev/full", FULL),
        ("list_results .", ">&- 2>&-", ""),
        ("plan seed=0,1", "> /dev/full", FULL),
        ("train --help", ">&-", CLOSED),
        ("train --help", "> /dev/full", FULL),
        ("train --cfg job", ">&-", CLOSED),
        ("train --cfg job", "> /dev/full", FULL),
    ],
)
def test_a_command_that_could_print_nothing_has_failed(tmp_path, command, redirection, err):
    (tmp_path / "run").mkdir()
    result = shell_line(tmp_path, f"$PYTHON -m bnexp.{command} {redirection}")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", err)


@ON_POSIX
def test_a_plan_whose_reader_ends_early_is_no_mistake(tmp_path):
    result = shell_line(tmp_path, "$PYTHON -m bnexp.plan 'seed=range(30)' epochs=1 | true")
    assert (result.returncode, result.stderr) == (141, "")


@ON_POSIX
@pytest.mark.parametrize("redirection", ["2>&-", "2> /dev/full"])
def test_a_mistake_exits_with_2_where_its_line_cannot_be_shown(tmp_path, redirection):
    result = shell_line(tmp_path, f"$PYTHON -m bnexp.train epochs=x {redirection}")
    assert (result.returncode, result.stdout, result.stderr) == (2, "", "")


@ON_POSIX
@pytest.mark.parametrize(
    ("folder", "options"), [("$'gr\\xc3\\xb6\\xc3\\x9fe'", "-X utf8=0"), ("$'gr\\xf6'", "-X utf8=1")]
)
def test_a_folder_whose_name_python_cannot_read_costs_only_the_event_file(tmp_path, folder, options):
    train = f"$PYTHON {options} -m bnexp.train epochs=1 dataset.train_size=100 dataset.test_size=50"
    line = f"mkdir {folder}; cd {folder}; {train} hydra.run.dir=run && cp run/*.json run/metrics.csv .."
    result = shell_line(tmp_path, line, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("tracking.tensorboard: no event file") == 1
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["status"] == "finished"
    assert len((tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()) == 2


NON_BLOCKING = """
import os, sys
os.set_blocking(1, False)
from bnexp.cli.streams import protect_streams
protect_streams()
print("x" * 1_000_000)
"""


@ON_POSIX
def test_a_slow_reader_of_a_non_blocking_pipe_gets_everything(tmp_path):
    (tmp_path / "write.py").write_text(NON_BLOCKING, encoding="utf-8")
    result = shell_line(tmp_path, "$PYTHON write.py | (sleep 0.5; wc -c)")
    assert (result.stdout.strip(), result.stderr) == ("1000001", "")


@ON_POSIX
def test_runs_on_a_folder_whose_name_is_no_utf8_are_compared(tmp_path):
    root = os.fsencode(tmp_path) + b"/B\xfccher"
    for label, name in enumerate((b"cat", b"dog")):
        os.makedirs(root + b"/" + name)
        for number in range(10):
            image = Image.new("L", (4, 4), 100 * label + number)
            image.save(os.fsdecode(root + b"/" + name + b"/%d.png" % number))
    line = (
        "$PYTHON -m bnexp.train -m dataset=image_folder \"dataset.root='$(printf 'B\\374cher')'\" model=mlp"
        " epochs=1 batch_size=4 model.norm=none,batch seed=0,1 hydra.sweep.dir=sweep"
    )
    result = shell_line(tmp_path, line)
    assert (result.returncode, "damaged" in result.stderr) == (0, False), result.stderr
    assert (tmp_path / "sweep" / "report.html").exists()
