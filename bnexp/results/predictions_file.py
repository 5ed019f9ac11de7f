"""The file of ``bnexp-eval --predictions``: a line for each image of a split."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import torch
from torch import Tensor

from bnexp.config.schema import Config
from bnexp.data import Split
from bnexp.data.folder_layout import list_images
from bnexp.errors import UserError
from bnexp.seeding import seed_global
from bnexp.training.trainer import Trainer

COLUMNS = ("image", "label", "prediction", "probability")


@torch.inference_mode()
def class_probabilities(trainer: Trainer, batches: Split, batch_size: int) -> Tensor:
    """Softmax of the logits for each image of a split: float32 (N, classes), on the CPU."""
    trainer.model.eval()
    seed_global(trainer.seed, "evaluation")  # as ``Trainer.classify``: a network may draw in eval mode
    rows = []
    for images, _ in batches.in_order(batch_size):
        with trainer.device.autocast():
            logits = trainer.eval_network(images)
        rows.append(logits.float().softmax(1).cpu())
    return torch.cat(rows)


def image_names(config: Config, split: str, batches: Split) -> list[str]:
    """The name of each image of a split: its path below ``dataset.root``, or its number in the split."""
    if config.dataset.name != "image_folder":
        return [str(number) for number in range(len(batches))]
    listing = list_images(Path(os.path.expanduser(str(config.dataset.root))))
    rows = listing.test if split == "test" else listing.train
    index = range(len(rows)) if batches.index is None else batches.index.tolist()
    return [rows[i][0] for i in index]


def write_predictions(
    path: Path,
    names: list[str],
    labels: list[int],
    probabilities: Tensor,
    classes: tuple[str, ...],
    *,
    typed_path: Path,
) -> str:
    """Writes names of classes, the probability of the predicted class, and those of all classes."""
    predictions = probabilities.argmax(1).tolist()
    try:
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, *(f"p({name})" for name in classes)])
            for name, label, prediction, row in zip(
                names, labels, predictions, probabilities.tolist(), strict=True
            ):
                shares = [f"{share:.6g}" for share in row]
                writer.writerow([name, classes[label], classes[prediction], shares[prediction], *shares])
    except OSError as error:
        raise UserError(f"--predictions={typed_path}: cannot be written ({error.strerror})") from error
    return f"predictions in {typed_path}"


def is_predictions(path: Path) -> bool:
    """Whether ``write_predictions`` wrote this file, or it is none that would be replaced."""
    if not path.is_file():  # /dev/stdout, for example: nothing is replaced
        return True
    with path.open("rb") as file:
        return file.readline(100).decode(errors="replace").startswith(",".join(COLUMNS))
