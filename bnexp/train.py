"""The entry point of a run and of a sweep: ``bnexp`` and ``python -m bnexp.train``.

This file imports nothing at its top: the workers of a sweep import it, and they need no Hydra.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Trains with these arguments, by default those of the command line, and ends the process."""
    try:
        from bnexp.cli.launch import end_in_spite_of_threads, launch
        from bnexp.hydra_entry import entry
    except KeyboardInterrupt:
        print("bnexp: interrupted (SIGINT)", file=sys.stderr)
        sys.exit(130)
    code = launch(entry, arguments)
    end_in_spite_of_threads(code)
    sys.exit(code)


if __name__ == "__main__":
    from bnexp.cli.entry_points import train

    train()
