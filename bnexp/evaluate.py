"""``bnexp-eval RUN_DIR``: evaluates a checkpoint, or classifies image files with it."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnexp.cli import composed_config, entry_points, exit_codes
from bnexp.cli.argument_parser import ArgumentParser, named_path
from bnexp.config.instantiate import import_target
from bnexp.config.schema import COMPONENTS, Config
from bnexp.errors import UserError, forbid_exit, name_list
from bnexp.report.read.runs import find_runs
from bnexp.results.saved_config import load_config
from bnexp.runs.environment import recorded_threads
from bnexp.runs.identity import describe_changes
from bnexp.runs.run_log import keep_log, restore_log
from bnexp.runs.summary import SUMMARY, load_summary

if TYPE_CHECKING:
    from torch.nn import Module

    from bnexp.data.network_input import NetworkInput

MAX_BATCH_SIZE = 2**31  # as eval_batch_size
SHOWN_CLASSES = 3


def arguments() -> argparse.Namespace:
    """The arguments of the command line. Raises UserError for one that is wrong."""
    parser = ArgumentParser(
        prog="bnexp-eval",
        description="Evaluates a run's checkpoint: accuracy, loss, per-class accuracy, confusion matrix.",
    )
    parser.add_argument("run", type=named_path, metavar="RUN_DIR", help="the folder of a run")
    parser.add_argument("--checkpoint", default="last", help="last (the default), best, or epoch-N")
    parser.add_argument("--split", choices=("test", "val", "train"), help="the images; default test")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), help="use this device instead of the run's"
    )
    parser.add_argument(
        "--root", type=named_path, metavar="DIR", help="where the data set is now, instead of dataset.root"
    )
    parser.add_argument(
        "--predictions",
        type=named_path,
        metavar="FILE",
        help="write name, label, prediction and probabilities of every image as CSV",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images in one step, instead of the run's eval_batch_size"
    )
    parser.add_argument(
        "--precise-bn",
        type=int,
        metavar="N",
        help="evaluate also with precise batch norm statistics, from N training batches",
    )
    parser.add_argument(
        "--export",
        type=named_path,
        metavar="FILE",
        help="write the weights as safetensors, or the network as ONNX (FILE.onnx): usable without bnexp",
    )
    parser.add_argument(
        "--image",
        nargs="+",
        type=named_path,
        metavar="FILE",
        help="classify these image files; the data set is not needed",
    )
    parser.add_argument(
        "--trust", action="append", default=[], metavar="TARGET",
        help="allow this _target_ of the run, though it is no class of bnexp or torch: its code will run",
    )  # fmt: skip
    return parser.parse_args()


@keep_log()
@forbid_exit("the network or the loss")
def evaluate(args: argparse.Namespace) -> None:
    _check_is_run(args.run)
    title = _title(args)
    if args.image:
        classify_files(args, title)
        return
    config = _with_root(load_config(args.run, args.device, args.trust), args.root)
    size = _batch_size(args, config)
    _check_files(args)
    typed, args = args, _with_absolute_paths(args)
    _warn_of_changes(args.run, config)

    from bnexp.compute import device, memory, process_tuning
    from bnexp.data.network_input import NetworkInput
    from bnexp.results import precise_evaluation, predictions_file
    from bnexp.results.network import load_network
    from bnexp.training import build

    split = args.split or "test"
    config = replace(config, device=device.evaluation_settings(config.device))
    compute_device = device.prepare_device(config.device)
    images = build.load_splits(config, compute_device)
    batches = getattr(images, split)
    if batches is None:
        raise UserError("--split=val: this run had no validation set (dataset.val_size=0)")
    process_tuning.set_threads(config.device.threads or recorded_threads(args.run), float("inf"))
    data = NetworkInput.of_splits(images)
    _check_classes(args.run, config, data.classes)
    network, state = load_network(args.run, config, data, args.checkpoint)
    if args.precise_bn is not None:
        precise_evaluation.check(network, images.train, config.batch_size, args.precise_bn)
    precise: list[str] = []
    # The files are written before anything is printed. The export needs the network on the CPU.
    notes = [] if args.export is None else [_export(args, typed.export, config, data, network, state)]
    trainer = build.trainer(config, network, compute_device, images)
    with memory.memory_guard(f"--batch-size={size}"):
        loss, accuracy, classes = trainer.classify(batches, size)
        if args.precise_bn is not None:
            sizes = (config.batch_size, size)
            precise = precise_evaluation.describe(trainer, images, batches, sizes, args.precise_bn)
        predictions, labels = classes.tolist(), batches.labels.tolist()
        if args.predictions is not None:
            names = predictions_file.image_names(config, split, batches)
            table = predictions_file.class_probabilities(trainer, batches, size)
            note = predictions_file.write_predictions(
                args.predictions, names, labels, table, images.classes, typed_path=typed.predictions
            )
            notes.insert(0, note)
    restore_log()
    print(f"{title}, {split}: {len(labels)} images, on {compute_device}")
    print(f"accuracy {accuracy:.4f}, loss {loss:.4f}")
    for line in (*precise, *_class_lines(labels, predictions, images.classes), *notes):
        print(line)


def _with_absolute_paths(args: argparse.Namespace) -> argparse.Namespace:
    """The same arguments for the time from which on the user's own code may change the current folder."""
    values = {
        name: [path.absolute() for path in value] if name == "image" and value else value
        for name, value in vars(args).items()
    }
    paths = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return argparse.Namespace(**values | paths)


