"""The recorded numbers of a run: bnexp-eval reproduces them exactly, and its weights work without bnexp."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnexp.training.trainer import Trainer

SMALL = ("epochs=1", "dataset.train_size=100", "dataset.test_size=75", "tracking.tensorboard=false")
MODELS = {
    "mlp, batch norm": ("model=mlp_bn",),
    "conv, two threads": ("model=conv", "device.threads=2"),
    "default threads": ("model=lenet",),
    "resnet, odd batches": ("model=resnet", "model.widths=[4,8]", "model.depths=[1,1]", "eval_batch_size=7"),
    "dropout, hinge": ("model=mlp_bn", "model.dropout=0.5", "loss=hinge"),
    "bf16": ("model=conv_bn", "device.precision=bf16"),
}


def exact_test_metrics(commands, monkeypatch, *arguments: str) -> dict[str, float]:
    """Accuracy and loss of a bnexp-eval command with all digits; the command prints four."""
    results, classify = [], Trainer.classify

    def recording_classify(*classify_arguments):
        results.append(classify(*classify_arguments))
        return results[-1]

    monkeypatch.setattr(Trainer, "classify", recording_classify)
    assert commands.eval(*arguments).code == 0
    monkeypatch.setattr(Trainer, "classify", classify)
    assert len(results) == 1, "the images are classified once"
    loss, accuracy, _ = results[0]
    return {"test/loss": loss, "test/accuracy": accuracy}


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_reproduces_the_recorded_numbers_to_the_bit(commands, monkeypatch, name):
    assert commands.bnexp(*MODELS[name], *SMALL, "hydra.run.dir=run").code == 0
    torch.set_num_threads(1)
    metrics = exact_test_metrics(commands, monkeypatch, "run")
    final = commands.summary()["final"]
    assert metrics == {key: final[key] for key in metrics}


def test_eval_uses_the_threads_of_the_run(commands, monkeypatch):
    commands.bnexp("model=lenet", *SMALL, "hydra.run.dir=run")
    path = Path("run/environment.json")
    for threads in (1, 2):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": threads}))
        commands.eval("run")
        assert torch.get_num_threads() == threads


SCRIPT_WITHOUT_BNEXP = """
import sys, torch
from safetensors import safe_open
from torch import nn
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10))
names = {"1": "hidden.0.linear", "2": "hidden.0.norm", "4": "head"}
with safe_open("weights.safetensors", "pt") as file:
    metadata = file.metadata()
    state = {key: file.get_tensor(names[key.split(".")[0]] + key[1:]) for key in net.state_dict()}
    assert len(state) == len(file.keys())
net.load_state_dict(state)
images = torch.load("images.pt")
torch.save((net.eval()(images), metadata), "logits.pt")
assert not [name for name in sys.modules if name.startswith("bnexp")]
"""


def test_exported_weights_work_without_bnexp(commands):
    commands.bnexp("model=mlp_bn", *SMALL, "hydra.run.dir=run")
    result = commands.eval("run", "--export", "weights.safetensors")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "9 tensors in weights.safetensors"
    images = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.save(images, "images.pt")
    subprocess.run([sys.executable, "-c", SCRIPT_WITHOUT_BNEXP], check=True, timeout=240)
    logits, metadata = torch.load("logits.pt")
    state = torch.load("run/checkpoints/last.pt", weights_only=True)["model"]
    hidden = images.flatten(1) @ state["hidden.0.linear.weight"].T + state["hidden.0.linear.bias"]
    norm = {key: state[f"hidden.0.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
    hidden = torch.nn.functional.batch_norm(hidden, **norm).relu()
    torch.testing.assert_close(logits, hidden @ state["head.weight"].T + state["head.bias"])
    assert metadata["model"].startswith("bnexp.models.MLP(norm='batch', ")
    assert metadata["dataset"] == "digits"
    assert metadata["config_hash"] == commands.summary()["config_hash"]
    assert metadata["checkpoint"] == "last, after epoch 1"


def test_an_export_that_cannot_be_written_is_a_one_line_error(commands):
    commands.bnexp(*SMALL, "hydra.run.dir=run")
    result = commands.eval("run", "--export", "no/such/file.safetensors")
    assert result.code == 2
    assert result.err.startswith("bnexp: --export=no/such/file.safetensors: cannot be written (No such")


def test_too_little_memory_is_a_one_line_error(commands, monkeypatch):
    commands.bnexp(*SMALL, "hydra.run.dir=run")

    def run_out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")

    monkeypatch.setattr(Trainer, "classify", run_out_of_memory)
    result = commands.eval("run", "--batch-size", "300")
    assert result.code == 1
    assert result.err == (
        "bnexp: out of memory: --batch-size=300 takes more memory than the device has left;"
        " try a smaller one\n"
    )


@pytest.mark.parametrize("size", ["1", "10000"])
def test_another_batch_size_prints_the_same_numbers(commands, size):
    commands.bnexp("model=mlp_bn", *SMALL, "hydra.run.dir=run")
    assert commands.eval("run", "--batch-size", size).out == commands.eval("run").out
    error = commands.eval("run", "--batch-size", "0").err
    assert error == "bnexp: --batch-size=0: must be at least 1 and at most 2147483648\n"
