"""Training speed: bnexp's whole loop with its recording, the bare step, and the tutorials' way.

    BNEXP_DATA_DIR=... python scripts/benchmark.py [--repeats 5] [--json FILE]

All three train the same network on the same images in one process, one epoch each, in turn, so that a busy
machine slows them alike; the medians and their ratios are printed. Peak memory is that of fresh processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command does; it helps the tutorials' way as well

import torch
from hydra import compose, initialize_config_module
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from bnexp import build, cli, config, device
from bnexp.checkpoint import Checkpoints
from bnexp.engine import Progress, Trainer, fit
from bnexp.runs import StopSignal

RECIPES = {
    "mlp": ["experiment=mnist_mlp", "model.norm=none"],
    "mlp_bn": ["experiment=mnist_mlp"],
    "conv": ["experiment=mnist_conv", "model.norm=none"],
    "conv_bn": ["experiment=mnist_conv"],
}


def parse(overrides: list[str]) -> config.Config:
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        composed = compose("config", overrides=[*overrides, "name=benchmark"])
    return config.parse(cli.plain(composed))


def prepare(keys: config.Config) -> tuple[Trainer, build.Splits]:
    place = device.prepare(keys.device)
    images = build.splits(keys, place)
    network = build.model(keys, images)
    flops = build.summary(network, keys, images).flops
    device.set_threads(keys.device.threads, flops * keys.batch_size)
    return build.trainer(keys, network, place, images.train.steps(keys.batch_size)), images


def ours(keys: config.Config, folder: Path) -> float:
    """Images/s over one epoch as ``bnexp`` trains it: steps.csv, events and checkpoints included."""
    trainer, images = prepare(keys)
    steps = images.train.steps(keys.batch_size)
    tracker = build.tracker(keys, folder, steps)
    started = time.perf_counter()
    with StopSignal() as stop:
        fit(
            trainer, images.train, {}, epochs=1, batch_size=keys.batch_size,
            eval_batch_size=keys.eval_batch_size, seed=0, patience=None, window=keys.tracking.every,
            progress=Progress(), checkpoints=Checkpoints(folder / "checkpoints", every=1, keep=0),
            recorder=tracker, stop=stop,
        )  # fmt: skip
    elapsed = time.perf_counter() - started
    tracker.close()
    return len(images.train) / elapsed


def ceiling(keys: config.Config) -> float:
    """Images/s of the same step on one fixed batch with nothing around it."""
    trainer, images = prepare(keys)
    pixels, labels = next(images.train.epoch(keys.batch_size, 0, 1))
    network, loss, optimizer = trainer.model.train(), trainer.loss, trainer.optimizer
    steps = images.train.steps(keys.batch_size)
    started = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss(network(pixels), labels).backward()
        optimizer.step()
    return steps * keys.batch_size / (time.perf_counter() - started)


def tutorial(keys: config.Config) -> float:
    """Images/s of the tutorials' loop: a transform an image, a DataLoader, ``loss.item()`` each step."""
    trainer, _ = prepare(keys)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    data = datasets.MNIST(os.environ["BNEXP_DATA_DIR"], train=True, transform=transform)
    loader = DataLoader(data, batch_size=keys.batch_size, shuffle=True)
    network, loss, optimizer = trainer.model.train(), nn.CrossEntropyLoss(), trainer.optimizer
    total, correct = 0.0, 0
    started = time.perf_counter()
    for pixels, labels in loader:
        logits = network(pixels)
        value = loss(logits, labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        total += value.item()
        correct += (logits.argmax(1) == labels).sum().item()
    return len(data) / (time.perf_counter() - started)


def peak_memory(code: str) -> float:
    """Peak resident MiB of a fresh process, by the kernel's mark (ru_maxrss would count this one too)."""
    watch = (
        "print(next(line for line in open('/proc/self/status') if 'VmHWM' in line).split()[1], flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit\natexit.register(lambda: exec({watch!r}))\n{code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout.split()[-1]) / 1024


def memory() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = (
            f"import os, sys; os.chdir({folder!r}); sys.argv[1:] = ['experiment=mnist_mlp', 'epochs=1']\n"
            "from bnexp.train import main; main()"
        )
        peak_memory(run)  # the first run may build the cache
        torch_alone, whole = peak_memory("import torch"), peak_memory(run)
    images = 70_000 * 28 * 28 / 2**20
    return {
        "import_torch_mib": torch_alone, "run_mib": whole, "data_mib": images,
        "allowed_mib": torch_alone + 3 * images,
    }  # fmt: skip


def measure(name: str, repeats: int) -> dict[str, float]:
    keys = parse(RECIPES[name])
    found: dict[str, list[float]] = {"bnexp": [], "ceiling": [], "tutorial": []}
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], float]] = {
            "bnexp": lambda: ours(keys, Path(folder)),
            "ceiling": lambda: ceiling(keys),
            "tutorial": lambda: tutorial(keys),
        }
        ways["bnexp"]()  # warm: caches, allocator, thread pool
        for _ in range(repeats):
            for way, run in ways.items():
                found[way].append(run())
    return {way: statistics.median(values) for way, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), help=f"any of {', '.join(RECIPES)}")
    words = parser.parse_args()
    if "BNEXP_DATA_DIR" not in os.environ:
        sys.exit("benchmark: set BNEXP_DATA_DIR to the folder that holds MNIST")
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, torch {torch.__version__}, medians of {words.repeats}"
    )
    print(f"{'images/s':<10} {'bnexp':>9} {'ceiling':>9} {'tutorial':>9}  bnexp/ceiling  bnexp/tutorial")
    results = {}
    for name in words.recipes:
        row = results[name] = measure(name, words.repeats)
        a, b, c = row["bnexp"], row["ceiling"], row["tutorial"]
        print(f"{name:<10} {a:>9,.0f} {b:>9,.0f} {c:>9,.0f}  {a / b:>13.2f}  {a / c:>14.2f}", flush=True)
    used = memory()
    print(
        f"peak memory, mnist_mlp: {used['run_mib']:.0f} MiB; import torch {used['import_torch_mib']:.0f};"
        f" that with three times the {used['data_mib']:.0f} MiB of data {used['allowed_mib']:.0f}"
    )
    if words.json:
        words.json.write_text(json.dumps({"speed": results, "memory": used}, indent=2) + "\n")


if __name__ == "__main__":
    main()