def _with_root(config: Config, root: Path | None) -> Config:
    """The configuration with its data set in ``root``, unless that is None; UserError without a folder."""
    dataset = config.dataset
    if root is not None and dataset.root is None:
        raise UserError(f"--root={root}: dataset={dataset.name} has no folder; leave it out")
    if root is not None and not root.is_dir():
        raise UserError(f"--root={root}: there is no such folder")
    if dataset.name == "image_folder" and root is None and not Path(str(dataset.root)).expanduser().exists():
        raise UserError(
            f"dataset.root={dataset.root}: there is no such folder; --root=DIR names its new place"
        )
    return config if root is None else replace(config, dataset=replace(dataset, root=str(root.absolute())))


def _batch_size(args: argparse.Namespace, config: Config) -> int:
    size = config.eval_batch_size if args.batch_size is None else args.batch_size
    if not 1 <= size <= MAX_BATCH_SIZE:
        raise UserError(f"--batch-size={size}: must be at least 1 and at most {MAX_BATCH_SIZE}")
    return int(size)


def _class_lines(labels: list[int], predictions: list[int], classes: Sequence[str]) -> Iterator[str]:
    """The confusion matrix, and the balanced accuracy where the classes have uneven sizes."""
    from bnexp.report.render.confusion import format_confusion
    from bnexp.runs.confusion import balanced_accuracy

    confusion = Counter(zip(labels, predictions, strict=True))
    yield format_confusion(confusion, classes)
    if (balanced := balanced_accuracy(confusion)) is not None:
        yield f"balanced accuracy {balanced:.4f}: the mean over the classes, whose sizes are uneven"


def classify_files(args: argparse.Namespace, title: str) -> None:
    """Prints the most probable classes of each image file. The data set is not needed."""
    for option in ("split", "device", "root", "predictions", "batch_size", "precise_bn"):
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise UserError(f"--{name}: is for the images of the data set; leave it out with --image")
    config = load_config(args.run, "cpu", args.trust)
    _check_files(args)
    typed, args = args, _with_absolute_paths(args)

    from bnexp.data.network_input import NetworkInput
    from bnexp.results.network import load_network
    from bnexp.results.predict import predict, preprocess

    data = NetworkInput.from_record(load_summary(args.run).get("input"), args.run)
    inputs = preprocess(args.image, data)
    network, state = load_network(args.run, config, data, args.checkpoint)
    predictions = predict(network, inputs, data.classes)
    note = "" if args.export is None else _export(args, typed.export, config, data, network, state)
    restore_log()
    print(f"{title}: the {SHOWN_CLASSES} most probable classes")
    for path, prediction in zip(typed.image, predictions, strict=True):
        ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:SHOWN_CLASSES]
        print(f"{path}: {', '.join(f'{name} {probability:.4f}' for name, probability in ranked)}")
    if note:
        print(note)


