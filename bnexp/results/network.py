"""The trained network of a run's folder."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from torch import nn

from bnexp.config.schema import Config
from bnexp.data.network_input import NetworkInput
from bnexp.errors import UserError, forbid_exit, one_line
from bnexp.runs.summary import check_same_run, load_summary
from bnexp.training import build, checkpoint


def load_network(
    run: Path, config: Config, data: NetworkInput, name: str
) -> tuple[nn.Module, dict[str, Any]]:
    """The network on the CPU in eval mode, and the state of the checkpoint ``name``.

    Raises UserError where the checkpoint is missing, or another run's, or does not fit the network.
    """
    with forbid_exit("the network"):
        network = build.model(config, data)
    path = checkpoint_path(run, name)
    state = checkpoint.load(path)
    check_same_run(state, path)
    checkpoint.check_layer_order(f"model._target_={config.model.target}", network, state["model"])
    try:
        network.load_state_dict(state["model"])
    except (RuntimeError, TypeError, AttributeError) as error:  # the last two: it is no state dict
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise UserError(f"{run}: the checkpoint does not fit the run's network ({reason})") from error
    network.eval()  # its result is not used: one of the user's own may return nothing
    return network, state


def checkpoint_path(run: Path, name: str) -> Path:
    """The path of a checkpoint. Raises UserError where it is missing, with the names of those that exist."""
    paths = {path.stem: path for path in sorted((run / "checkpoints").glob("*.pt"))}
    if name in paths:  # a name, not a path: ../../other/checkpoints/last would be another run's
        return paths[name]
    if paths:
        raise UserError(f"--checkpoint={name or repr('')}: {run} has {', '.join(paths)}")
    summary = load_summary(run)
    raise UserError(
        one_line(f"{run}: no checkpoint; {summary['status']}: {summary.get('error') or 'nothing saved'}")
    )
