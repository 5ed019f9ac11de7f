"""``bnexp-eval RUN_DIR``: evaluates a checkpoint. The run's folder is all that it needs."""

from __future__ import annotations

import argparse
import csv
import sys
import textwrap
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bnexp.cli import composed_config, exit_codes
from bnexp.cli.argument_parser import ArgumentParser, named_path
from bnexp.config.schema import COMPONENTS, Config, parse
from bnexp.config.trust import check_target
from bnexp.errors import UserError, describe, forbid_exit, one_line
from bnexp.files import write_atomically
from bnexp.runs.environment import recorded_threads
from bnexp.runs.folder import check_is_training, check_same_run, load_summary
from bnexp.runs.identity import describe_changes

MAX_BATCH_SIZE = 2**31  # as eval_batch_size
PREDICTION_COLUMNS = ("image", "label", "prediction")


def arguments() -> argparse.Namespace:
    """The arguments of the command line. Raises UserError for one that is wrong."""
    parser = ArgumentParser(
        prog="bnexp-eval",
        description="Evaluates a run's checkpoint: accuracy, loss, per-class accuracy, confusion matrix.",
    )
    parser.add_argument("run", type=named_path, metavar="RUN_DIR", help="the folder of a run")
    parser.add_argument("--checkpoint", default="last", help="last (the default), best, or epoch-N")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), help="use this device instead of the run's"
    )
    parser.add_argument(
        "--predictions",
        type=named_path,
        metavar="FILE",
        help="write label and prediction of every image as CSV",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images in one step, instead of the run's eval_batch_size"
    )
    parser.add_argument(
        "--export",
        type=named_path,
        metavar="FILE",
        help="write the weights as safetensors, which other programs can read without bnexp",
    )
    parser.add_argument(
        "--trust", action="append", default=[], metavar="TARGET",
        help="allow this _target_ of the run, though it is no class of bnexp or torch: its code will run",
    )  # fmt: skip
    return parser.parse_args()


def load_config(run: Path, device: str | None, trusted_targets: Collection[str]) -> Config:
    """The configuration saved in the run's folder, on ``device`` if that is given.

    Raises UserError where it cannot be read or names a ``_target_`` that is not allowed.
    """
    load_summary(run)
    check_is_training(run)
    try:
        composed = OmegaConf.load(run / ".hydra" / "config.yaml")
        hydra = OmegaConf.load(run / ".hydra" / "hydra.yaml").hydra
        # Hydra is not running: ${hydra:...} is read from the file that it saved.
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
        reason = describe(error)
        raise UserError(f"{run / '.hydra'}: the run's configuration cannot be read ({reason})") from error
    config = parse(values)
    for group in COMPONENTS:
        check_target(f"{group}._target_", getattr(config, group).target, trusted_targets)
    return config


