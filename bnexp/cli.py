"""The door: help, Hydra's complaints in one line, exit codes. Imports no torch."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnexp import torchrun
from bnexp.errors import UserError, bad_choice, nearest, one_line, unknown_key
from bnexp.files import WriteError, write_atomically
from bnexp.helptext import GROUPS, choices, help_text
from bnexp.launchers import EXTRAS
from bnexp.runs import (
    HORIZONS,
    NO_IDENTITY,
    SUMMARY,
    Diverged,
    OutOfMemory,
    ProcessLost,
    check_inside,
    config_hash,
    experiment,
    goes_on,
    load_summary,
    locked,
)
from bnexp.stop import Interrupted, interruptible

log = logging.getLogger("bnexp")

# The linear rule of Goyal et al. 2017: the rate that suits one batch size, in proportion for another.
OmegaConf.register_new_resolver(
    "bnexp.scaled", lambda lr, batch, base: float(lr) * int(batch) / int(base), replace=True
)
OmegaConf.register_new_resolver("bnexp.unique", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)


class Parser(argparse.ArgumentParser):
    """argparse for the smaller commands, its complaints in one line like all others (a UserError)."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        flags = self._option_string_actions
        typed = (word.partition("=")[0] for word in sys.argv[1:] if word.startswith("--"))
        near = nearest(next((word for word in typed if word not in flags), ""), flags)
        hint = f"; did you mean {near}?" if near else ""
        raise UserError(one_line(f"{message}{hint} ({self.prog} --help lists all)"))


def launch(entry: Callable[[], Any]) -> int:
    """Runs a Hydra entry point: 0 well, 1 crashed, 2 a user's mistake, 130 or 143 interrupted."""
    arguments = sys.argv[1:]
    if torchrun.silent():
        RunGuard.folder_of_all = torchrun.folder_of_all(arguments)
        arguments = torchrun.words(arguments)
    if any(word in ("--help", "-h") for word in arguments):
        print(help_text())
        return 0
    gc.disable()  # until all is imported (device.prepare): what imports make stays, to search it takes 0.3 s
    logging.raiseExceptions = False  # a full disk takes train.log's lines too; the run says so by itself
    threading.excepthook = lambda _: None  # TensorBoard's thread hands its error on to the run
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # makes Hydra raise: its errors then fit in one line
    # Idle OpenMP threads spin before they sleep. libgomp's own 300,000 turns slow a convolutional net to a
    # twentieth where something else wants a core; 1,000 cost it 40 % where nothing does; these 10 %.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

    def run() -> None:
        _check_flags(arguments)
        checked(entry, arguments)

    with interruptible():
        return exit_code(run)


