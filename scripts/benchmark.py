"""How fast bnexp is, against its ceiling and the tutorials' way, on this machine.

    BNEXP_DATA_DIR=... python scripts/benchmark.py [PART ...] [--models M ...] [--repeats 5] [--output DIR]

The parts: {parts}.
All but gpu, which is made by its name alone, take some twenty minutes on two quiet cores. What is compared is
measured in turn, so that a busy machine slows both alike; tables are printed and saved as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command does

import torch

from bench import commands, gpu, many, training
from bench.recipes import RECIPES
from bench.table import Table

Part = Callable[[list[str], int, float], list[Table]]
# Each with the models it takes where none are named.
PARTS: dict[str, tuple[Part, tuple[str, ...]]] = {
    "train": (training.train, tuple(RECIPES)),
    "evaluate": (training.evaluate, tuple(RECIPES)),
    "recording": (training.recording, ("mlp_bn", "conv_bn")),
    "profile": (training.profile, tuple(RECIPES)),
    "growth": (training.growth, ("mlp_bn", "conv_bn")),
    "startup": (commands.startup, ()),
    "memory": (commands.memory, ()),
    "sweep": (commands.sweep, ()),
    "parallel": (many.parallel, ()),
    "launchers": (many.launchers, ()),
    "processes": (many.processes, ()),
    "compare": (many.compare, ()),
    "gpu": (gpu.gpu, ()),
}


def machine() -> dict[str, str]:
    """What the numbers hold for."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), processor)
    versions = ("bnexp", "torch", "torchvision", "numpy", "hydra-core")
    return {
        "processor": f"{processor}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "platform": platform.platform(),
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{name} {metadata.version(name)}" for name in versions),
            ]
        ),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def main() -> None:
    doc = (__doc__ or "").format(parts=", ".join(PARTS))
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="all but gpu where none is named")
    parser.add_argument("--models", nargs="+", choices=list(RECIPES), help="instead of a part's own")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images and passes (1)")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark"), help="%(default)s")
    words = parser.parse_args()
    if unknown := set(words.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: no such part; there is {', '.join(PARTS)}")
    if not os.environ.get("BNEXP_DATA_DIR"):
        sys.exit("benchmark: set BNEXP_DATA_DIR to the folder that holds MNIST and CIFAR-10")
    os.environ["BNEXP_DATA_DIR"] = os.path.abspath(os.environ["BNEXP_DATA_DIR"])
    run(
        words.parts or [part for part in PARTS if part != "gpu"],
        words.models,
        words.repeats,
        words.scale,
        words.output,
    )


def run(
    parts: list[str], models: list[str] | None, repeats: int, scale: float, output: Path
) -> dict[str, list[Table]]:
    """Measures, prints and saves after each part, so that what is done is kept."""
    here, found, took = machine(), {}, {}
    head = "\n".join(f"- {name}: {value}" for name, value in here.items())
    print(f"{head}\n- repeats: {repeats}\n", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    for name in parts:
        part, usual = PARTS[name]
        started = time.monotonic()
        found[name] = part(models or list(usual), repeats, scale)
        took[name] = round(time.monotonic() - started)
        print("\n".join(table.markdown() for table in found[name]), flush=True)
        page = "\n".join(table.markdown() for tables in found.values() for table in tables)
        (output / "benchmark.md").write_text(f"{head}\n- repeats: {repeats}\n\n{page}")
        values = {key: [asdict(table) for table in tables] for key, tables in found.items()}
        text = json.dumps({"machine": here, "repeats": repeats, "took_s": took, "parts": values}, indent=2)
        (output / "benchmark.json").write_text(text + "\n")
    return found


if __name__ == "__main__":
    main()
