"""``python -m bnexp`` is ``bnexp``."""

from bnexp.cli.entry_points import train

if __name__ == "__main__":
    train()
