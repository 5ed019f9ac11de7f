"""``bnexp-resume DIR``: runs a folder's own command line again, in the same folder, to finish it."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from bnexp import train
from bnexp.cli import argument_parser, entry_points, exit_codes
from bnexp.cli.composed_config import OTHER_FOLDER as FOLDER_KEYS
from bnexp.cli.environment_values import insert_environment
from bnexp.cli.help import GROUPS
from bnexp.config.overrides import override_key, quote_value, split_override
from bnexp.config.trust import check_target
from bnexp.errors import UserError, one_line
from bnexp.runs.folder import is_free
from bnexp.runs.summary import SUMMARY, check_inside, check_is_training
from bnexp.sweeps.job_folders import is_free as is_sweep_free
from bnexp.sweeps.plan_file import PLAN_FILE

# Keys of Hydra that only say where to write, and how many jobs run at once and where. Any other key can name
# code: ``hydra.launcher.init`` has Ray's runtime_env, and a cluster at ``address`` sends pickles back.
HARMLESS_KEYS = (
    "hydra.run.dir", "hydra.sweep.dir", "hydra.mode", "hydra/launcher",
    *(f"hydra.launcher.{key}" for key in (
        "jobs", "fuse", "partition", "timeout_min", "gpus_per_node", "cpus_per_task", "mem_gb",
        "array_parallelism", "signal_delay_s", "max_num_timeout", "cluster", "account", "qos", "constraint",
        "num_cpus", "num_gpus", "max_retries",
    )),
)  # fmt: skip
# Names of choices. A path does not match: it could lead to any YAML file.
CHOICE_NAMES = r"[\w\s,()*-]*"


@dataclass(frozen=True)
class SavedCommand:
    """The command line of a run or a sweep, as Hydra saved it in the folder."""

    overrides: list[Override]
    axes: list[str]  # the overrides that a preset gives its sweep
    config_dirs: list[str]  # the folders of --config-dir
    cwd: Path  # the current folder of that command


def resume_arguments(folder: Path, new_overrides: list[str], trusted_names: Collection[str]) -> list[str]:
    """The command line that continues the run or the sweep in ``folder``.

    A new override replaces the saved one of the same key. Where either has several values, as an axis of a
    sweep has, the values are joined, so that the unfinished jobs stay among the sweep's jobs.

    Raises UserError where the folder holds no run and no sweep, where a new override names another folder,
    and where the folder names code that belongs neither to bnexp nor to torch and is not among
    ``trusted_names``.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    check_is_training(folder)
    for override in new_overrides:
        if override_key(override) in FOLDER_KEYS:
            raise UserError(f"{override}: bnexp-resume continues in {folder}; leave this key out")
    is_sweep = (folder / "multirun.yaml").exists()
    if not is_sweep and not (folder / ".hydra" / "hydra.yaml").exists():
        missing = ".hydra/hydra.yaml" if (folder / ".hydra").exists() else ".hydra"
        raise UserError(f"{folder}: neither a run's folder (no {missing}) nor a sweep's (no multirun.yaml)")
    if not (is_sweep_free(folder) if is_sweep else is_free(folder)):
        kind, missing = ("sweep", PLAN_FILE) if is_sweep else ("run", SUMMARY)
        raise UserError(f"{folder}: holds files of Hydra, but no {kind} of bnexp (no {missing})")
    check_inside(folder)
    saved_command = _read_command(folder, "multirun.yaml" if is_sweep else ".hydra/hydra.yaml")
    for saved_override in saved_command.overrides:
        _check_trust(saved_override, trusted_names)
    for path in saved_command.config_dirs:
        if path not in trusted_names:
            raise UserError(f"--config-dir {path}: its YAML files can name code; --trust {path} allows it")
    folder_key = "hydra.sweep.dir" if is_sweep else "hydra.run.dir"
    replaced_keys = {*FOLDER_KEYS, "hydra.mode", *map(override_key, new_overrides)}
    old_overrides = [_with_absolute_root(override, saved_command.cwd) for override in saved_command.overrides]
    if is_sweep:
        new_overrides = [
            _join_values([*saved_command.axes, *old_overrides], override) for override in new_overrides
        ]
    return [
        *(["-m"] if is_sweep else []),
        *(argument for path in saved_command.config_dirs for argument in ("--config-dir", path)),
        *(override for override in old_overrides if override_key(override) not in replaced_keys),
        *new_overrides,
        f"{folder_key}={quote_value(str(folder))}",
    ]


