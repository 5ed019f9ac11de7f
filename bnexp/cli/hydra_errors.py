"""Hydra's and OmegaConf's errors, which take several lines, as one line in the form of bnexp's own errors."""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bnexp.cli.environment_values import interpolation_error
from bnexp.cli.hydra_commands import CONF, TRAIN, HydraCommand
from bnexp.cli.key_names import all_keys
from bnexp.config.overrides import deletion_error, override_values, quote_value, split_override
from bnexp.errors import ExitCalled, UserError, bad_choice, one_line, unknown_key

T = TypeVar("T")

# Words of other programs, and what bnexp has for them.
TWO_JOBS = "hydra.launcher.jobs=2 trains two jobs of a sweep at a time"
HINTS = dict.fromkeys(("n_jobs", "jobs", "workers"), TWO_JOBS)
TORCH_MODULES = {  # of each group, and the ending that its class names share
    "optimizer": ("torch.optim", ""),
    "scheduler": ("torch.optim.lr_scheduler", "LR"),
    "loss": ("torch.nn", "Loss"),
}


def translate_hydra_errors(
    compose: Callable[[], T], arguments: list[str], command: HydraCommand = TRAIN
) -> T:
    """Calls ``compose``, which composes a configuration from ``arguments``, and returns its result.

    Raises UserError in place of Hydra's and OmegaConf's errors.
    """
    try:
        return compose()
    except (UserError, ExitCalled):
        raise
    except Exception as error:  # a run handles its own exceptions: these come from the command line
        raise _translate(error, arguments, command) from error


def _translate(error: Exception, arguments: list[str], command: HydraCommand) -> UserError:
    if (mistake := _user_error_in_resolver(error)) is not None:
        return mistake
    text = str(error)
    first_line = one_line(text.splitlines()[0]) if text else type(error).__name__
    if isinstance(error, OSError) and error.filename and not isinstance(error, HydraException):
        return UserError(f"{error.filename}: cannot be written ({error.strerror or first_line})")
    if text.startswith("Unable to configure handler") and isinstance(error.__cause__, OSError):
        return UserError(f"{error.__cause__.filename}: cannot be written ({error.__cause__.strerror})")
    if isinstance(error.__cause__ or error, YAMLError):
        return _explain_broken_yaml(error.__cause__ or error)
    if isinstance(error, UnicodeDecodeError):
        return UserError(f"{_file_that_is_not_utf8(arguments)}: must be saved as UTF-8 ({first_line})")
    if isinstance(error, RecursionError):
        own_choices = [
            f"{group}={choice}"
            for group, choice in override_values(arguments).items()
            if group in command.groups and choice not in command.choices(group)
        ]
        name = " or ".join(own_choices) or "--config-dir"
        return UserError(f"{name}: its defaults list names the file itself, directly or through other files")
    for pattern, explain in EXPLANATIONS.items():
        if match := re.search(pattern, text):
            return explain(match, arguments, command)
    if isinstance(error, OverrideParseException):
        return _explain_unreadable(error.override, first_line, arguments, command)
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return interpolation_error(error)
    if match := re.match(r"Error merging override (.+)", text):
        reason = str(error.__cause__ or first_line).splitlines()[0]  # the lines below it repeat the key
        is_list = "DictConfig with ListConfig" in reason
        return UserError(f"{match[1]}: {'must be a list, as in [a,b]' if is_list else one_line(reason)}")
    cause = one_line(error.__cause__ or "")
    return UserError(f"{first_line} ({cause})" if cause and cause not in first_line else first_line)


def _user_error_in_resolver(error: BaseException) -> UserError | None:
    """The UserError of a resolver of bnexp: OmegaConf's own message names the key that called it."""
    while error.__context__ is not None:
        error = error.__context__
        if isinstance(error, UserError):
            return error
    return None