def exit_code(work: Callable[[], Any]) -> int:
    """Runs ``work``; what it raises becomes one line on standard error and an exit code."""
    try:
        work()
    except SystemExit as leave:  # a run inside has said why
        return leave.code if isinstance(leave.code, int) else 0
    except BrokenPipeError:  # the reader, as in "| head", has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for what is still in the buffer
        return 141
    except UserError as error:
        if not torchrun.silent():
            print(f"bnexp: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"bnexp: diverged: {error}", file=sys.stderr)
        return 1
    except ProcessLost as error:
        print(f"bnexp: {error}", file=sys.stderr)
        return 1
    except OutOfMemory as error:
        print(f"bnexp: out of memory: {error}", file=sys.stderr)
        return 1
    except BrokenExecutor as error:  # joblib's, and with it the jobs that were still to come
        print(one_line(f"bnexp: a job's process died and ended the sweep: {error}"), file=sys.stderr)
        return 1
    except WriteError as error:
        print(
            f"bnexp: {error}; what was saved before is whole, bnexp-resume goes on from it", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt as error:  # Ray's own, for one, where a handler raised ours
        told = error if isinstance(error, Interrupted) else Interrupted(Interrupted.latest)
        print(f"bnexp: interrupted ({told})", file=sys.stderr)
        return told.exit_code
    except Exception as error:
        print(one_line(f"bnexp: crashed: {type(error).__name__}: {error}"), file=sys.stderr)
        _log_traceback(error)
        return 1
    return 0


def identity(config: DictConfig) -> str:
    """The hash of a composed configuration, whether its run has begun or not."""
    return config_hash(_experiment(config))


def _experiment(config: DictConfig) -> dict[str, Any]:
    keys = [str(key) for key in config if key not in ("hydra", "experiment", *NO_IDENTITY)]
    return experiment(plain(OmegaConf.masked_copy(config, keys)))


class RunGuard(Callback):
    """Hydra's call before it makes a single run's folder: a folder that holds a run is not written over."""

    folder_of_all: Path | None = None  # in a process of torchrun's whose own folder is another

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        HydraConfig.instance().set_config(config)  # Hydra does so a moment later; the folder's name needs it
        folder = self.folder_of_all or Path(str(config.hydra.run.dir))
        if not (folder / SUMMARY).exists():
            return
        code = 0 if torchrun.silent() else exit_code(lambda: self._check(folder, _experiment(config)))
        if code:
            sys.exit(code)  # Hydra turns a callback's exceptions into warnings, but not this
        summary = load_summary(folder)
        if summary["status"] == "finished" and summary["config_hash"] == identity(config):
            if not torchrun.silent():
                print(f"{folder}: this run is finished; nothing to do")
            sys.exit(0)

    def _check(self, folder: Path, ours: dict[str, Any]) -> None:
        """Raises UserError where another process is at work here, or ``ours`` is another run."""
        check_inside(folder)
        with locked(folder):
            summary = load_summary(folder)
        if not goes_on(summary, ours):
            raise UserError(f"hydra.run.dir={folder}: holds a run with {_differences(folder, ours)}")
        laid_out = [name for name in HORIZONS if ours["scheduler"].get(name, "") is None]
        if summary["epochs"] != ours["epochs"] and laid_out:
            raise UserError(
                f"epochs={ours['epochs']}: this run's learning rate was laid out for {summary['epochs']}"
                f" (scheduler.{laid_out[0]}=null follows epochs); begin anew in another folder"
            )


def _differences(folder: Path, ours: dict[str, Any]) -> str:
    """The keys in which ``ours`` differs from the configuration saved in a run's folder, in words."""
    try:
        saved = _experiment(OmegaConf.load(folder / ".hydra" / "config.yaml"))  # type: ignore[arg-type]
    except Exception:  # whatever is wrong with it, the hash has already told that it is another one
        return "another configuration; choose another folder"
    there, here = _flat(saved), _flat(ours)
    keys = [key for key in [*there, *(here.keys() - there.keys())] if there.get(key) != here.get(key)]
    shown = ", ".join(f"{key}={there.get(key)} (here {here.get(key)})" for key in keys[:4])
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return f"{shown or 'another configuration'}{more}; choose another folder"


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return found


def save_config(folder: Path, composed: DictConfig) -> None:
    """Writes what Hydra would into a run's ``.hydra``: config.yaml, hydra.yaml and overrides.yaml."""
    hydra = HydraConfig.instance().cfg
    assert hydra is not None
    (folder / ".hydra").mkdir(exist_ok=True)
    parts = {"config.yaml": composed, "hydra.yaml": hydra, "overrides.yaml": HydraConfig.get().overrides.task}
    for name, part in parts.items():
        text = OmegaConf.to_yaml(part).encode()
        write_atomically(folder / ".hydra" / name, lambda file, text=text: file.write(text))  # type: ignore[misc]


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists and values, every interpolation resolved."""
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'config'}: {one_line(error.msg or error)}") from None
    assert isinstance(values, dict)
    values.pop("experiment", None)
    return {str(key): value for key, value in values.items()}


def _log_traceback(error: Exception) -> None:
    files = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    for handler in files:
        record = log.makeRecord(
            log.name, logging.ERROR, __file__, 0, "crashed", (), (type(error), error, error.__traceback__)
        )
        handler.emit(record)
        print(f"bnexp: the traceback is in {os.path.relpath(handler.baseFilename)}", file=sys.stderr)
    if not files:
        sys.excepthook(type(error), error, error.__traceback__)


def checked(entry: Callable[[], Any], arguments: list[str]) -> None:
    """Runs what composes a configuration from ``arguments``; Hydra's complaints become a UserError."""
    try:
        entry()
    except (UserError, BrokenExecutor):
        raise
    except Exception as error:  # a run's own exceptions end inside entry: this is about the command line
        raise _translate(error, arguments) from error


def _check_flags(arguments: list[str]) -> None:
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        word = message.rpartition(": ")[2].split()[0]
        key = word.lstrip("-").partition("=")[0].replace("-", "_")
        near = nearest(key, _all_keys({}))
        hint = f"; keys have no dashes: {near}=..." if near else ""
        raise UserError(one_line(f"{word}: {message.partition(':')[0]}{hint} (bnexp --help lists all)"))

    parser.error = refuse  # type: ignore[method-assign]
    overrides = list(parser.parse_intermixed_args(arguments).overrides)
    flags = list(arguments)
    for word in overrides:
        flags.remove(word)
    sys.argv[1:] = [*flags, *overrides]  # Hydra takes flags only before or only after its overrides


def _translate(error: Exception, arguments: list[str]) -> UserError:
    """Hydra's and OmegaConf's errors, which take several lines, as one in our form."""
    text = str(error)
    first = one_line(text.splitlines()[0]) if text else type(error).__name__
    if isinstance(error, OSError) and error.filename and not isinstance(error, HydraException):
        return UserError(f"{error.filename}: cannot be written ({error.strerror or first})")
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown(match[1], arguments)
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        if match[1] == "hydra/launcher" and match[2] in EXTRAS:
            extra = EXTRAS[match[2]]
            return UserError(
                f'hydra/launcher={match[2]}: not installed; pip install "bnexp[{extra}]" brings it'
            )
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE) or choices(match[1])
        return bad_choice(match[1], match[2], options)
    if match := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return UserError(f"+{match[1]}: this key exists already; write it without the plus")
    if match := re.search(r"Could not delete from config\. '?([^' ]+)'? does not exist", text):
        return _unknown(match[1], arguments)
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = match[1].partition("=")
        return UserError(
            f"{match[1]}: several values are a sweep (add -m); a list has brackets: '{key}=[{value}]'"
        )
    if isinstance(error, OverrideParseException):
        return UserError(one_line(f"{error.override}: cannot be read as key=value ({first})"))
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return UserError(f"{error.full_key}: {first}")
    cause = one_line(error.__cause__ or "")
    return UserError(f"{first} ({cause})" if cause and cause not in first else first)


def _unknown(key: str, arguments: list[str]) -> UserError:
    if key.startswith("hydra."):
        return UserError(f"{key}: Hydra has no such key (bnexp --cfg hydra shows those it has)")
    groups = dict(word.partition("=")[::2] for word in arguments if "=" in word)
    parent = key.rpartition(".")[0]
    inside = f"{parent}." if parent else ""
    names = _all_keys(groups)
    elsewhere = [name for name in names if name.endswith(f".{key.rpartition('.')[2]}")]
    if elsewhere:
        return UserError(f"{key}: unknown key; did you mean {' or '.join(elsewhere)}?")
    siblings = {name.removeprefix(inside) for name in names if name.startswith(inside)}
    groups_too = () if parent else GROUPS
    return unknown_key(key, {name for name in (*siblings, *groups_too) if "." not in name})


def _all_keys(groups: Mapping[str, str]) -> list[str]:
    """Every key of the configuration that the given group choices compose, dotted."""
    from hydra import compose, initialize_config_module

    known = [f"{group}={choice}" for group, choice in groups.items() if choice in choices(group)]
    GlobalHydra.instance().clear()
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", overrides=known), resolve=False)
    names: list[str] = []

    def walk(values: Any, path: str) -> None:
        for name, value in values.items():
            dotted = f"{path}.{name}" if path else str(name)
            names.append(dotted)
            if isinstance(value, dict):
                walk(value, dotted)

    walk(composed, "")
    return [name for name in names if not name.endswith("_target_")]
