"""Runs the published measurements and writes docs/science: python scripts/science.py [PRESET ...]

A measurement that was run before is taken from outputs/science. Each is a sweep: ``bnexp experiment=PRESET``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bnexp.cli.exit_codes import exit_code
from bnexp.errors import UserError
from bnexp.files import write_json, write_text

ROOT = Path(__file__).parent.parent
PRESETS, PAGE = ROOT / "conf" / "experiment", ROOT / "docs" / "science"
SWEEPS = ROOT / "outputs" / "science"
ORDER = (
    "yang2019_gradient_growth", "daneshmand2020_rank_collapse", "li2019_variance_shift",
    "cohen2021_edge_of_stability", "wu2021_precise_statistics", "ioffe2015_figure1", "santurkar2018_figure4",
    "bjorck2018_gradients", "ghorbani2019_spectrum", "wuhe2018_batch_size", "luo2019_ghost_batches",
    "desmith2020_residual_depth",
)  # fmt: skip
INTRODUCTION = """# Why does batch norm help? Published measurements, each by one command

- Each section is one preset: a sweep that ends in a picture, numbers beside theory, and sentences.
- The numbers stand with a 95 % interval over seeds. A sentence says so where a published claim does not show.
- The networks and data are smaller than in the papers: everything here ran on two CPU cores.
- `probes=[...]` takes the same measurements in any run of yours: [the microscope](../concepts/microscope.md).
- `python scripts/science.py` ran all of it and wrote this page.
"""


def run_preset(name: str) -> None:
    """Trains the sweep of a preset, unless a complete one is there, and notes how long it took."""
    sweep, note = SWEEPS / name, SWEEPS / f"{name}.json"
    if note.exists():
        return
    shutil.rmtree(sweep, ignore_errors=True)
    start = time.monotonic()
    command = [sys.executable, "-m", "bnexp.train", f"experiment={name}", f"hydra.sweep.dir={sweep}"]
    result = subprocess.run(command, check=False)
    if not (sweep / "comparison.json").exists():
        raise UserError(f"{name}: ended with exit code {result.returncode} and without a comparison")
    write_json(note, {"seconds": round(time.monotonic() - start)})


def section(name: str) -> str:
    """The preset's section of the page; its pictures are copied."""
    sweep = SWEEPS / name
    record = json.loads((sweep / "comparison.json").read_text(encoding="utf-8"))
    seconds = json.loads((SWEEPS / f"{name}.json").read_text(encoding="utf-8"))["seconds"]
    question, _, recipe = description(name).partition("? ")
    command = f"    bnexp experiment={name}    # {duration(seconds)}"
    lines = [f"## {question}?", "", recipe, "", command, ""]
    pictures = [f"probe-{measurement['probe']}" for measurement in record["measurements"]]
    for picture in pictures or ["forest"]:
        target = f"{name}-{picture.removeprefix('probe-')}.png"
        (PAGE / "images").mkdir(parents=True, exist_ok=True)
        shutil.copy(sweep / f"{picture}.png", PAGE / "images" / target)
        lines += [f"![{picture}](images/{target})", ""]
    lines += [f"- {sentence}" for sentence in sentences(record)]
    return "\n".join([*lines, ""])


def description(name: str) -> str:
    """The comment that begins the preset's file: a question, then the recipe with its source."""
    lines = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines[1:] if line.startswith("# ")).removeprefix("# ")


def sentences(record: dict[str, Any]) -> list[str]:
    """What the probes show, then the answer on accuracy; without probes also the verdict's sentences."""
    measured = [sentence for measurement in record["measurements"] for sentence in measurement["sentences"]]
    return [*(measured or record["verdict"]), f"Accuracy: {record['answer']}"]


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def write_page() -> None:
    names = [name for name in ORDER if (SWEEPS / f"{name}.json").exists()]
    total = sum(json.loads((SWEEPS / f"{name}.json").read_text())["seconds"] for name in names)
    parts = [INTRODUCTION, f"All {len(names)} measurements took {duration(total)} on two cores.\n"]
    write_text(PAGE / "README.md", "\n".join([*parts, *map(section, names)]))


def make_gallery(names: list[str]) -> None:
    missing = [name for name in names if not (PRESETS / f"{name}.yaml").exists()]
    if missing:
        raise UserError(f"{missing[0]}: no preset; choose from {', '.join(ORDER)}")
    for name in names:
        run_preset(name)
    write_page()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="default: all")
    args = parser.parse_args()
    SWEEPS.mkdir(parents=True, exist_ok=True)
    PAGE.mkdir(parents=True, exist_ok=True)
    sys.exit(exit_code(lambda: make_gallery(args.presets or list(ORDER))))


if __name__ == "__main__":
    main()