def _explain_unreadable(override: str, reason: str, arguments: list[str], command: HydraCommand) -> UserError:
    """For an argument that Hydra's grammar does not accept."""
    if groups := [group for group in command.groups if override in command.choices(group)]:
        return UserError(f"{override}: write {' or '.join(f'{group}={override}' for group in groups)}")
    key, value = split_override(override)
    if key.strip() and value.strip() and (key, value) != (key.strip(), value.strip()):
        return UserError(one_line(f"{override}: write {key.strip()}={value.strip()}, without spaces"))
    if key and value:
        hint = _hint_for_value(key, value)
        reason = "" if hint or reason.startswith("LexerNoViableAlt") else f" ({reason})"
        return UserError(one_line(f"{override}: cannot be read as key=value{reason}{hint}"))
    place = arguments.index(override) if override in arguments else 0
    before, after = arguments[place - 1] if place else "", "".join(arguments[place + 1 : place + 2])
    hint = ""
    if "=" in (key, after[:1]) or override.startswith("="):
        hint = "; write key=value without spaces"
    elif (name := re.split(r"[:\s]", override)[0]) in all_keys(override_values(arguments), command):
        hint = f"; write {name}=VALUE"
    elif "=" in before and key:
        hint = f'; a value with a space needs quotes: "{_quoted(*split_override(f"{before} {override}"))}"'
    return UserError(one_line(f"{override or repr('')}: cannot be read as key=value{hint}"))


def _hint_for_value(key: str, value: str) -> str:
    """How to write a value that Hydra cannot read: a number in ASCII, or any text in quotes; or ""."""
    number = unicodedata.normalize("NFKC", value).replace("\N{MINUS SIGN}", "-")
    if re.search(r"(^|\.)(\.|$)", key):
        return "; a key has one dot between its parts"
    with suppress(ValueError):
        return f"; write {key}={float(number):g} with ASCII characters"
    if value.startswith("~/"):
        return f"; write {key}=$HOME{value[1:]}: the shell expands ~ only at the start of an argument"
    if re.search(r"(^|[\[,]),|,($|\])", value):
        return "; a list has a value before and after each comma"
    if set(value) & set(
        "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"
    ):
        return "; write straight quotes"
    with suppress(HydraException):  # of the lexer or of the parser
        OverridesParser.create().parse_override(_quoted(key, value))
        return f'; text with such characters needs quotes: "{_quoted(key, value)}"'
    return ""


def _quoted(key: str, value: str) -> str:
    return f"{key}={quote_value(value)}"


def _explain_unknown_key(match: re.Match[str], arguments: list[str], command: HydraCommand) -> UserError:
    key = match[1]
    launcher = override_values(arguments).get("hydra/launcher", "local")
    file = CONF / "hydra" / "launcher" / f"{launcher}.yaml"  # Hydra's own launcher has none here
    if key.startswith("hydra.launcher.") and file.exists():
        names_of_launcher = OmegaConf.load(file)
        if key.split(".")[2] in names_of_launcher:  # it is a mapping, and this key is not in it yet
            return UserError(f"{key}: a new key is added with a plus: +{key}.KEY=VALUE")
        return unknown_key(key, {str(name) for name in names_of_launcher if name != "_target_"})
    if key.startswith("hydra."):
        return UserError(f"{key}: Hydra has no such key ({command.name} --cfg hydra shows those it has)")
    if key in command.groups:
        return UserError(f"{key}: must name one of {', '.join(command.choices(key))}")
    if key in HINTS:
        return UserError(f"{key}: unknown key; {HINTS[key]}")
    values = override_values(arguments)
    group = key.partition(".")[0]
    if group in command.groups and values.get(group, "") == "custom":
        text = f"+{key}={values.get(key, '...')}"
        return UserError(f"{key}: unknown key; a key of your own class is added with a plus: {text}")
    names = all_keys(values, command)
    parent = key.rpartition(".")[0]
    prefix = f"{parent}." if parent else ""
    siblings = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    top_level = () if parent else command.groups
    return unknown_key(key, {name for name in (*siblings, *top_level) if "." not in name}, names)


def _explain_failed_deletion(match: re.Match[str], arguments: list[str], command: HydraCommand) -> UserError:
    """Hydra says of a key that is null that it does not exist."""
    if match[1] in all_keys(override_values(arguments), command):
        return deletion_error(match[1])
    return _explain_unknown_key(match, arguments, command)


def _explain_unknown_choice(match: re.Match[str], _: list[str], command: HydraCommand) -> UserError:
    group, choice = match[1], match[2]
    if target := _class_in_torch(group, choice):
        hint = f"{group}=custom {group}._target_={target} takes torch's"
        return UserError(f"{group}={choice}: must be one of {', '.join(command.choices(group))}; {hint}")
    if "/" in group and all(name in command.groups for name in group.split("/")):
        override = f"'override /{group.split('/')[1]}: {choice}'"
        return UserError(f"{group}={choice}: a defaults list names the choice of another group as {override}")
    options = re.findall(r"^\t(\S+)$", match.string, re.MULTILINE) or command.choices(group)
    return bad_choice(group, choice, options)


