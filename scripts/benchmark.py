"""The speed of bnexp on this machine, against its ceiling and against the training loop of common tutorials.

    BNEXP_DATA_DIR=... python scripts/benchmark.py [PART ...] [--models M ...] [--repeats 5] [--output DIR]

The parts: {parts}.
Without a PART, all parts but gpu are measured: about half an hour on two idle cores. Measurements to be
compared are taken in turn, so that a busy machine slows all of them alike. The tables are printed, and saved
as JSON and Markdown.
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

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as bnexp sets it; must be set before torch is imported

import torch

from bench import commands, denormals, fused, gpu, layouts, overhead, probes, profiling, scaling, training
from bench.recipes import RECIPES
from bench.table import Table

Part = Callable[[list[str], int, float], list[Table]]  # models, repeats, scale -> tables
# Each part with the models that it measures unless --models names others.
PARTS: dict[str, tuple[Part, tuple[str, ...]]] = {
    "train": (training.train, tuple(RECIPES)),
    "evaluate": (training.evaluate, tuple(RECIPES)),
    "recording": (profiling.recording, ("mlp_bn", "conv_bn")),
    "profile": (profiling.profile, tuple(RECIPES)),
    "overhead": (overhead.overhead, ("mlp_bn", "conv_bn")),
    "growth": (training.growth, ("mlp_bn", "conv_bn")),
    "fused": (fused.fused, ("mlp", "mlp_bn", "conv", "conv_bn", "lenet_bn")),
    "layouts": (layouts.layouts, ("conv", "conv_bn", "lenet_bn")),
    "probes": (probes.probes, ("mlp_bn", "conv_bn")),
    "denormals": (denormals.denormals, ()),
    "startup": (commands.startup, ()),
    "memory": (commands.memory, ()),
    "sweep": (commands.sweep, ()),
    "parallel": (scaling.parallel, ()),
    "launchers": (scaling.launchers, ()),
    "processes": (scaling.processes, ()),
    "compare": (scaling.compare, ()),
    "gpu": (gpu.gpu, ()),
}


def describe_machine() -> dict[str, str]:
    """The hardware and software that the numbers belong to."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), processor)
    packages = ("bnexp", "torch", "torchvision", "numpy", "hydra-core")
    versions = [
        f"Python {platform.python_version()}",
        *(f"{name} {metadata.version(name)}" for name in packages),
    ]
    return {
        "processor": f"{processor}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "platform": platform.platform(),
        "versions": ", ".join(versions),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def main() -> None:
    doc = (__doc__ or "").format(parts=", ".join(PARTS))
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure (default: all but gpu)")
    parser.add_argument("--models", nargs="+", choices=list(RECIPES), help="default: each part's own")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (%(default)s)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="fraction of images and passes (%(default)g)"
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark"), help="folder (%(default)s)")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"PART={', '.join(sorted(unknown))}: must be one of {', '.join(PARTS)}")
    if not os.environ.get("BNEXP_DATA_DIR"):
        sys.exit("benchmark: set BNEXP_DATA_DIR to the folder that holds MNIST and CIFAR-10")
    os.environ["BNEXP_DATA_DIR"] = os.path.abspath(os.environ["BNEXP_DATA_DIR"])
    parts = args.parts or [part for part in PARTS if part != "gpu"]
    run_parts(parts, args.models, args.repeats, args.scale, args.output)


def run_parts(parts: list[str], models: list[str] | None, repeats: int, scale: float, output: Path) -> None:
    """Measures the parts. Prints and saves after each one: an interrupted benchmark keeps its results."""
    machine = describe_machine()
    tables: dict[str, list[Table]] = {}
    seconds: dict[str, int] = {}
    head = "\n".join(f"- {name}: {value}" for name, value in (machine | {"repeats": repeats}).items())
    print(f"{head}\n", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    for name in parts:
        part, default_models = PARTS[name]
        start = time.monotonic()
        tables[name] = part(models or list(default_models), repeats, scale)
        seconds[name] = round(time.monotonic() - start)
        print("\n".join(table.markdown() for table in tables[name]), flush=True)
        page = "\n".join(table.markdown() for part_tables in tables.values() for table in part_tables)
        (output / "benchmark.md").write_text(f"{head}\n\n{page}")
        record = {
            "machine": machine,
            "repeats": repeats,
            "seconds": seconds,
            "parts": {key: [asdict(table) for table in part_tables] for key, part_tables in tables.items()},
        }
        (output / "benchmark.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
