"""Hydra's composed configuration: as plain values, its identity, and its copy in the run's folder."""

from __future__ import annotations

import functools
import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnexp.cli.environment_values import interpolation_error
from bnexp.config.overrides import check_deletions, flatten, override_key
from bnexp.config.source import source_fingerprint
from bnexp.errors import UserError, bad_value, one_line
from bnexp.runs.identity import NON_IDENTITY_KEYS, PAIRING_KEYS, config_hash, is_as_recorded
from bnexp.runs.job import Job

MAX_SWEEP_NAME = 60
# The key of an output folder -> the key that has no effect beside it, and what the command writes.
OTHER_FOLDER = {
    "hydra.run.dir": ("hydra.sweep.dir", "a run (without -m)"),
    "hydra.sweep.dir": ("hydra.run.dir", "a sweep"),
}

# Linear scaling rule (Goyal et al. 2017): the learning rate grows in proportion to the batch size.
OmegaConf.register_new_resolver(
    "bnexp.scaled", lambda lr, batch, base: float(lr) * int(batch) / int(base), replace=True
)
OmegaConf.register_new_resolver("bnexp.unique", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)


def _run_name(model_choice: str, dataset_choice: str, *, _root_: DictConfig) -> str:
    """The name of a run, of what it trains: ``mlp_bn-digits``, whether model=mlp_bn or model.norm=batch."""
    return f"{_model_name(model_choice, _root_)}-{dataset_choice}"


def _model_name(choice: str, config: DictConfig, *, with_norm: bool = True) -> str:
    """A network's name: its choice, torchvision's ``arch`` or the class of one's own, and its norm.

    No suffix is no norm, ``_bn`` is batch norm, any other norm is written out: ``conv_layer``.
    """
    model: Any = config.get("model") or {}
    keys = [key for key in ("_target_", "arch", "norm") if key in model]  # not where its value is missing
    values = {key: model[key] for key in keys}
    name = str(choice)
    if choice == "custom":
        name = str(values.get("_target_")).rpartition(".")[2]
    elif choice == "torchvision":
        name = str(values.get("arch"))
    if values.get("norm") is not None:
        suffix = {"none": "", "batch": "_bn"}.get(str(values["norm"]), f"_{values['norm']}")
        name = name.removesuffix("_bn") + (suffix if with_norm else "")
    return re.sub(r"[^\w.+-]+", "_", name) or "model"


def _sweep_name(group: str = "model", *, _root_: DictConfig) -> str:
    """The name of a sweep: ``name`` if the user gave one, else its model and the last word of its axes' keys.

    ``mlp-norm-lr`` compares norms and learning rates of one network; ``model-norm`` compares networks too. A
    sweep of descents begins with the choice of another ``group``: its function.
    """
    if not OmegaConf.is_interpolation(_root_, "name") and _root_.get("name"):
        return str(_root_.name)
    parser = OverridesParser.create()
    typed = parser.parse_overrides(typed_overrides(_root_, "task"))
    axes = [*(_root_.hydra.sweeper.get("params") or {})]
    axes += [override.key_or_group for override in typed if override.is_sweep_override()]
    keys = [str(key) for key in dict.fromkeys(axes) if key not in PAIRING_KEYS]
    subject = str(_root_.hydra.runtime.choices[group])
    if group == "model":
        subject = _model_name(subject, _root_, with_norm="model.norm" not in keys)
    parts = [] if group in keys else [subject]
    return "-".join([*parts, *(re.split(r"[./@]", key)[-1] for key in keys)])[:MAX_SWEEP_NAME]


OmegaConf.register_new_resolver("bnexp.run_name", _run_name, replace=True)
OmegaConf.register_new_resolver("bnexp.sweep_name", _sweep_name, replace=True)


def config_identity(config: DictConfig) -> str:
    """The hash of a composed configuration. The run need not have started."""
    values = identity_values(config)
    return config_hash(values, fingerprints_of(values))


def identity_values(config: DictConfig) -> dict[str, Any]:
    """The keys of a composed configuration that tell runs apart, and the data's folder, as plain values."""
    keys = [str(key) for key in config if key not in ("hydra", "experiment", *NON_IDENTITY_KEYS)]
    return resolve_config(OmegaConf.masked_copy(config, keys))


