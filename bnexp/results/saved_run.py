"""A run's folder as an object: configuration, summary, metrics, network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnexp.errors import UserError
from bnexp.report.read.metrics_csv import METRICS_FILE, read_metrics
from bnexp.report.read.runs import find_runs
from bnexp.results.columns import Columns
from bnexp.results.saved_config import load_config, read_values
from bnexp.runs.summary import SUMMARY, check_is_training, load_summary

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from bnexp.data.network_input import NetworkInput
    from bnexp.results.predict import Prediction

    Image = str | os.PathLike[str]
    Images = Image | Sequence[Image] | Tensor | np.ndarray


class SavedRun:
    """One run, finished or not. Its folder is all that it needs: no data set, no module of bnexp.

    Raises UserError where ``folder`` holds no run of ``bnexp``.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder")
        runs = [] if (self.folder / SUMMARY).exists() else [*find_runs(self.folder)]
        if runs not in ([], [self.folder]):
            raise UserError(f"{self.folder}: holds {len(runs)} runs; bnexp.open_sweep opens them")
        self.summary: dict[str, Any] = load_summary(self.folder)  # summary.json
        check_is_training(self.folder)

    def __repr__(self) -> str:
        accuracy = (self.summary.get("final") or {}).get("test/accuracy")
        result = "" if accuracy is None else f", test accuracy {accuracy:.4f}"
        return f"<run {self.folder}: {self.summary['status']}{result}>"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration as nested dictionaries: ``run.config["optimizer"]["lr"]``."""
        return read_values(self.folder)

    @cached_property
    def metrics(self) -> Columns:
        """The columns of metrics.csv as float64 arrays (epochs,), nan where a cell is empty.

        A warning says where a damaged row ends them. Raises UserError where the run has written none.
        """
        columns, problem = read_metrics(self.folder)
        if not columns:
            status = self.summary["status"]
            raise UserError(f"{self.folder / METRICS_FILE}: no metrics ({problem}); the run is {status}")
        if problem:
            warnings.warn(f"{self.folder / METRICS_FILE}: {problem}", stacklevel=2)
        return Columns.of(columns)

    @cached_property
    def input(self) -> NetworkInput:
        """What the network reads: channels, sizes, mean, std; and the names of its classes."""
        from bnexp.data.network_input import NetworkInput

        return NetworkInput.from_record(self.summary.get("input"), self.folder)

    def model(self, checkpoint: str = "last", *, trust: Collection[str] = ()) -> nn.Module:
        """The network with the weights of a ``checkpoint`` (last, best, epoch-N), on the CPU, in eval mode.

        It reads what ``preprocess`` returns and gives logits (N, classes). ``trust`` names a ``_target_``
        of your own whose code may run, as ``--trust`` of bnexp-eval does. Raises UserError for a checkpoint
        that is missing or does not fit.
        """
        from bnexp.results.network import load_network

        config = load_config(self.folder, "cpu", trust)
        return load_network(self.folder, config, self.input, checkpoint)[0]

    def preprocess(self, images: Images) -> Tensor:
        """What the network reads: float32 (N, C, S, S), on the CPU.

        ``images`` is the path of an image file, a list of paths, or uint8 (N, C, H, W) or (C, H, W) in the
        size of the data set. Raises UserError for anything else.
        """
        from bnexp.results.predict import preprocess

        return preprocess(images, self.input)

    def predict(
        self, images: Images, checkpoint: str = "last", *, trust: Collection[str] = ()
    ) -> list[Prediction]:
        """The class of each image, with the probabilities of all classes. Arguments as above."""
        from bnexp.results.predict import predict

        return predict(self.model(checkpoint, trust=trust), self.preprocess(images), self.input.classes)
