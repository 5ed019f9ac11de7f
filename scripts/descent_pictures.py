"""Draws docs/concepts/learning_rates.md's pictures: python scripts/descent_pictures.py docs/images/descent

Each picture is that of a command, which is printed with its output. Only the picture of regression joins
three commands: each batch size has a learning rate of its own.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_module

from bnexp.cli.composed_config import resolve_config
from bnexp.cli.exit_codes import exit_code
from bnexp.descent.outcome import judge
from bnexp.descent.path import Descent
from bnexp.descent.picture import draw_paths
from bnexp.descent.ranking import Arm
from bnexp.descent.settings import parse
from bnexp.files import write_atomically

COMMANDS = {
    "rates": "-m function=square start=10 steps=10 optimizer.lr=0.05,0.2,1.1",
    "local_minimum": "-m function=wave start=10 steps=10 optimizer.lr=0.1,2",
    "ellipse": "-m steps=20 optimizer=sgd,momentum,preconditioned,newton",
    "newton_bowl": "-m function=cosh start=10 steps=10 optimizer=sgd,newton",
    "newton_wave": "-m function=wave start=10 steps=10 optimizer=newton optimizer.lr=1,0.5",
    "noise": "-m noise=1 steps=50 scheduler=none,exponential,inverse_sqrt",
    "saddle": "-m function=saddle steps=25 optimizer=sgd,newton",
    "cubic": "function=cubic steps=100 optimizer.lr=0.05",
    "tanh": "-m function=tanh start=4,1 steps=20 optimizer.lr=1",
    "ripple": "-m function=ripple steps=20 optimizer.lr=0.02,0.1",
    "valley": "-m function=rosenbrock steps=500 optimizer=sgd,momentum optimizer.lr=0.001",
}
REGRESSION = [
    "function=regression batch_size=442 epochs=6 optimizer.lr=0.4",
    "function=regression batch_size=10 epochs=6 optimizer.lr=0.05",
    "function=regression batch_size=1 epochs=6 optimizer.lr=0.005",
]


def draw_command(arguments: str, picture: Path) -> None:
    """Runs bnexp-descend and copies its picture."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "bnexp.descend", *shlex.split(arguments), "tracking.tensorboard=false",
            f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}",
        ]  # fmt: skip
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"bnexp-descend {arguments}\n{output}")
        (drawn,) = [*Path(folder).glob("paths.png"), *Path(folder).glob("path.png")]
        shutil.copy(drawn, picture)


def draw_regression(picture: Path) -> None:
    """Runs the descents of regression in this process and draws them together."""
    arms = []
    for arguments in REGRESSION:
        with initialize_config_module("bnexp.conf.descent", version_base="1.3"):
            values = resolve_config(compose("config", overrides=["name=regression", *arguments.split()]))
        config = parse(values)
        path = Descent(config).run()
        label = f"batch_size={config.batch_size} lr={config.optimizer.keys['lr']}"
        arms.append(Arm(label, config, path, judge(path, config.tolerance)))
    write_atomically(picture, draw_paths(arms).write_png)


def draw_all(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, arguments in COMMANDS.items():
        draw_command(arguments, folder / f"{name}.png")
    for arguments in REGRESSION:
        draw_command(arguments, folder / "regression.png")
    draw_regression(folder / "regression.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    sys.exit(exit_code(lambda: draw_all(args.folder)))


if __name__ == "__main__":
    main()