def _class_in_torch(group: str, choice: str) -> str | None:
    """``torch.optim.RMSprop`` for ``optimizer=rmsprop``, and the like for schedulers and losses."""
    if group not in TORCH_MODULES:
        return None
    module_name, suffix = TORCH_MODULES[group]
    module = importlib.import_module(module_name)
    names = {name.removesuffix(suffix).lower(): name for name in dir(module) if name[0].isupper()}
    name = names.get(choice.replace("_", "").lower().removesuffix(suffix.lower()))
    return f"{module_name}.{name}" if name else None


def _explain_no_choice(match: re.Match[str], arguments: list[str], command: HydraCommand) -> UserError:
    if any(argument.startswith("=") for argument in arguments):
        return _explain_no_key(match, arguments, command)
    for group, value in override_values(arguments).items():
        if group in command.groups and value.lower() in ("null", "none", ""):
            return bad_choice(group, value or "''", command.choices(group))
    return UserError(
        f"a group has no choice: write {command.groups[0]}={command.defaults[command.groups[0]]}, for example"
    )


def _explain_broken_yaml(error: BaseException) -> UserError:
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}" if mark is not None else "a YAML file"
    return UserError(one_line(f"{place}: {getattr(error, 'problem', None) or error}"))


def _file_that_is_not_utf8(arguments: list[str]) -> str:
    """The first YAML file of ``--config-dir`` that is not UTF-8."""
    parsed, _ = get_args_parser().parse_known_args(arguments)
    for path in sorted(Path(parsed.config_dir or ".").rglob("*.yaml")):
        try:
            if path.is_file():
                path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return str(path)
        except OSError:  # it is another file that Hydra has read
            continue
    return "a YAML file"


def _explain_existing_key(match: re.Match[str], *_: object) -> UserError:
    return UserError(f"+{match[1]}: this key exists already; write it without the plus")


def _explain_existing_choice(match: re.Match[str], *_: object) -> UserError:
    group, choice = match[1], match[2]
    return UserError(f"+{group}={choice}: this group has a choice already; write it without the plus")


def _explain_no_key(_: re.Match[str], arguments: list[str], __: object) -> UserError:
    override = next((argument for argument in arguments if argument.startswith("=")), "=")
    return UserError(f"{override}: write key=value without spaces")


def _explain_no_folder(match: re.Match[str], *_: object) -> UserError:
    return UserError(f"--config-dir {match[1]}: there is no such folder")


def _explain_several_values(match: re.Match[str], *_: object) -> UserError:
    key, value = split_override(match[1])
    return UserError(
        f"{match[1]}: several values are a sweep (add -m); a list has brackets: '{key}=[{value}]'"
    )


def _explain_list_in_file(match: re.Match[str], arguments: list[str], _: object) -> UserError:
    parsed, _ = get_args_parser().parse_known_args(arguments)
    path = Path(parsed.config_dir or CONF, f"{match[1]}.yaml")
    return UserError(f"{path}: must hold keys, not a list")


# Hydra has few exception types, so the text of a message says what happened. The first match counts.
EXPLANATIONS: dict[str, Callable[[re.Match[str], list[str], HydraCommand], UserError]] = {
    r"Could not override '([^']+)'": _explain_unknown_key,
    r"Could not override ''": _explain_no_key,
    r"Could not (?:find|load) '([^']+)/([^'/]*)'": _explain_unknown_choice,
    r"Multiple values for (\S+)\. To override a value use 'override \S+: (.+)'": _explain_existing_choice,
    r"Additional config directory '(.+)' not found": _explain_no_folder,
    r"Could not append to config\. An item is already at '([^']+)'": _explain_existing_key,
    r"Could not delete from config\. '?([^' ]+)'? does not exist": _explain_failed_deletion,
    r"Ambiguous value for argument '([^']+)'": _explain_several_values,
    r"In '(.+)': ConfigTypeError raised .*:\nCannot merge DictConfig with ListConfig": _explain_list_in_file,
    r"Config group override must be a string or a list": _explain_no_choice,
}
