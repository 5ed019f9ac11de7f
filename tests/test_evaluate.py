"""bnexp-eval prints the numbers that the run recorded. It needs only the folder and runs no foreign code."""

from __future__ import annotations

import csv
import json
import os
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
from bnexp.runs.identity import LATER_KEYS
from bnexp.training import checkpoint
from helpers.run_folders import forget_identity
from helpers.small_sets import arrays, write_mnist

# Its validation accuracy falls in the second epoch, so best.pt and last.pt differ.
QUICK = ("epochs=2", "dataset.train_size=200", "dataset.test_size=100", "tracking.tensorboard=false")


@dataclass(frozen=True)
class PrintedEvaluation:
    """The numbers that bnexp-eval prints."""

    images: int
    accuracy: str
    loss: str
    counts: list[list[int]]
    class_accuracies: list[str]


def parse_output(text: str) -> PrintedEvaluation:
    lines = text.splitlines()
    images = int(
        re.fullmatch(r".*, checkpoint \S+, (?:test|val|train): (\d+) images, on cpu .*", lines[0])[1]
    )
    accuracy, loss = re.fullmatch(r"accuracy (\S+), loss (\S+)", lines[1]).groups()
    assert lines[2].split() == ["true", *map(str, range(10)), "accuracy"]
    rows = [line.split() for line in lines[3:13]]
    assert [row[0] for row in rows] == list("0123456789")
    counts = [list(map(int, row[1:11])) for row in rows]
    class_accuracies = [" ".join(row[11:]) for row in rows]
    return PrintedEvaluation(images, accuracy, loss, counts, class_accuracies)


def matches(output: PrintedEvaluation, recorded: dict[str, float], split: str) -> bool:
    """Whether accuracy and loss are those of the summary, in all four printed digits."""
    metrics = {f"{split}/accuracy": output.accuracy, f"{split}/loss": output.loss}
    return metrics == {key: f"{recorded[key]:.4f}" for key in metrics}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of the run that ``run`` trains for the first test and copies for each."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def run(commands, trained) -> Path:
    if not trained.exists():
        assert commands.bnexp(*QUICK, f"hydra.run.dir={trained}").code == 0
    return Path(shutil.copytree(trained, commands.folder / "outputs" / "day" / "run"))


def evaluate(commands, *arguments) -> PrintedEvaluation:
    result = commands.eval(*map(str, arguments))
    assert (result.code, result.err) == (0, "")
    return parse_output(result.out)


def test_last_and_best_print_what_the_run_recorded(commands, run):
    summary = commands.summary()
    assert summary["best"]["epoch"] == 1, "best and last must differ for this test to tell them apart"
    last, best = evaluate(commands, run), evaluate(commands, run, "--checkpoint", "best")
    assert matches(last, summary["final"], "test")
    assert matches(best, summary["best"], "test")
    assert last.accuracy != best.accuracy


def test_an_older_checkpoint_is_chosen_by_its_epoch(commands):
    assert commands.bnexp(*QUICK, "checkpoint.keep=2").code == 0
    output = evaluate(commands, commands.runs()[-1], "--checkpoint", "epoch-1")
    assert matches(output, commands.summary()["best"], "test")


def test_val_and_train_print_what_the_run_recorded(commands):
    assert commands.bnexp(*QUICK, "dataset.augment=[flip,crop]").code == 0
    (run,), final = commands.runs(), commands.summary()["final"]
    val, train = evaluate(commands, run, "--split", "val"), evaluate(commands, run, "--split", "train")
    assert (val.images, train.images) == (22, 200)
    assert matches(val, final, "val")
    assert matches(train, {f"train/{k}": final[f"train_eval/{k}"] for k in ("loss", "accuracy")}, "train")


