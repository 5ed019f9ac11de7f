"""The golden loss curves: the loss of every step of a few short runs on the embedded data.

    python scripts/golden.py            # trains, and writes tests/golden/*.csv
    python scripts/golden.py --check    # trains, and compares; exits with 1 if a curve has changed

tests/training/test_golden.py compares them too: a refactor must give the same curves. If a change moves them
on purpose, write them again and say why in the commit.
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
# Processors round differently: with the kernels of SSE4.1, AVX2 and AVX-512 these curves differ by at most
# 4e-5. This needs small learning rates. With larger ones, rounding decides which pixel a max-pool takes.
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


def overrides(name: str) -> list[str]:
    """The recipe's arguments to ``bnexp``."""
    return [*COMMON, *RECIPES[name].split()]


def read_losses(file: Path) -> list[float]:
    """The loss of every step in a CSV file: a run's steps.csv or a golden curve."""
    with file.open(newline="") as rows:
        return [float(row["train/loss"]) for row in csv.DictReader(rows)]


def golden_losses(name: str) -> list[float]:
    """The committed curve."""
    return read_losses(FOLDER / f"{name}.csv")


def find_deviation(name: str, losses: list[float]) -> str | None:
    """The first step whose loss differs from the committed curve by more than RTOL, in words; or None."""
    golden = golden_losses(name)
    if len(losses) != len(golden):
        return f"{name}: {len(losses)} steps, and {len(golden)} in the golden curve"
    for step, (loss, expected) in enumerate(zip(losses, golden, strict=True), start=1):
        if not math.isclose(loss, expected, rel_tol=RTOL):
            return f"{name}: the loss of step {step} is {loss:.7g}, and {expected:.7g} in the golden curve"
    return None


def train_recipe(name: str) -> list[float]:
    """Trains one recipe as the command does; the loss of every step."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["bnexp", *overrides(name), f"hydra.run.dir={folder}"]
        with patch.object(sys, "argv", command), redirect_stdout(StringIO()):
            try:
                train.main()
            except SystemExit as error:
                if error.code:
                    raise
        return read_losses(Path(folder, "steps.csv"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed curves and write nothing"
    )
    check = parser.parse_args().check
    deviations = 0
    for name in RECIPES:
        losses = train_recipe(name)
        if check:
            pairs = zip(losses, golden_losses(name), strict=False)
            largest = max(abs(loss / golden - 1) for loss, golden in pairs)
            deviation = find_deviation(name, losses)
            deviations += deviation is not None
            print(deviation or f"{name}: within {largest:.1e} of the golden curve")
        else:
            rows = [f"{step},{loss:.7g}" for step, loss in enumerate(losses, start=1)]
            (FOLDER / f"{name}.csv").write_text("\n".join(["step,train/loss", *rows]) + "\n")
            print(f"{name}: {len(losses)} steps written, from {losses[0]:.4f} to {losses[-1]:.4f}")
    sys.exit(1 if deviations else 0)


if __name__ == "__main__":
    main()