def _title(args: argparse.Namespace) -> str:
    """The run and its checkpoint, and how the run ended where it did not finish."""
    status = load_summary(args.run)["status"]
    ending = "" if status == "finished" else f" ({status})"
    return f"{args.run}{ending}, checkpoint {args.checkpoint}"


def _export(
    args: argparse.Namespace,
    typed_path: Path,
    config: Config,
    data: NetworkInput,
    network: Module,
    state: dict[str, Any],
) -> str:
    from bnexp.results.export import describe_export, write_export

    metadata = describe_export(args.run, config, data, args.checkpoint, state)
    return write_export(args.export, network, data, metadata, typed_path=typed_path)


def _check_is_run(folder: Path) -> None:
    """Lists the runs of a sweep, or of any folder above runs, and raises UserError: one of them is needed."""
    if (folder / SUMMARY).exists() or not folder.is_dir():
        return
    runs = [run for run in find_runs(folder) if (run / SUMMARY).exists()]
    if not runs:
        return
    for run in runs:
        try:
            summary = load_summary(run)
            accuracy = (summary.get("final") or {}).get("test/accuracy")
            result = summary["status"] + ("" if accuracy is None else f", test accuracy {accuracy:.4f}")
        except UserError:
            result = "cannot be read"
        print(f"{run}: {result}")
    raise UserError(f"{folder}: holds {len(runs)} runs; give one of them, or bnexp-compare {folder}")


def _warn_of_changes(run: Path, config: Config) -> None:
    """One line on standard error where the images or the user's own code are no longer those of the run.

    Raises UserError for a class that cannot be imported here: that is no change of it.
    """
    values, components = asdict(config.dataset), {group: getattr(config, group) for group in COMPONENTS}
    for component in components.values():
        if component.target is not None:
            import_target(component)
    targets = {group: {"_target_": part.target, **part.keys} for group, part in components.items()}
    current = {"dataset": values, **targets}
    changes = describe_changes(load_summary(run), current, composed_config.fingerprints_of(current))
    if changes:
        print(f"bnexp-eval: {changes}: the numbers are not those of the run", file=sys.stderr)


def _check_classes(run: Path, config: Config, classes: Sequence[str]) -> None:
    """Raises UserError where the classes are not those of the run: the network's outputs have other names."""
    recorded = (load_summary(run).get("input") or {}).get("classes")
    if recorded is not None and list(recorded) != list(classes):
        trained, present = (
            f"{len(names)} ({name_list([str(name) for name in names])})" for names in (recorded, classes)
        )
        key = f"dataset.root={config.dataset.root}"
        raise UserError(f"{run}: its classes are {trained}, but those of {key} are {present}")


def _check_files(args: argparse.Namespace) -> None:
    """Raises UserError for a file that cannot be written as asked, before anything is computed."""
    from bnexp.results.export import check_can_export, is_export
    from bnexp.results.predictions_file import is_predictions

    if args.predictions and args.export and args.predictions.resolve() == args.export.resolve():
        raise UserError(f"--export={args.export}: must not be the file of --predictions")
    _check_replaces_own("--predictions", args.predictions, is_predictions)
    _check_replaces_own("--export", args.export, is_export)
    if args.export is not None:
        check_can_export(args.export)


def _check_replaces_own(option: str, path: Path | None, is_own: Callable[[Path], bool]) -> None:
    """Raises UserError where the file exists and was not written with the same option before."""
    if path is not None and path.exists() and not is_own(path):
        raise UserError(f"{option}={path}: this file was not written by {option}; choose another name")


def main() -> None:
    sys.exit(exit_codes.printed_exit_code(lambda: evaluate(arguments())))


if __name__ == "__main__":
    entry_points.evaluate()
