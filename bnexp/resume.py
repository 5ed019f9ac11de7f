"""``bnexp-resume DIR``: the same command again into the same folder; what is finished there is skipped."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omegaconf import OmegaConf

from bnexp import cli, train
from bnexp.errors import UserError, one_line


def words_of(folder: Path) -> list[str]:
    """The command line that goes on with a run's or a sweep's folder, as Hydra saved it there."""
    sweep, run = folder / "multirun.yaml", folder / ".hydra" / "hydra.yaml"
    if not sweep.exists() and not run.exists():
        raise UserError(f"{folder}: neither a run's folder (no .hydra) nor a sweep's (no multirun.yaml)")
    try:
        saved = OmegaConf.load(sweep if sweep.exists() else run).hydra
        overrides = [*saved.overrides.hydra, *saved.overrides.task]
    except Exception as error:
        raise UserError(f"{folder}: what Hydra saved cannot be read ({one_line(error)})") from error
    place = "sweep" if sweep.exists() else "run"
    kept = [word for word in overrides if not word.startswith((f"hydra.{place}.dir=", "hydra.mode="))]
    sources = [s.path for s in saved.runtime.config_sources if s.provider == "command-line"]
    flags = ["-m"] if sweep.exists() else []
    flags += [word for path in sources for word in ("--config-dir", path)]
    return [*flags, *kept, f"hydra.{place}.dir={folder}"]


def arguments() -> argparse.Namespace:
    parser = cli.Parser(
        prog="bnexp-resume", description="Carries on what is unfinished in a run's or a sweep's folder."
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    return parser.parse_args()


def main() -> None:
    def prepare() -> None:
        sys.argv[1:] = words_of(arguments().folder)

    before = sys.argv[1:]
    code = cli.exit_code(prepare)
    if code or sys.argv[1:] == before:  # a mistake, or --help
        sys.exit(code)
    train.main()


if __name__ == "__main__":
    main()
