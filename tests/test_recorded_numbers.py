"""What a run recorded can be had again: from its checkpoint to the bit, and without bnexp."""

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
    "threads as found": ("model=lenet",),
    "resnet, odd batches": ("model=resnet", "model.widths=[4,8]", "model.depths=[1,1]", "eval_batch_size=7"),
    "dropout, hinge": ("model=mlp_bn", "model.dropout=0.5", "loss=hinge"),
    "bf16": ("model=conv_bn", "device.precision=bf16"),
}


def seen_by_eval(commands, monkeypatch, *words: str) -> dict[str, float]:
    """Accuracy and loss with all their digits; bnexp-eval prints four."""
    found, plain = [], Trainer.classify

    def watched(*arguments):
        found.append(plain(*arguments))
        return found[-1]

    monkeypatch.setattr(Trainer, "classify", watched)
    assert commands.eval(*words).code == 0
    monkeypatch.setattr(Trainer, "classify", plain)
    assert len(found) == 1, "the images are looked at once"
    return {f"test/{key}": value for key, value in found[0][0].items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_gives_the_recorded_numbers_to_the_bit(commands, monkeypatch, name):
    assert commands.bnexp(*MODELS[name], *SMALL, "hydra.run.dir=run").code == 0
    torch.set_num_threads(1)
    found = seen_by_eval(commands, monkeypatch, "run")
    final = commands.summary()["final"]
    assert found == {key: final[key] for key in found}


def test_the_runs_threads_are_taken_again(commands, monkeypatch):
    commands.bnexp("model=lenet", *SMALL, "hydra.run.dir=run")
    path = Path("run/environment.json")
    for threads in (1, 2):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": threads}))
        commands.eval("run")
        assert torch.get_num_threads() == threads


WITHOUT = """
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


def test_exported_weights_are_read_without_bnexp(commands):
    commands.bnexp("model=mlp_bn", *SMALL, "hydra.run.dir=run")
    done = commands.eval("run", "--export", "weights.safetensors")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "9 tensors in weights.safetensors"
    images = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.save(images, "images.pt")
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, timeout=240)
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


def test_an_export_that_cannot_be_written_is_one_line(commands):
    commands.bnexp(*SMALL, "hydra.run.dir=run")
    done = commands.eval("run", "--export", "no/such/file")
    assert done.code == 2
    assert done.err == "bnexp: --export=no/such/file: cannot be written (No such file or directory)\n"


def test_too_little_memory_is_one_line(commands, monkeypatch):
    commands.bnexp(*SMALL, "hydra.run.dir=run")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")

    monkeypatch.setattr(Trainer, "classify", full)
    done = commands.eval("run", "--batch-size", "300")
    assert done.code == 1
    assert done.err == (
        "bnexp: out of memory: --batch-size=300 takes more memory than the device has left;"
        " try a smaller one\n"
    )


@pytest.mark.parametrize("size", ["1", "10000"])
def test_another_batch_size_shows_the_same(commands, size):
    commands.bnexp("model=mlp_bn", *SMALL, "hydra.run.dir=run")
    assert commands.eval("run", "--batch-size", size).out == commands.eval("run").out
    assert commands.eval("run", "--batch-size", "0").err == "bnexp: --batch-size=0: must be at least 1\n"