def fingerprints_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Fingerprints of what a configuration names but does not hold: the images of a folder, custom code.

    The key is the group. What cannot be read has none: the run itself says what is wrong with it.
    """
    fingerprints = {}
    dataset = values.get("dataset") or {}
    if dataset.get("name") == "image_folder" and dataset.get("root"):
        with suppress(UserError):
            fingerprints["dataset"] = images_at_start(str(dataset["root"]))
    for group, keys in values.items():
        target = keys.get("_target_") if isinstance(keys, Mapping) else None
        if fingerprint := source_fingerprint(target, keys):
            fingerprints[group] = fingerprint
    return fingerprints


@functools.cache
def images_at_start(root: str) -> str:
    """The fingerprint of a folder's images when this command first asked for it: each job must find the same.

    A sweep asks for each of its jobs. Raises UserError where the folder or an image cannot be read.
    """
    from bnexp.data.fingerprint import folder_fingerprint  # imports torch

    return folder_fingerprint(root)


def output_folder(config: DictConfig, key: str) -> Path:
    """The folder that ``key`` names: ``hydra.run.dir`` for a run, ``hydra.sweep.dir`` for a sweep.

    Raises UserError for an empty value, which an unset shell variable gives: it would be the current folder.
    Also for a command line that sets the other key, which would have no effect.
    """
    other_key, subject = OTHER_FOLDER[key]
    for override in typed_overrides(config, "hydra"):
        if override_key(override) == other_key:
            raise UserError(f"{override}: {subject} is written to {key}; this key has no effect")
    if (subfolder := OmegaConf.select(config, "hydra.output_subdir")) is not None:
        reason = "must be null: bnexp itself saves the keys, in .hydra in the run's folder"
        raise bad_value("hydra.output_subdir", subfolder, reason)
    value = resolved_value(config, key)
    if value is None or not str(value).strip():
        raise bad_value(key, value, "must name a folder")
    path = Path(str(value))
    if str(path).startswith("~"):  # the shell does not expand it behind a key, and Hydra does not either
        home = f"$HOME{str(value)[1:]}" if path.parts[0] == "~" else "the whole path"
        raise UserError(f"{key}={value}: ~ is not the home folder here; write {home}")
    try:
        for parent in (path, *path.parents):
            if parent.exists() and not parent.is_dir():
                raise UserError(f"{key}={path}: must name a folder, but {parent} is a file")
            if parent.is_symlink() and not parent.exists():
                raise UserError(f"{key}={path}: {parent} is a link to a folder that does not exist")
    except OSError as error:
        raise UserError(f"{key}={path}: cannot be read ({error.strerror})") from None
    return path


def resolved_value(config: DictConfig, key: str) -> Any:
    """The value of one key; raises UserError for an interpolation that cannot be resolved."""
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise interpolation_error(error, key) from None


def typed_overrides(config: DictConfig, kind: str) -> list[str]:
    """The overrides of the command line as they were typed; ``kind`` is task, or hydra for Hydra's own keys.

    Not resolved: ``seed=${nothing}`` in the list would be an interpolation of the list itself.
    """
    overrides = OmegaConf.to_container(config.hydra.overrides[kind], resolve=False)
    return [str(override) for override in overrides]  # type: ignore[union-attr]


def group_choices(hydra: HydraConf) -> dict[str, str | None]:
    """The file that was chosen in each group of ``conf``: ``{"model": "conv_bn", ...}``."""
    choices = hydra.runtime.choices
    return {group: choices[group] for group in choices if not group.startswith("hydra/")}


def make_job(
    composed: DictConfig,
    path: Path,
    *,
    number: int | None = None,
    new_folders: tuple[Path, ...] = (),
    command: str | None = None,
    label: str = "",
    hparams: Mapping[str, float | str] | None = None,
) -> Job:
    """The job of a composed configuration without its key ``hydra``; Hydra's own part is ``HydraConfig``'s.

    ``path`` is the run's folder. Raises UserError for an interpolation that cannot be resolved, and for an
    override that deletes a key.
    """
    hydra = HydraConfig.get()
    check_deletions(map(str, hydra.overrides.task))
    values = resolve_config(composed)
    fingerprints = fingerprints_of(values)
    texts = {
        "config.yaml": composed,
        "hydra.yaml": HydraConfig.instance().cfg,
        "overrides.yaml": hydra.overrides.task,
    }
    return Job(
        os.path.abspath(path), values, config_hash(values, fingerprints), list(hydra.overrides.task),
        fingerprints, group_choices(hydra), {name: OmegaConf.to_yaml(part) for name, part in texts.items()},
        OmegaConf.to_yaml(composed, resolve=True),
        command=command, new_folders=new_folders, number=number, label=label, hparams=dict(hparams or {}),
    )  # fmt: skip


def resolve_config(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists and values, with every interpolation resolved.

    Raises UserError for an interpolation that cannot be resolved.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise interpolation_error(error) from None
    assert isinstance(values, dict)
    preset = values.pop("experiment", None)
    if preset:
        raise UserError(
            f"experiment: {', '.join(map(str, preset))}: no effect, because the first line of the preset's"
            " file is not '# @package _global_'"
        )
    _check_names(values)
    return {str(key): value for key, value in values.items()}


def check_as_recorded(
    folder: Path, summary: Mapping[str, Any], saved: DictConfig, values: Mapping[str, Any]
) -> None:
    """Raises UserError where a run's ``saved`` configuration gives other ``values`` than those of the run.

    A variable of the environment has another value now, or the file was edited. ``dataset.root`` may differ.
    """
    if is_as_recorded(summary, values):
        return
    raw: Any = OmegaConf.to_container(saved, resolve=False)
    texts, now = flatten(raw), flatten(values)
    keys = [key for key, text in texts.items() if "${oc.env:" in str(text) and key != "dataset.root"]
    listing = ", ".join(f"{key}={now.get(key)} from {texts[key]}" for key in keys)
    reason = f" ({listing}); set the variable as it was" if keys else "; restore the file"
    raise UserError(
        one_line(f"{folder / '.hydra' / 'config.yaml'}: other values than those of the run{reason}")
    )


def _check_names(values: Mapping[Any, Any], parent: str = "") -> None:
    """Raises UserError for a key that YAML reads as a number or a truth value, as ``1`` or ``on``, and for a
    dotted one."""
    for key, value in values.items():
        if not isinstance(key, str):
            raise UserError(
                f"{parent}{key}: a key must be text, and YAML reads a {type(key).__name__}; quote it"
            )
        if "." in key and not parent:
            group, _, name = key.partition(".")
            raise UserError(
                f"{key}: YAML has no keys with dots; write {name}: in a line below {group}:, indented"
            )
        if isinstance(value, Mapping):
            _check_names(value, f"{parent}{key}.")
