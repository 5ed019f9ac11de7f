"""Curves of a sweep, a thin line a seed, a thick one the mean: python scripts/figures.py SWEEP --out PNG

With --table TAG, as in --table test/accuracy, the same means, sd over seeds, epoch by epoch in Markdown.
Groups are what differs between the runs other than the seed. The split shown is val, or test where nothing
was held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import pandas as pd

from bnexp.report.table import group_name, varying_keys
from bnexp.runs import load_summary

matplotlib.use("agg")
from matplotlib import pyplot as plt

# Okabe and Ito (2008): told apart by colour-blind readers; the dashes by readers in grey.
STYLES = [("#000000", "-"), ("#0072B2", "--"), ("#D55E00", "-."), ("#009E73", ":"), ("#CC79A7", (0, (5, 1)))]


def curves(sweep: Path) -> dict[str, list[pd.DataFrame]]:
    """metrics.csv of every finished run, by group."""
    folders = sorted(path.parent for path in sweep.glob("*/summary.json"))
    summaries = [load_summary(folder) for folder in folders]
    keys = varying_keys(summaries)
    groups: dict[str, list[pd.DataFrame]] = {}
    for folder, summary in zip(folders, summaries, strict=True):
        if summary["status"] == "finished":
            groups.setdefault(group_name(summary, keys), []).append(pd.read_csv(folder / "metrics.csv"))
    return groups


def draw(groups: dict[str, list[pd.DataFrame]], out: Path, title: str) -> None:
    first = next(iter(groups.values()))[0]
    split = "val" if first["val/accuracy"].notna().any() else "test"
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for panel, (tag, label) in zip(
        panels, [(f"{split}/accuracy", f"{split} accuracy (%)"), ("train/loss", "train loss")], strict=True
    ):
        scale = 100 if tag.endswith("accuracy") else 1
        for (name, runs), (color, dashes) in zip(groups.items(), STYLES, strict=False):
            for run in runs:
                panel.plot(run["epoch"], scale * run[tag], color=color, alpha=0.25, linewidth=0.8)
            mean = pd.concat(runs).groupby("epoch")[tag].mean() * scale
            panel.plot(
                mean.index, mean, color=color, linestyle=dashes, linewidth=2, label=f"{name} (n={len(runs)})"
            )
        panel.set_xlabel("epoch")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
        panel.xaxis.get_major_locator().set_params(integer=True)
    panels[1].set_yscale("log")
    panels[0].legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(out, dpi=130)


def table(groups: dict[str, list[pd.DataFrame]], tag: str) -> str:
    """A row a group: mean ± sd of ``tag`` over the seeds at each epoch."""
    epochs = next(iter(groups.values()))[0]["epoch"].tolist()
    rows = [f"| {tag} | n | " + " | ".join(map(str, epochs)) + " |", "|---|---|" + "---|" * len(epochs)]
    for name, runs in groups.items():
        by_epoch = pd.concat(runs).groupby("epoch")[tag]
        cells = [f"{mean:.4f} ± {sd:.4f}" for mean, sd in zip(by_epoch.mean(), by_epoch.std(), strict=True)]
        rows.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="append", default=[], metavar="TAG")
    parser.add_argument("--title", default="")
    words = parser.parse_args()
    groups = curves(words.sweep)
    for tag in words.table:
        print(table(groups, tag), end="\n\n")
    if words.out:
        draw(groups, words.out, words.title)


if __name__ == "__main__":
    main()