@forbid_exit("the network or the loss")
def evaluate(args: argparse.Namespace) -> None:
    config = load_config(args.run, args.device, args.trust)
    _warn_of_changes(args.run, config)

    from bnexp.compute import device, memory, process_tuning
    from bnexp.report.render.confusion import confusion_matrix, format_confusion
    from bnexp.training import build, checkpoint

    size = config.eval_batch_size if args.batch_size is None else args.batch_size
    if not 1 <= size <= MAX_BATCH_SIZE:
        raise UserError(f"--batch-size={size}: must be at least 1 and at most {MAX_BATCH_SIZE}")
    if args.predictions and args.export and args.predictions.resolve() == args.export.resolve():
        raise UserError(f"--export={args.export}: must not be the file of --predictions")
    _check_replaces_own("--predictions", args.predictions, _is_predictions)
    _check_replaces_own("--export", args.export, _is_export)
    config = replace(config, device=device.evaluation_settings(config.device))
    compute_device = device.prepare_device(config.device)
    images = build.load_splits(config, compute_device)
    batches = getattr(images, args.split)
    if batches is None:
        raise UserError("--split=val: this run had no validation set (dataset.val_size=0)")
    network = build.model(config, images)
    process_tuning.set_threads(config.device.threads or recorded_threads(args.run), float("inf"))
    path = _checkpoint_path(args.run, args.checkpoint)
    state = checkpoint.load(path)
    check_same_run(state, path)
    try:
        network.load_state_dict(state["model"])
    except (RuntimeError, TypeError, AttributeError) as error:  # the last two: it is no state dict
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise UserError(f"{args.run}: the checkpoint does not fit the run's network ({reason})") from error
    trainer = build.trainer(config, network, compute_device, images)
    with memory.memory_guard(f"--batch-size={size}"):
        loss, accuracy, classes = trainer.classify(batches, size)
    predictions, labels = classes.tolist(), batches.labels.tolist()
    notes = []  # the files are written before anything is printed
    if args.predictions is not None:
        notes.append(_write_predictions(args.predictions, labels, predictions))
    if args.export is not None:
        notes.append(_export_weights(args, config, state))
    print(
        f"{args.run}, checkpoint {args.checkpoint}, {args.split}: {len(labels)} images, on {compute_device}"
    )
    print(f"accuracy {accuracy:.4f}, loss {loss:.4f}")
    print(format_confusion(confusion_matrix(labels, predictions, len(images.classes)), images.classes))
    for note in notes:
        print(note)


def _warn_of_changes(run: Path, config: Config) -> None:
    """One line on standard error where the images or the user's own code are no longer those of the run."""
    values = asdict(config.dataset)
    targets = {group: {"_target_": getattr(config, group).target} for group in COMPONENTS}
    current = {"dataset": values, **targets}
    changes = describe_changes(load_summary(run), current, composed_config.fingerprints_of(current))
    if changes:
        print(f"bnexp-eval: {changes}: the numbers are not those of the run", file=sys.stderr)


def _checkpoint_path(run: Path, name: str) -> Path:
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


def _check_replaces_own(option: str, path: Path | None, is_own: Callable[[Path], bool]) -> None:
    """Raises UserError where the file exists and was not written with the same option before."""
    if path is not None and path.exists() and not is_own(path):
        raise UserError(f"{option}={path}: this file was not written by bnexp; choose another name")


def _is_predictions(path: Path) -> bool:
    if not path.is_file():  # /dev/stdout, for example: nothing is replaced
        return True
    with path.open("rb") as file:
        return file.readline(100).decode(errors="replace").strip() == ",".join(PREDICTION_COLUMNS)


def _is_export(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():  # a device: it would be replaced
        return False
    try:
        with safe_open(path, "pt") as file:
            return "config_hash" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def _write_predictions(path: Path, labels: list[int], predictions: list[int]) -> str:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(PREDICTION_COLUMNS)
            writer.writerows((i, *pair) for i, pair in enumerate(zip(labels, predictions, strict=True)))
    except OSError as error:
        raise UserError(f"--predictions={path}: cannot be written ({error.strerror})") from error
    return f"predictions in {path}"


def _export_weights(args: argparse.Namespace, config: Config, state: dict[str, Any]) -> str:
    """Writes the state dict with its own names and numbers. The metadata says which run it
    comes from."""
    from safetensors.torch import save

    model, summary = config.model, load_summary(args.run)
    metadata = {
        "model": f"{model.target}({', '.join(f'{key}={value!r}' for key, value in model.keys.items())})",
        "dataset": config.dataset.name,
        "config_hash": str(summary.get("config_hash")),
        "checkpoint": f"{args.checkpoint}, after epoch {state.get('progress', {}).get('epoch')}",
        "format": "pt",
    }
    weights = {name: value.contiguous().clone() for name, value in state["model"].items()}
    try:
        write_atomically(args.export, lambda file: file.write(save(weights, metadata)))
    except OSError as error:
        raise UserError(f"--export={args.export}: cannot be written ({error.strerror})") from error
    return f"{len(weights)} tensors in {args.export}"


def main() -> None:
    sys.exit(exit_codes.printed_exit_code(lambda: evaluate(arguments())))


if __name__ == "__main__":
    main()
