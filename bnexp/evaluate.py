"""``bnexp-eval RUN_DIR``: a checkpoint evaluated from its run folder alone."""

from __future__ import annotations

import argparse
import csv
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bnexp.cli import argument_parser, composed_config, exit_codes
from bnexp.config.schema import COMPONENTS, Config, parse
from bnexp.config.trust import check_target
from bnexp.errors import UserError, one_line
from bnexp.files import write_atomically
from bnexp.runs.environment import recorded_threads
from bnexp.runs.folder import load_summary


def arguments() -> argparse.Namespace:
    """The words of the command line; raises UserError for one that is not understood."""
    parser = argument_parser.ArgumentParser(
        prog="bnexp-eval",
        description="Evaluates a run's checkpoint: accuracy, loss, per-class accuracy, confusion matrix.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the folder of a run")
    parser.add_argument("--checkpoint", default="last", help="last (the default), best, or epoch-N")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the run's own")
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="write label and prediction of every image as CSV"
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images a step, instead of the run's eval_batch_size"
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write the weights as safetensors, to be read without bnexp",
    )
    parser.add_argument(
        "--trust", action="append", default=[], metavar="TARGET",
        help="a _target_ of the run that is neither bnexp's nor torch's and may be imported",
    )  # fmt: skip
    return parser.parse_args()


def read_config(run: Path, device: str | None, trusted: list[str]) -> Config:
    """The run's configuration, as it was saved; refuses a ``_target_`` that nobody vouched for."""
    load_summary(run)
    try:
        composed = OmegaConf.load(run / ".hydra" / "config.yaml")
        hydra = OmegaConf.load(run / ".hydra" / "hydra.yaml").hydra
        # Hydra itself is not running: ${hydra:...} means what it meant to the run.
        OmegaConf.register_new_resolver("hydra", lambda key: OmegaConf.select(hydra, key), replace=True)
        values = composed_config.resolve_config(composed)  # type: ignore[arg-type]
        root = values["dataset"]["root"]
        if root is not None and Path(hydra.runtime.cwd, root).exists():
            values["dataset"]["root"] = str(Path(hydra.runtime.cwd, root))
        if device is not None:
            values["device"]["name"] = device
    except UserError:
        raise
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise UserError(f"{run / '.hydra'}: the run's configuration cannot be read ({reason})") from error
    config = parse(values)
    for group in COMPONENTS:
        check_target(f"{group}._target_", getattr(config, group).target, trusted)
    return config


def evaluate(words: argparse.Namespace) -> None:
    config = read_config(words.run, words.device, words.trust)

    from bnexp.compute import device, memory, process_tuning
    from bnexp.report.render.confusion import confusion_matrix, format_confusion
    from bnexp.training import build, checkpoint

    size = config.eval_batch_size if words.batch_size is None else words.batch_size
    if size < 1:
        raise UserError(f"--batch-size={size}: must be at least 1")
    config = replace(config, device=device.evaluation_settings(config.device))
    place = device.prepare_device(config.device)
    images = build.load_splits(config, place)
    batches = getattr(images, words.split)
    if batches is None:
        raise UserError("--split=val: this run had no validation set (dataset.val_size=0)")
    network = build.model(config, images)
    process_tuning.set_threads(config.device.threads or recorded_threads(words.run), float("inf"))
    state = checkpoint.load(_path(words.run, words.checkpoint))
    try:
        network.load_state_dict(state["model"])
    except (RuntimeError, TypeError, AttributeError) as error:  # the last two: not a state dict at all
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise UserError(f"{words.run}: the checkpoint does not fit the run's network ({reason})") from error
    trainer = build.trainer(config, network, place, images)
    with memory.memory_guard(f"--batch-size={size}"):
        loss, accuracy, classes = trainer.classify(batches, size)
    predictions = classes.tolist()
    labels = batches.labels.tolist()
    print(f"{words.run}, checkpoint {words.checkpoint}, {words.split}: {len(labels)} images, on {place}")
    print(f"accuracy {accuracy:.4f}, loss {loss:.4f}")
    print(format_confusion(confusion_matrix(labels, predictions, len(images.classes)), images.classes))
    if words.predictions is not None:
        _write(words.predictions, labels, predictions)
    if words.export is not None:
        _export(words, config, state)


def _path(run: Path, name: str) -> Path:
    """A run's checkpoint of this name; raises UserError that says what there is instead."""
    path = run / "checkpoints" / f"{name}.pt"
    if path.exists():
        return path
    there = ", ".join(sorted(found.stem for found in path.parent.glob("*.pt")))
    if there:
        raise UserError(f"--checkpoint={name}: {run} has {there}")
    summary = load_summary(run)
    raise UserError(
        one_line(f"{run}: no checkpoint; {summary['status']}: {summary.get('error') or 'nothing saved'}")
    )


def _write(path: Path, labels: list[int], predictions: list[int]) -> None:
    try:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "prediction"])
            writer.writerows((i, *pair) for i, pair in enumerate(zip(labels, predictions, strict=True)))
    except OSError as error:
        raise UserError(f"--predictions={path}: cannot be written ({error.strerror})") from error
    print(f"predictions in {path}")


def _export(words: argparse.Namespace, config: Config, state: dict[str, Any]) -> None:
    """The state dict as it is, every name and number; what it belongs to stands in the file's metadata."""
    from safetensors.torch import save

    model, summary = config.model, load_summary(words.run)
    metadata = {
        "model": f"{model.target}({', '.join(f'{key}={value!r}' for key, value in model.keys.items())})",
        "dataset": config.dataset.name,
        "config_hash": str(summary.get("config_hash")),
        "checkpoint": f"{words.checkpoint}, after epoch {state.get('progress', {}).get('epoch')}",
        "format": "pt",
    }
    weights = {name: value.contiguous().clone() for name, value in state["model"].items()}
    try:
        write_atomically(words.export, lambda file: file.write(save(weights, metadata)))
    except OSError as error:
        raise UserError(f"--export={words.export}: cannot be written ({error.strerror})") from error
    print(f"{len(weights)} tensors in {words.export}")


def main() -> None:
    sys.exit(exit_codes.exit_code(lambda: evaluate(arguments())))


if __name__ == "__main__":
    main()