def _read_command(folder: Path, name: str) -> SavedCommand:
    try:
        # Not resolved: an override may hold an interpolation that means something only while Hydra runs.
        values: Any = OmegaConf.to_container(OmegaConf.load(folder / name), resolve=False)
        hydra = values["hydra"]
        overrides = [str(override) for kind in ("hydra", "task") for override in hydra["overrides"][kind]]
        axes = hydra["sweeper"].get("params") or {}
        sources = hydra["runtime"]["config_sources"]
        return SavedCommand(
            cwd=Path(hydra["runtime"]["cwd"]),
            overrides=OverridesParser.create().parse_overrides(overrides),
            axes=[f"{key}={choices}" for key, choices in axes.items()],
            config_dirs=[str(source["path"]) for source in sources if source["provider"] == "command-line"],
        )
    except Exception as error:
        raise UserError(f"{folder / name}: the saved command cannot be read ({one_line(error)})") from error


def _with_absolute_root(override: Override, cwd: Path) -> str:
    """The override as it was typed; a relative ``dataset.root`` is one below the folder of that command."""
    text = str(override.input_line)
    if override_key(text) != "dataset.root":
        return text
    if override.is_sweep_override():
        roots = [str(value) for value in override.sweep_string_iterator()]
    else:
        roots = [str(override.value())]
    paths = [quote_value(str(cwd / os.path.expanduser(root))) for root in roots]
    return f"{split_override(text)[0]}={','.join(paths)}"


def _join_values(old_overrides: list[str], new_override: str) -> str:
    """``new_override`` with the old values of its key in front, if there are several old or new values."""
    key = override_key(new_override)
    if split_override(new_override) == ("seed", "auto"):
        return new_override  # it plans the seeds itself
    same_key = [override for override in old_overrides if override_key(override) == key]
    try:
        old_and_new = OverridesParser.create().parse_overrides([*same_key[-1:], new_override])
    except OverrideParseException:
        return new_override  # Hydra reports the mistake
    if not any(override.is_sweep_override() for override in old_and_new):
        return new_override
    values = [value for override in old_and_new for value in _list_values(override)]
    return f"{split_override(new_override)[0]}={','.join(dict.fromkeys(values))}"


def _list_values(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]


def _check_trust(override: Override, trusted_names: Collection[str]) -> None:
    """Raises UserError where an override can run code that is not trusted."""
    key, text = override.key_or_group, str(override.input_line)
    if text in trusted_names:
        return
    value, hint = split_override(text)[1], f"--trust '{text}' allows it"
    package = str(override.package or "")
    if (key.startswith("hydra") and key not in HARMLESS_KEYS) or package.startswith("hydra"):
        is_for_ray = key.partition("hydra.launcher.")[2].partition(".")[0] in ("init", "address")
        reason = "Ray can fetch code from there" if is_for_ray else "this key of Hydra can run code"
        raise UserError(f"{text}: {reason}; {hint}")
    is_group = key in GROUPS or "/" in key or override.package is not None
    if is_group and not re.fullmatch(CHOICE_NAMES, value):
        raise UserError(f"{text}: must be the name of a choice, because a path can lead to code; {hint}")
    if key.endswith("._target_"):
        for target in value.split(","):
            check_target(key, target.strip("'\" "), trusted_names)
    elif "_target_" in text:
        raise UserError(f"{text}: a _target_ inside a value can run code; {hint}")


def arguments() -> argparse.Namespace:
    parser = argument_parser.ArgumentParser(
        prog="bnexp-resume",
        description="Continues the unfinished run or sweep in a folder. The result is the same as without the"
        " interruption. A run can get more epochs (epochs=20), a sweep more jobs ('seed=range(10)').",
    )
    parser.add_argument("folder", type=argument_parser.named_folder, metavar="DIR")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value",
        help="replaces the saved value; several values of a sweep are added to the saved ones",
    )  # fmt: skip
    parser.add_argument(
        "--trust", action="append", default=[], metavar="NAME",
        help="allow this _target_, override or --config-dir of the folder: its code will run",
    )  # fmt: skip
    return parser.parse_intermixed_args()


def resume() -> None:
    args = arguments()
    train.main(resume_arguments(args.folder, insert_environment(args.overrides), args.trust))


def main() -> None:
    sys.exit(exit_codes.exit_code(resume))


if __name__ == "__main__":
    entry_points.resume()
