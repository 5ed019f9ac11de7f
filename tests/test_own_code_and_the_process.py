"""What a user's own network does to its process costs no result, no error line and no stop signal."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

QUICK = ("dataset.train_size=100", "dataset.test_size=50", "batch_size=20", "tracking.tensorboard=false")
NET = """
import logging, logging.config, os, signal, sys
from torch import nn

STEPS = 0

def ignore(number, frame):
    pass

{at_import}

class Net(nn.Module):
    def __init__(self, image_size, num_classes):
        super().__init__()
        {in_init}
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, num_classes))

    def forward(self, images):
        global STEPS
        STEPS += self.training
        {in_forward}
        return self.layers(images)
"""


@pytest.fixture
def own_network(commands, monkeypatch):
    def write(at_import: str = "", in_init: str = "pass", in_forward: str = "pass") -> tuple[str, ...]:
        text = NET.format(at_import=at_import, in_init=in_init, in_forward=in_forward)
        Path("intruder.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(str(commands.folder))
        monkeypatch.delitem(sys.modules, "intruder", raising=False)
        return ("model=custom", "model._target_=intruder.Net", *QUICK)

    return write


LOG_CHANGES = {
    "disable": "logging.disable(logging.CRITICAL)",
    "shutdown": "logging.shutdown()",
    "force": "logging.basicConfig(force=True, level=logging.ERROR)",
    "no handlers": "logging.getLogger().handlers.clear()",
    "level": "logging.getLogger('bnexp').setLevel(100)",
    "dictConfig": "logging.config.dictConfig({'version': 1})",
}


@pytest.mark.parametrize("place", ["at_import", "in_init", "in_forward"])
@pytest.mark.parametrize("change", LOG_CHANGES)
def test_results_are_printed_and_logged_whatever_a_network_does_to_the_log(
    commands, own_network, monkeypatch, change, place
):
    monkeypatch.setattr("logging.root.manager.disable", 0)
    result = commands.bnexp(*own_network(**{place: LOG_CHANGES[change]}), "epochs=2", "hydra.run.dir=run")
    assert result.code == 0
    log = Path("run/train.log").read_text(encoding="utf-8")
    for text in (result.out, log):
        assert "epoch 2/2 | train" in text
        assert "Net-digits: test accuracy" in text


def test_a_crash_is_told_and_its_traceback_logged_where_the_log_was_disabled(commands, own_network):
    crash = "logging.disable(50); logging.getLogger().handlers.clear(); STEPS > 30 and 1 / 0"
    result = commands.bnexp(*own_network(in_forward=crash), "epochs=20", "hydra.run.dir=run")
    assert (result.code, result.err.splitlines()[0]) == (
        1,
        "bnexp: crashed: ZeroDivisionError: division by zero",
    )
    assert "in forward" in Path("run/train.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["at_import", "in_init"])
@pytest.mark.parametrize("handler", ["ignore", "signal.SIG_IGN"])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_saves_the_run_though_the_network_has_set_a_handler(
    commands, own_network, place, handler, name, code
):
    arguments = own_network(
        **{place: f"signal.signal(signal.{name}, {handler})"},
        in_forward=f"STEPS == 40 and signal.raise_signal(signal.{name})",
    )
    result = commands.bnexp(*arguments, "epochs=20", "hydra.run.dir=run")
    assert (result.code, result.err) == (code, f"bnexp: interrupted ({name})\n")
    assert f"{name}: your own code has set a handler; bnexp has taken it back" in result.out
    assert commands.summary()["status"] == "interrupted"
    assert Path("run/checkpoints/last.pt").exists()


def test_a_forward_pass_that_sets_a_handler_is_refused(commands, own_network):
    arguments = own_network(in_forward="self.training and signal.signal(signal.SIGTERM, ignore)")
    result = commands.bnexp(*arguments, "epochs=1")
    assert (result.code, result.err) == (
        2,
        "bnexp: model._target_=intruder.Net: its forward pass sets a handler of SIGTERM: the run could not be"
        " stopped and saved; take it out\n",
    )


@pytest.mark.parametrize(
    "change",
    {
        "another folder": "os.chdir('/')",
        "a folder that is removed": "os.makedirs('x', exist_ok=True); os.chdir('x'); os.rmdir('../x')",
    }.items(),
    ids=lambda item: item[0],
)
def test_the_run_is_named_from_the_folder_where_the_command_was_started(
    commands, own_network, monkeypatch, change
):
    monkeypatch.chdir(commands.folder)
    in_forward = f"STEPS == 40 and not self.training and [{', '.join(change[1].split('; '))}]"
    result = commands.bnexp(*own_network(in_forward=in_forward), "epochs=20", "hydra.run.dir=run")
    monkeypatch.chdir(commands.folder)
    assert result.code == 0
    assert result.out.splitlines()[-1].endswith("| run")


@pytest.mark.parametrize("place", ["at_import", "in_init", "in_forward"])
def test_paths_of_the_command_line_are_those_of_the_folder_where_it_was_started(
    commands, own_network, monkeypatch, place
):
    elsewhere = commands.folder / "elsewhere"
    elsewhere.mkdir()
    for part in ("train", "test"):
        for name, shade in (("dark", 0), ("bright", 200)):
            Path("images", part, name).mkdir(parents=True)
            for number in range(8):
                Image.new("L", (28, 28), shade + number).save(Path("images", part, name, f"{number}.png"))
    change = f"__import__('os').chdir({str(elsewhere)!r})"
    own_network(**{place: change})
    network = ("model=custom", "model._target_=intruder.Net", "tracking.tensorboard=false")
    data = ("dataset=image_folder", "dataset.root=images", "batch_size=4", "epochs=1")

    def run(command, *arguments):
        monkeypatch.delitem(sys.modules, "intruder", raising=False)
        monkeypatch.chdir(commands.folder)
        result = command(*arguments)
        assert result.code == 0, result.err
        return result.out

    trust = ("--trust", "intruder.Net")
    run(commands.bnexp, *network, *data, "hydra.run.dir=run")
    assert run(commands.resume, "run", "epochs=2", *trust).endswith("| run\n")
    files = ("--predictions", "p.csv", "--export", "w.safetensors")
    out = run(commands.eval, "run", "--root", "images", *files, *trust)
    assert out.startswith("run, checkpoint last, test: 16 images")
    assert "predictions in p.csv" in out
    assert "tensors in w.safetensors" in out
    image = "images/test/dark/0.png"
    assert f"\n{image}: " in run(commands.eval, "run", "--image", image, "--export", "v.safetensors", *trust)
    run(commands.bnexp, "-m", *network, *data, "optimizer.lr=0.1,0.2", "hydra.sweep.dir=sweep")
    names = {"p.csv", "v.safetensors", "w.safetensors"}
    assert names < {path.name for path in commands.folder.iterdir()}
    assert not any(elsewhere.iterdir())


def test_a_process_that_the_network_forks_ends_silently_with_its_own_exit(shell, tmp_path):
    in_forward = "pid = os.fork(); sys.exit(3) if pid == 0 else os.waitpid(pid, 0)"
    source = NET.format(at_import="", in_init="pass", in_forward=in_forward)
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    result = shell("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=1", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "finished"
    assert result.out.count("epoch 1/1") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a stream that is closed has another error")
@pytest.mark.parametrize("change", ["sys.stderr.close()", "sys.stderr = None"])
def test_an_error_is_told_where_standard_error_was_closed(shell, tmp_path, change):
    source = NET.format(at_import="", in_init=f"{change}; {{}}['width']", in_forward="pass")
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    line = source[: source.index("{}['width']")].count("\n") + 1
    result = shell("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=1")
    text = f"model._target_=intruder.Net: cannot be made (KeyError: 'width'; intruder.py, line {line})"
    assert (result.code, result.err) == (2, f"bnexp: {text}\n")


def test_threads_that_never_end_do_not_hold_a_finished_run(shell, tmp_path):
    start = "import threading, time; threading.Thread(target=time.sleep, args=(600,), name='mine').start()"
    source = NET.format(at_import=start, in_init="pass", in_forward="pass")
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    arguments = ("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=1", "hydra.run.dir=run")
    result = shell(*arguments, timeout=120)
    assert (result.code, result.err) == (0, "bnexp: ended, though threads of your own code run: mine\n")
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "finished"


def test_a_run_whose_folder_is_removed_says_so(commands, own_network):
    remove = "STEPS > 30 and __import__('shutil').rmtree('run', ignore_errors=True)"
    result = commands.bnexp(*own_network(in_forward=remove), "epochs=20", "hydra.run.dir=run")
    assert result.code == 1
    assert result.err.endswith("its folder was removed while the command was at work\n")
    assert "continues from it" not in result.err


def test_a_run_that_was_killed_is_listed_as_lost(shell, commands, tmp_path):
    source = NET.format(at_import="", in_init="pass", in_forward="signal.raise_signal(signal.SIGKILL)")
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    shell("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=1", "hydra.run.dir=run")
    assert commands.list(".").out.rstrip().endswith("seed 0  lost: its process is gone")
    assert "still being written, or killed; not compared" in commands.compare("run").err


@pytest.mark.parametrize("place", ["at_import", "in_init", "in_forward"])
@pytest.mark.parametrize(
    "change", ["sys.stdout.close()", "sys.stdout = sys.stderr = None", "sys.stdout = open(os.devnull, 'w')"]
)
def test_results_are_printed_whatever_a_network_does_to_standard_output(shell, tmp_path, change, place):
    changes = {"at_import": "", "in_init": "pass", "in_forward": "pass"}
    source = NET.format(**changes | {place: change})
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    arguments = ("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=4", "hydra.run.dir=run")
    result = shell(*arguments)
    assert (result.code, result.err) == (0, "")
    assert "Net-digits: test accuracy" in result.out


@pytest.mark.parametrize("change", ["sys.path.clear()", "import json; json.dumps = None"])
def test_a_module_that_breaks_what_python_needs_later_costs_no_result(shell, tmp_path, change):
    source = NET.format(at_import=change, in_init="pass", in_forward="pass")
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    result = shell("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=1", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "finished"


def test_an_evaluation_is_printed_though_the_network_has_replaced_standard_output(commands, own_network):
    assert commands.bnexp(*own_network(), "epochs=1", "hydra.run.dir=run").code == 0
    own_network(in_init="sys.stdout = None")
    sys.modules.pop("intruder", None)
    result = commands.eval("run", "--trust", "intruder.Net")
    assert result.code == 0
    assert "accuracy" in result.out


def test_a_seed_of_a_sweep_does_not_depend_on_what_the_seed_before_has_left(shell, tmp_path):
    in_forward = "images = images * (1 if STEPS < 12 else 0)"
    source = NET.format(at_import="", in_init="pass", in_forward=in_forward)
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    arguments = ("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=1")
    assert shell(*arguments, "seed=1", "hydra.run.dir=alone").code == 0
    jobs = ("-m", "seed=0,1", "hydra.launcher.jobs=1", "hydra.sweep.dir=sweep")
    assert shell(*jobs, *arguments).code == 0
    alone, second = (
        json.loads((folder / "summary.json").read_text())
        for folder in (tmp_path / "alone", *(tmp_path / "sweep").glob("seed=1-*"))
    )
    assert alone["final"] == second["final"]


def test_a_sweep_whose_workers_leave_semaphores_behind_names_them_and_no_more(shell, tmp_path):
    lock = "import multiprocessing; LOCK = multiprocessing.get_context('spawn').Lock()"
    source = NET.format(
        at_import=lock, in_init="pass", in_forward="STEPS > 1 and signal.raise_signal(signal.SIGKILL)"
    )
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    arguments = ("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=1")
    result = shell("-m", "seed=0,1", "hydra.launcher.jobs=1", "hydra.sweep.dir=sweep", *arguments)
    assert result.code == 1
    assert result.err.count("a worker was lost (SIGKILL)") == 2
    assert "resource_tracker" not in result.err


def test_a_set_of_names_has_one_order_in_every_process(tmp_path):
    names = [f"name{number}" for number in range(8)]
    (tmp_path / "order.py").write_text(f"print(list(set({names})))\nraise SystemExit(0)")
    command = [sys.executable, "-m", "bnexp.train", "model=custom", "model._target_=order.Net"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    outputs = [
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        for _ in range(2)
    ]
    assert sorted(ast.literal_eval(outputs[0].stdout)) == names
    assert outputs[0].stdout == outputs[1].stdout


FORK = "pid = os.fork(); os._exit(3) if pid == 0 else FORKED.append(os.waitpid(pid, 0)[1])"
CHILD = (
    "p = __import__('multiprocessing').get_context('fork').Process(target=abs, args=(1,)); p.start();"
    " p.join(); FORKED.append(3 << 8 if p.exitcode == 0 else p.exitcode)"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("in_forward", [FORK, CHILD])
def test_a_forked_process_ends_by_os_exit(shell, tmp_path, in_forward):
    source = NET.format(
        at_import="FORKED = []", in_init="pass", in_forward=f"{in_forward}; assert set(FORKED) <= {{3 << 8}}"
    )
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    result = shell("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=1", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("status", [0, 3])
def test_a_thread_that_calls_os_exit_is_told(shell, tmp_path, status):
    thread = f"import threading; t = threading.Thread(target=os._exit, args=({status},)); t.start(); t.join()"
    source = NET.format(at_import="", in_init="pass", in_forward=thread)
    (tmp_path / "intruder.py").write_text(source, encoding="utf-8")
    result = shell("model=custom", "model._target_=intruder.Net", *QUICK, "epochs=1")
    text = f"bnexp: model._target_=intruder.Net: a thread beside it called os._exit ({status})\n"
    assert (result.code, result.err) == (status or 1, text)