def test_the_confusion_matrix_and_the_predictions_equal_those_of_a_plain_forward_pass(commands, run):
    output = evaluate(commands, run, "--predictions", "predictions.csv")
    with open("predictions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "label", "prediction", "probability", *(f"p({i})" for i in range(10))]
    numbers, labels, predictions = ([int(row[i]) for row in rows] for i in range(3))
    assert numbers == list(range(100))

    digits = datasets.load_dataset("digits", None, None).test
    index = splits.test_indices(digits.labels, 100)
    images = (digits.pixels[index].flatten(1).double() / 255 - 0.3055) / 0.3249
    state = checkpoint.load(run / "checkpoints/last.pt")["model"]
    weights = {key: value.double() for key, value in state.items()}
    hidden = F.linear(images, weights["hidden.0.linear.weight"], weights["hidden.0.linear.bias"]).relu()
    logits = F.linear(hidden, weights["head.weight"], weights["head.bias"])
    assert labels == digits.labels[index].tolist()
    assert predictions == logits.argmax(1).tolist()
    probabilities = torch.tensor([[float(cell) for cell in row[4:]] for row in rows], dtype=torch.float64)
    assert torch.allclose(probabilities, logits.softmax(1), atol=1e-5)
    assert [float(row[3]) for row in rows] == probabilities.amax(1).tolist()

    counts = torch.zeros(10, 10, dtype=torch.int64)
    for label, prediction in zip(labels, predictions, strict=True):
        counts[label, prediction] += 1
    assert output.counts == counts.tolist()
    assert counts.sum() == output.images == 100
    assert float(output.accuracy) == counts.trace() / 100
    assert output.class_accuracies == [f"{row[i] / row.sum():.4f}" for i, row in enumerate(counts)]


def test_a_moved_run_is_evaluated_in_a_new_process_in_another_folder(commands, run, tmp_path):
    new_folder, other_folder = tmp_path / "a new" / "place", tmp_path / "elsewhere"
    new_folder.parent.mkdir()
    other_folder.mkdir()
    shutil.move(run, new_folder)
    final = json.loads((new_folder / "summary.json").read_text())["final"]
    process = subprocess.run(
        [sys.executable, "-m", "bnexp.evaluate", new_folder],
        cwd=other_folder, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    assert matches(parse_output(process.stdout), final, "test")
    assert not list(other_folder.iterdir())


def test_a_run_saved_before_a_key_existed_is_evaluated(commands, run, tmp_path):
    older_run = shutil.copytree(run, tmp_path / "older")
    path = older_run / ".hydra" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    del saved["dataset"]["delta"]
    for key in LATER_KEYS["model", "bnexp.models."]:
        del saved["model"][key]
    path.write_text(yaml.safe_dump(saved))
    assert evaluate(commands, older_run) == evaluate(commands, run)
    assert commands.resume(str(older_run), "epochs=4").code == 0
    assert json.loads((older_run / "summary.json").read_text())["epochs"] == 4


@pytest.mark.parametrize("keys", [{"precision": "fp16"}, {"graphs": True}, {"sync_bn": True}])
def test_a_run_of_a_gpu_is_evaluated_on_a_cpu(commands, run, tmp_path, keys):
    """Settings that only a GPU has are left out of an evaluation, and fp16 becomes fp32."""
    gpu_run = shutil.copytree(run, tmp_path / "gpu_run")
    path = gpu_run / ".hydra" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["device"] |= keys
    path.write_text(yaml.safe_dump(saved))
    forget_identity(gpu_run)
    assert evaluate(commands, gpu_run, "--device=cpu") == evaluate(commands, run)
    assert ", on cpu (" in commands.eval(str(gpu_run)).out.splitlines()[0]


def test_each_job_of_a_sweep_is_evaluated(commands):
    assert commands.bnexp("-m", "seed=1,2", *QUICK).code == 0
    for run in commands.runs():
        final = json.loads((run / "summary.json").read_text())["final"]
        assert matches(evaluate(commands, run), final, "test")


def test_a_relative_root_is_relative_to_the_folder_of_the_run_command(commands, monkeypatch):
    write_mnist(Path("data"), monkeypatch, arrays())
    quick = ("dataset.val_size=0", "epochs=1", "tracking.tensorboard=false")
    result = commands.bnexp("dataset=mnist", "dataset.root=data", *quick)
    assert result.code == 0
    (run,), final = commands.runs(), commands.summary()["final"]
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert matches(evaluate(commands, run), final, "test")


def edit(run: Path, **groups) -> None:
    """Changes keys of groups in the run's saved configuration, as if it had trained with them."""
    forget_identity(run)
    path = run / ".hydra" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for group, keys in groups.items():
        config[group] |= keys
    path.write_text(yaml.safe_dump(config))


def test_the_device_argument_replaces_the_device_of_the_run(commands, run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    edit(run, device={"name": "cuda"})
    result = commands.eval(str(run))
    assert result.code == 2
    assert "device=cuda: no such device here" in result.err
    assert matches(evaluate(commands, run, "--device", "cpu"), commands.summary()["final"], "test")


def test_a_saved_configuration_that_was_edited_is_refused(commands, run):
    path = run / ".hydra" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["model"]["activation"] = "tanh"
    path.write_text(yaml.safe_dump(saved))
    result = commands.eval(str(run))
    line = f"bnexp: {path}: other values than those of the run; restore the file\n"
    assert (result.code, result.out, result.err) == (2, "", line)


CUSTOM_NETWORK = """
from pathlib import Path
from torch import nn
Path("mark").touch()
def net(image_size, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_size ** 2, num_classes))
"""


def test_a_custom_network_is_evaluated_only_if_it_is_trusted(commands, monkeypatch):
    Path("own_nets.py").write_text(CUSTOM_NETWORK)
    assert commands.bnexp(*QUICK, "model=custom", "model._target_=own_nets.net").code == 0
    (run,) = commands.runs()
    Path("mark").unlink()
    monkeypatch.delitem(sys.modules, "own_nets")
    for arguments in ((), ("--trust", "own_nets.Net"), ("--trust", "own_nets")):
        result = commands.eval(str(run), *arguments)
        assert result.code == 2
        refusal = "model._target_=own_nets.net: must be a class of bnexp, torch.nn or torch.optim"
        assert result.err == f"bnexp: {refusal}; --trust own_nets.net allows it\n"
    assert not Path("mark").exists()
    output = evaluate(commands, run, "--trust", "own_nets.other", "--trust", "own_nets.net")
    assert matches(output, commands.summary()["final"], "test")
    assert Path("mark").exists()


SHELL_COMMAND = {"_target_": "os.system", "command": "touch mark"}


@pytest.mark.parametrize(
    ("group", "keys"),
    [
        ("model", SHELL_COMMAND),
        ("optimizer", SHELL_COMMAND),
        ("scheduler", SHELL_COMMAND),
        ("loss", SHELL_COMMAND),
        ("model", {"_target_": "marking.net"}),
        ("loss", {"_target_": "builtins.exec", "source": "open('mark', 'w')"}),
        # These belong to torch and still run a stranger's code.
        ("model", {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "net", "source": "local"}),
        ("model", {"_target_": "torch.utils.collect_env.run", "command": "touch mark"}),
        ("model", {"_target_": "torchmark.net"}),
    ],
)
def test_foreign_code_is_not_run(commands, run, monkeypatch, group, keys):
    for name in ("marking.py", "torchmark.py", "hubconf.py"):
        Path(name).write_text(CUSTOM_NETWORK)
    monkeypatch.syspath_prepend(str(commands.folder))
    edit(run, **{group: keys})
    result = commands.eval(str(run))
    assert not Path("mark").exists()
    assert result.code == 2
    assert result.err.startswith(f"bnexp: {group}._target_={keys['_target_']}: must be a class of bnexp,")
    assert len(result.err.splitlines()) == 1
    assert not {"marking", "torchmark", "hubconf"} & set(sys.modules)


def empty_folder(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_network(run: Path) -> None:
    edit(run, model={"hidden": [50, 50]})


def replace_state_dict(run: Path) -> None:
    checkpoint.save({"model": 3}, run / "checkpoints" / "last.pt")


FAULTS = [
    (shutil.rmtree, "", r"{run}: not a run folder \(summary\.json: No such file"),
    (empty_folder, "", r"{run}: not a run folder \(summary\.json: No such file"),
    (lambda run: truncate(run / "summary.json"), "", r"{run}/summary\.json: damaged"),
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
    (lambda run: None, "--checkpoint ../checkpoints/last", r"--checkpoint=\.\./checkpoints/last: {run} has"),
    (lambda run: truncate(run / "checkpoints/last.pt"), "", r"{run}/checkpoints/last\.pt: not a checkpoint "),
    (change_network, "", r"{run}: the checkpoint does not fit the run's network \(Error.{{,195}} \.\.\.\)"),
    (replace_state_dict, "", r"{run}: the checkpoint does not fit the run's network"),
    (lambda run: None, "--predictions no/such.csv", r"--predictions=no/such\.csv: cannot be written"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "arguments", "line"), FAULTS, ids=[line for _, _, line in FAULTS])
def test_a_damaged_run_is_one_line_and_exit_code_2(commands, run, damage, arguments, line):
    damage(run)
    result = commands.eval(str(run), *arguments.split())
    assert result.code == 2, result
    assert re.fullmatch(f"bnexp: {line.format(run=re.escape(str(run)))}.*\n", result.err), result.err


def test_a_run_without_a_validation_set_has_no_split_val(commands):
    assert commands.bnexp(*QUICK, "dataset.val_size=0").code == 0
    result = commands.eval(str(commands.runs()[-1]), "--split", "val")
    assert result.code == 2
    assert result.err == "bnexp: --split=val: this run had no validation set (dataset.val_size=0)\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", r"the following arguments are required: RUN_DIR"),
        ("RUN --spilt val", r"unrecognized arguments: --spilt val; did you mean --split\?"),
        ("RUN --check best", r"unrecognized arguments: --check best; did you mean --checkpoint\?"),
        ("RUN device=cpu", r"unrecognized arguments: device=cpu"),
        ("RUN --split tset", r"--split: invalid choice: 'tset' \(choose from"),
        ("RUN --device gpu", r"--device: invalid choice: 'gpu' \(choose from"),
        ("RUN --predictions", r"--predictions: expected one argument"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(commands, arguments, line):
    result = commands.eval(*arguments.split())
    assert result.code == 2
    assert result.out == ""
    assert re.fullmatch(rf"bnexp: {line}.* \(bnexp-eval --help lists all\)\n", result.err), result.err


def test_help_imports_no_torch():
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bnexp.evaluate", "--help"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert process.returncode == 0
    for argument in ("RUN_DIR", "--checkpoint", "--split", "--device", "--predictions", "--trust"):
        assert argument in process.stdout
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert "omegaconf" in imported
    assert not imported & {"torch", "torchvision", "numpy", "pandas", "scipy", "sklearn"}


@pytest.mark.parametrize("option", ["--predictions", "--export"])
@pytest.mark.parametrize("name", ["notes.txt", "RUN/metrics.csv", "RUN/checkpoints/last.pt"])
def test_a_file_that_bnexp_did_not_write_is_not_replaced(commands, run, option, name):
    path = Path(name.replace("RUN", str(run)))
    if not path.exists():
        path.write_text("my notes")
    content = path.read_bytes()
    result = commands.eval(str(run), option, str(path))
    assert (result.code, result.out) == (2, "")
    assert (
        result.err == f"bnexp: {option}={path}: this file was not written by {option}; choose another name\n"
    )
    assert path.read_bytes() == content


@pytest.mark.parametrize(("option", "name"), [("--predictions", "a.csv"), ("--export", "a.safetensors")])
def test_a_file_of_an_earlier_evaluation_is_replaced(commands, run, option, name):
    files = []
    for _ in range(2):
        result = commands.eval(str(run), option, name)
        assert (result.code, result.err) == (0, "")
        files.append(Path(name).stat())
    assert files[0].st_size == files[1].st_size
    assert files[0].st_mtime_ns < files[1].st_mtime_ns


def test_an_export_replaces_no_device(commands, run):
    os.mkfifo("pipe")
    result = commands.eval(str(run), "--export", "pipe")
    assert (result.code, result.out) == (2, "")
    assert "--export=pipe: this file was not written by --export" in result.err
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--predictions", ""), "--predictions: '' must name a file or folder"),
        (("--export", " "), "--export: ' ' must name a file or folder"),
        (
            ("--batch-size", "99999999999999999999"),
            "--batch-size=99999999999999999999: must be at least",
        ),
        (("--batch-size", "1e3"), "--batch-size: invalid int value: '1e3'"),
        (("--predictions", "x", "--export", "./x"), "--export=x: must not be the file of --predictions"),
    ],
)
def test_a_wrong_value_is_one_line_and_writes_nothing(commands, run, arguments, line):
    files = sorted(Path.cwd().iterdir())
    result = commands.eval(str(run), *arguments)
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert result.err.startswith(f"bnexp: {line}")
    assert sorted(Path.cwd().iterdir()) == files
