"""The golden loss curves: every step's loss of a few short runs on the embedded data.

    python scripts/golden.py            # trains anew and writes tests/golden/*.csv
    python scripts/golden.py --check    # trains anew and compares; exits 1 where a curve has moved

tests/test_golden.py compares them too: a refactor must give the same curves. Where a change is meant to move
them, write them anew and say why in the commit.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from bnexp import train

FOLDER = Path(__file__).parent.parent / "tests" / "golden"
# Other processors round differently. With the kernels of SSE4.1, AVX2 and AVX-512 these curves differ by 4e-5
# at most; that rests on small steps, since a larger one lets rounding decide which pixel a max-pool takes.
RTOL = 1e-3

COMMON = (
    "device=cpu", "device.threads=1", "dataset.train_size=200", "dataset.test_size=50", "epochs=2",
    "batch_size=50", "tracking.tensorboard=false",
)  # fmt: skip
RECIPES = {
    "mlp": "model=mlp",
    "mlp_bn": "model=mlp_bn",
    "conv_bn": "model=conv_bn optimizer=momentum optimizer.lr=0.01",
    "lenet_bn": "model=lenet_bn optimizer=adam",
    "resnet": "model=resnet model.depths=[1,1] model.widths=[8,16] optimizer=adam optimizer.lr=0.003",
    "densenet": (
        "model=densenet model.blocks=[2,2] model.growth=8 model.stem_width=8"
        " optimizer=momentum optimizer.lr=0.02"
    ),
}


def words(name: str) -> list[str]:
    """What to type after ``bnexp``."""
    return [*COMMON, *RECIPES[name].split()]


def losses(run: Path) -> list[float]:
    """The loss of every step of the run in this folder."""
    with (run / "steps.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def golden(name: str) -> list[float]:
    """The committed curve."""
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def fault(name: str, found: list[float]) -> str | None:
    """Where ``found`` leaves the committed curve, or None."""
    wanted = golden(name)
    if len(found) != len(wanted):
        return f"{name}: {len(found)} steps, and {len(wanted)} in the golden curve"
    for step, (ours, theirs) in enumerate(zip(found, wanted, strict=True), start=1):
        if not math.isclose(ours, theirs, rel_tol=RTOL):
            return f"{name}: the loss of step {step} is {ours:.7g}, and {theirs:.7g} in the golden curve"
    return None


def run(name: str) -> list[float]:
    """Trains one recipe as the command does."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["bnexp", *words(name), f"hydra.run.dir={folder}"]
        with patch.object(sys, "argv", command), redirect_stdout(StringIO()):
            try:
                train.main()
            except SystemExit as end:
                if end.code:
                    raise
        return losses(Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    moved = 0
    for name in RECIPES:
        found = run(name)
        if check:
            furthest = max(abs(a / b - 1) for a, b in zip(found, golden(name), strict=False))
            problem = fault(name, found)
            moved += problem is not None
            print(problem or f"{name}: within {furthest:.1e} of the golden curve")
        else:
            rows = [f"{step},{loss:.7g}" for step, loss in enumerate(found, start=1)]
            (FOLDER / f"{name}.csv").write_text("\n".join(["step,train/loss", *rows]) + "\n")
            print(f"{name}: {len(found)} steps written, from {found[0]:.4f} to {found[-1]:.4f}")
    sys.exit(1 if moved else 0)


if __name__ == "__main__":
    main()
