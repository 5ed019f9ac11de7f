"""bnexp-eval: the run's own numbers from its folder alone, and nothing foreign is run on the way."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from bnexp.data import datasets, splits
from bnexp.training import checkpoint
from helpers.small_sets import arrays, write_mnist

# Its validation accuracy falls in the second epoch, so that best.pt and last.pt differ.
QUICK = ("epochs=2", "dataset.train_size=200", "dataset.test_size=100", "tracking.tensorboard=false")


@dataclass(frozen=True)
class Shown:
    """What bnexp-eval printed."""

    images: int
    accuracy: str
    loss: str
    counts: list[list[int]]
    shares: list[str]  # each class's own accuracy


def read(text: str) -> Shown:
    lines = text.splitlines()
    images = int(
        re.fullmatch(r".*, checkpoint \S+, (?:test|val|train): (\d+) images, on cpu .*", lines[0])[1]
    )
    accuracy, loss = re.fullmatch(r"accuracy (\S+), loss (\S+)", lines[1]).groups()
    assert lines[2].split() == ["true", *map(str, range(10)), "accuracy"]
    rows = [line.split() for line in lines[3:13]]
    assert [row[0] for row in rows] == list("0123456789")
    counts, shares = [list(map(int, row[1:11])) for row in rows], [" ".join(row[11:]) for row in rows]
    return Shown(images, accuracy, loss, counts, shares)


def agree(shown: Shown, recorded: dict[str, float], split: str) -> bool:
    """Whether all four printed digits are those of the summary."""
    found = {f"{split}/accuracy": shown.accuracy, f"{split}/loss": shown.loss}
    return found == {key: f"{recorded[key]:.4f}" for key in found}


@pytest.fixture
def run(commands) -> Path:
    assert commands.bnexp(*QUICK).code == 0
    return commands.runs()[-1]


def evaluated(commands, *words) -> Shown:
    done = commands.eval(*map(str, words))
    assert (done.code, done.err) == (0, "")
    return read(done.out)


def test_last_and_best_show_what_the_run_recorded(commands, run):
    summary = commands.summary()
    assert summary["best"]["epoch"] == 1, "best and last must differ for this test to tell them apart"
    last, best = evaluated(commands, run), evaluated(commands, run, "--checkpoint", "best")
    assert agree(last, summary["final"], "test")
    assert agree(best, summary["best"], "test")
    assert last.accuracy != best.accuracy


def test_an_older_epoch_by_its_number(commands):
    assert commands.bnexp(*QUICK, "checkpoint.keep=2").code == 0
    found = evaluated(commands, commands.runs()[-1], "--checkpoint", "epoch-1")
    assert agree(found, commands.summary()["best"], "test")


def test_val_and_train_show_what_the_run_recorded(commands):
    assert commands.bnexp(*QUICK, "dataset.augment=[flip,crop]").code == 0
    (run,), final = commands.runs(), commands.summary()["final"]
    val, train = evaluated(commands, run, "--split", "val"), evaluated(commands, run, "--split", "train")
    assert (val.images, train.images) == (144, 200)
    assert agree(val, final, "val")
    assert agree(train, {f"train/{k}": final[f"train_eval/{k}"] for k in ("loss", "accuracy")}, "train")


def test_the_confusion_matrix_and_the_predictions_against_the_network_written_out(commands, run):
    shown = evaluated(commands, run, "--predictions", "found.csv")
    with open("found.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "label", "prediction"]
    numbers, labels, predictions = (list(map(int, column)) for column in zip(*rows, strict=True))
    assert numbers == list(range(100))

    digits = datasets.load_dataset("digits", None, None).test
    index = splits.test_indices(digits.labels, 100)
    images = (digits.pixels[index].flatten(1).double() / 255 - 0.3055) / 0.3249
    w = {key: value.double() for key, value in checkpoint.load(run / "checkpoints/last.pt")["model"].items()}
    hidden = F.linear(images, w["hidden.0.linear.weight"], w["hidden.0.linear.bias"]).relu()
    logits = F.linear(hidden, w["head.weight"], w["head.bias"])
    assert labels == digits.labels[index].tolist()
    assert predictions == logits.argmax(1).tolist()

    counts = torch.zeros(10, 10, dtype=torch.int64)
    for label, prediction in zip(labels, predictions, strict=True):
        counts[label, prediction] += 1
    assert shown.counts == counts.tolist()
    assert counts.sum() == shown.images == 100
    assert float(shown.accuracy) == counts.trace() / 100
    assert shown.shares == [f"{row[i] / row.sum():.4f}" for i, row in enumerate(counts)]


def test_a_moved_folder_in_a_fresh_process_elsewhere(commands, run, tmp_path):
    """Nothing of the run's process, place or folder is needed."""
    moved, elsewhere = tmp_path / "a new" / "place", tmp_path / "elsewhere"
    moved.parent.mkdir()
    elsewhere.mkdir()
    shutil.move(run, moved)
    final = json.loads((moved / "summary.json").read_text())["final"]
    done = subprocess.run(
        [sys.executable, "-m", "bnexp.evaluate", moved],
        cwd=elsewhere, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert agree(read(done.stdout), final, "test")
    assert not list(elsewhere.iterdir())


def test_a_run_from_before_a_key_was_there(commands, run, tmp_path):
    older = shutil.copytree(run, tmp_path / "older")
    path = older / ".hydra" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    del saved["dataset"]["delta"], saved["device"]["sync_bn"]
    path.write_text(yaml.safe_dump(saved))
    assert evaluated(commands, older) == evaluated(commands, run)


@pytest.mark.parametrize("keys", [{"precision": "fp16"}, {"graphs": True}, {"sync_bn": True}])
def test_a_run_of_a_gpu_is_evaluated_on_a_cpu(commands, run, tmp_path, keys):
    """What the GPU's run had and a CPU has not takes no part in an evaluation, or is fp32."""
    theirs = shutil.copytree(run, tmp_path / "theirs")
    path = theirs / ".hydra" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["device"] |= keys
    path.write_text(yaml.safe_dump(saved))
    assert evaluated(commands, theirs, "--device=cpu") == evaluated(commands, run)
    assert ", on cpu (" in commands.eval(str(theirs)).out.splitlines()[0]


def test_a_job_of_a_sweep(commands):
    assert commands.bnexp("-m", "seed=1,2", *QUICK).code == 0
    for run in commands.runs():
        final = json.loads((run / "summary.json").read_text())["final"]
        assert agree(evaluated(commands, run), final, "test")


def test_a_relative_root_is_that_of_the_run(commands, monkeypatch):
    write_mnist(Path("data"), monkeypatch, arrays())
    done = commands.bnexp("dataset=mnist", "dataset.root=data", "epochs=1", "tracking.tensorboard=false")
    assert done.code == 0
    (run,), final = commands.runs(), commands.summary()["final"]
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert agree(evaluated(commands, run), final, "test")


def edit(run: Path, **groups) -> None:
    """Changes keys of groups in the run's saved configuration."""
    path = run / ".hydra" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for group, keys in groups.items():
        config[group] |= keys
    path.write_text(yaml.safe_dump(config))


def test_device_takes_the_place_of_the_runs_own(commands, run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    edit(run, device={"name": "cuda"})
    done = commands.eval(str(run))
    assert done.code == 2
    assert "device=cuda: no such device here" in done.err
    assert agree(evaluated(commands, run, "--device", "cpu"), commands.summary()["final"], "test")


OWN = """
from pathlib import Path
from torch import nn
Path("mark").touch()
def net(image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_size ** 2, num_classes))
"""


def test_a_network_of_ones_own_is_evaluated_once_it_is_trusted(commands, monkeypatch):
    Path("own_nets.py").write_text(OWN)
    assert commands.bnexp(*QUICK, "model=custom", "model._target_=own_nets.net").code == 0
    (run,) = commands.runs()
    Path("mark").unlink()
    monkeypatch.delitem(sys.modules, "own_nets")
    for words in ((), ("--trust", "own_nets.Net"), ("--trust", "own_nets")):
        done = commands.eval(str(run), *words)
        assert done.code == 2
        foreign = "model._target_=own_nets.net: neither bnexp's nor torch's"
        assert done.err == f"bnexp: {foreign}; --trust own_nets.net lets it run\n"
    assert not Path("mark").exists()
    shown = evaluated(commands, run, "--trust", "own_nets.other", "--trust", "own_nets.net")
    assert agree(shown, commands.summary()["final"], "test")
    assert Path("mark").exists()


SHELL = {"_target_": "os.system", "command": "touch mark"}


@pytest.mark.parametrize(
    ("group", "keys"),
    [
        ("model", SHELL),
        ("optimizer", SHELL),
        ("scheduler", SHELL),
        ("loss", SHELL),
        ("model", {"_target_": "marking.net"}),
        ("loss", {"_target_": "builtins.exec", "source": "open('mark', 'w')"}),
        # torch's name is no warrant: these run what a stranger's folder tells them to
        ("model", {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "net", "source": "local"}),
        ("model", {"_target_": "torch.utils.collect_env.run", "command": "touch mark"}),
        ("model", {"_target_": "torchmark.net"}),
    ],
)
def test_nothing_foreign_is_run(commands, run, monkeypatch, group, keys):
    for name in ("marking.py", "torchmark.py", "hubconf.py"):
        Path(name).write_text(OWN)
    monkeypatch.syspath_prepend(str(commands.folder))
    edit(run, **{group: keys})
    done = commands.eval(str(run))
    assert not Path("mark").exists()
    assert done.code == 2
    assert done.err.startswith(f"bnexp: {group}._target_={keys['_target_']}: neither bnexp's nor torch's;")
    assert len(done.err.splitlines()) == 1
    assert not {"marking", "torchmark", "hubconf"} & set(sys.modules)


def empty(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_network(run: Path) -> None:
    edit(run, model={"hidden": [50, 50]})


def no_state_dict(run: Path) -> None:
    checkpoint.save({"model": 3}, run / "checkpoints" / "last.pt")


FAULTS = [
    (shutil.rmtree, "", r"{run}: not a run folder \(summary\.json: No such file"),
    (empty, "", r"{run}: not a run folder \(summary\.json: No such file"),
    (lambda run: cut(run / "summary.json"), "", r"{run}/summary\.json: damaged"),
    (lambda run: (run / "summary.json").write_text("[]"), "", r"{run}/summary\.json: damaged"),
    (lambda run: (run / ".hydra/config.yaml").unlink(), "", r"{run}/\.hydra: .*FileNotFoundError"),
    (lambda run: (run / ".hydra/hydra.yaml").unlink(), "", r"{run}/\.hydra: .*FileNotFoundError"),
    (lambda run: (run / ".hydra/hydra.yaml").write_text("a: 1"), "", r"{run}/\.hydra: "),
    (lambda run: (run / ".hydra/config.yaml").write_bytes(b"\xff\x00"), "", r"{run}/\.hydra: "),
    (lambda run: (run / ".hydra/config.yaml").write_text("a: [1"), "", r"{run}/\.hydra: "),
    (lambda run: (run / ".hydra/config.yaml").write_text("[1]"), "", r"{run}/\.hydra: "),
    (lambda run: (run / ".hydra/config.yaml").write_text(""), "--device cpu", r"{run}/\.hydra: "),
    (lambda run: edit(run, model={"norm": "bacth"}), "", r"model\.norm=bacth: .*did you mean batch"),
    (lambda run: (run / "checkpoints/last.pt").unlink(), "", "--checkpoint=last: {run} has best"),
    (lambda run: shutil.rmtree(run / "checkpoints"), "", "{run}: no checkpoint; finished: nothing saved"),
    (lambda run: None, "--checkpoint epoch-1", r"--checkpoint=epoch-1: {run} has best, last"),
    (lambda run: cut(run / "checkpoints/last.pt"), "", r"{run}/checkpoints/last\.pt: not a checkpoint that"),
    (other_network, "", r"{run}: the checkpoint does not fit the run's network \(Error.{{,195}} \.\.\.\)"),
    (no_state_dict, "", r"{run}: the checkpoint does not fit the run's network"),
    (lambda run: None, "--predictions no/such.csv", r"--predictions=no/such\.csv: cannot be written"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "words", "line"), FAULTS, ids=[line for _, _, line in FAULTS])
def test_a_harmed_run_is_one_line_and_exit_2(commands, run, harm, words, line):
    harm(run)
    done = commands.eval(str(run), *words.split())
    assert done.code == 2, done
    assert re.fullmatch(f"bnexp: {line.format(run=re.escape(str(run)))}.*\n", done.err), done.err


def test_no_validation_set_to_look_at(commands):
    assert commands.bnexp(*QUICK, "dataset.val_size=0").code == 0
    done = commands.eval(str(commands.runs()[-1]), "--split", "val")
    assert done.code == 2
    assert done.err == "bnexp: --split=val: this run had no validation set (dataset.val_size=0)\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", r"the following arguments are required: RUN_DIR"),
        ("RUN --spilt val", r"unrecognized arguments: --spilt val; did you mean --split\?"),
        ("RUN --check best", r"unrecognized arguments: --check best; did you mean --checkpoint\?"),
        ("RUN device=cpu", r"unrecognized arguments: device=cpu"),
        ("RUN --split tset", r"argument --split: invalid choice: 'tset' \(choose from"),
        ("RUN --device gpu", r"argument --device: invalid choice: 'gpu' \(choose from"),
        ("RUN --predictions", r"argument --predictions: expected one argument"),
    ],
)
def test_a_word_that_is_not_understood_is_one_line_and_exit_2(commands, words, line):
    done = commands.eval(*words.split())
    assert done.code == 2
    assert done.out == ""
    assert re.fullmatch(rf"bnexp: {line}.* \(bnexp-eval --help lists all\)\n", done.err), done.err


def test_help_is_there_without_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bnexp.evaluate", "--help"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    for word in ("RUN_DIR", "--checkpoint", "--split", "--device", "--predictions", "--trust"):
        assert word in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "omegaconf" in imported
    assert not imported & {"torch", "torchvision", "numpy", "pandas", "scipy", "sklearn"}
