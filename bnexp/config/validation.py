"""Checks values against type annotations: the only place that decides whether a value is allowed.

A type is written once, in the signature or the dataclass field that uses it, and ``check`` reads it there.
A range is part of the annotation: ``Annotated[int, Range(1)]``.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from bnexp.errors import UserError, bad_choice, bad_value, unknown_key

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``. Both ends belong to it unless they are excluded."""

    low: float = -math.inf
    high: float = math.inf
    exclude_low: bool = False
    exclude_high: bool = False

    def contains(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        low_ok = value > self.low if self.exclude_low else value >= self.low
        high_ok = value < self.high if self.exclude_high else value <= self.high
        return low_ok and high_ok

    def __str__(self) -> str:
        limits = []
        if math.isfinite(self.low):
            limits.append(f"{'above' if self.exclude_low else 'at least'} {self.low:.12g}")
        if math.isfinite(self.high):
            limits.append(f"{'below' if self.exclude_high else 'at most'} {self.high:.12g}")
        return " and ".join(limits)


Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, exclude_low=True)]
Probability = Annotated[float, Range(0, 1, exclude_high=True)]


def check(value: Any, annotation: Any, key: str) -> Any:
    """``value`` as the annotated type: an int becomes a float, a list becomes a tuple.

    Raises UserError, which names ``key`` and what is allowed.
    """
    if annotation is Any or annotation is inspect.Parameter.empty:
        return value
    try:
        return _convert(value, annotation, key)
    except _Mismatch as mismatch:
        raise bad_value(key, value, f"must be {mismatch}") from None


def check_mapping(values: Mapping[str, Any], schema: type[T], key: str = "") -> T:
    """An instance of the dataclass ``schema`` with these values.

    Raises UserError for a key that is no field, for a missing field without a default, for a wrong value.
    """
    prefix = f"{key}." if key else ""
    hints = get_type_hints(schema, include_extras=True)
    for name in values:
        if name not in hints:
            raise unknown_key(f"{prefix}{name}", hints)
    for field in dataclasses.fields(schema):  # type: ignore[arg-type]
        if field.name not in values and field.default is dataclasses.MISSING:
            raise UserError(f"{prefix}{field.name}: this key is missing")
    return schema(**{name: check(value, hints[name], f"{prefix}{name}") for name, value in values.items()})


def check_arguments(
    function: Callable[..., Any],
    values: Mapping[str, Any],
    key: str,
    *,
    caller_arguments: Sequence[str] = (),
    annotations: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``values`` as keyword arguments for ``function``, checked against its signature.

    ``caller_arguments`` names the parameters that the caller passes itself. ``annotations`` takes precedence
    over the signature: torch's signatures hold no ranges. Raises UserError.
    """
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    names -= {"self", *caller_arguments}
    hints = _type_hints(function) | dict(annotations or {})
    arguments = {}
    for name, value in values.items():
        if name not in names and not open_ended:
            raise unknown_key(f"{key}.{name}", names)
        _check_no_target_inside(value, f"{key}.{name}")
        arguments[name] = check(value, hints.get(name, Any), f"{key}.{name}")
    for name, parameter in parameters.items():
        has_default = parameter.default is not parameter.empty
        if name in names and not has_default and name not in values:
            function_name = getattr(function, "__name__", function)
            raise UserError(f"{key}.{name}: {function_name} needs this key, as in +{key}.{name}=...")
    return arguments


def _check_no_target_inside(value: Any, key: str) -> None:
    """Raises UserError for a nested ``_target_``: it would stay a dictionary, unchecked by trust.py."""
    if isinstance(value, Mapping) and "_target_" in value:
        raise bad_value(
            f"{key}._target_", value["_target_"],
            "only the _target_ of a group is built; give a name, and build it in the constructor",
        )  # fmt: skip
    parts = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, part in parts:
        _check_no_target_inside(part, f"{key}.{name}")


class _Mismatch(Exception):
    """Its text says what the value must be."""


def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    subject = function.__init__ if inspect.isclass(function) else function
    try:
        return get_type_hints(subject, include_extras=True)
    except (NameError, TypeError):  # annotations of a user's or torch's function that cannot be resolved
        return {}


def _convert(value: Any, annotation: Any, key: str) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin is Annotated:
        return _convert_annotated(value, arguments, key)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, key)
    if origin is Literal:
        return _convert_literal(value, arguments, key)
    if origin in (tuple, list, Sequence) or annotation in (tuple, list):
        return _convert_list(value, annotation, key)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _convert_dataclass(value, annotation, key)
    return _convert_plain(value, annotation)


def _convert_annotated(value: Any, arguments: tuple[Any, ...], key: str) -> Any:
    annotation, *rules = arguments
    value = _convert(value, annotation, key)
    for rule in rules:
        if isinstance(rule, Range) and not rule.contains(value):
            if not math.isfinite(value):
                raise _Mismatch(f"a finite number, {rule}".rstrip(", "))
            raise _Mismatch(f"{_describe(annotation)}, {rule}".rstrip(", "))
    return value


def _convert_union(value: Any, arguments: tuple[Any, ...], key: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    descriptions = []
    for argument in arguments:
        if argument is type(None):
            descriptions.append("null")
            continue
        try:
            return _convert(value, argument, key)
        except (_Mismatch, UserError) as mismatch:
            if isinstance(mismatch, UserError) and isinstance(value, (list, tuple)):
                raise  # an item of the list is wrong, and this message names it
            descriptions.append(str(mismatch) if isinstance(mismatch, _Mismatch) else _describe(argument))
    raise _Mismatch(" or ".join(dict.fromkeys(descriptions)))


def _convert_literal(value: Any, choices: tuple[Any, ...], key: str) -> Any:
    if value in choices and not isinstance(value, bool):
        return value
    if value is None and "none" in choices:
        raise _Mismatch(f"one of {', '.join(map(str, choices))} (write the word none)")
    raise bad_choice(key, value, map(str, choices))


def _convert_list(value: Any, annotation: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _Mismatch(_describe(annotation))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise _Mismatch(f"a list of {len(arguments)}")
        item_types = list(arguments)
    else:
        item_types = [arguments[0] if arguments else Any] * len(value)
    items = enumerate(zip(value, item_types, strict=True))
    return tuple(check(item, item_type, f"{key}[{i}]") for i, (item, item_type) in items)


def _convert_dataclass(value: Any, schema: type, key: str) -> Any:
    if isinstance(value, schema):
        return value
    if not isinstance(value, Mapping):
        raise _Mismatch("a group of keys")
    return check_mapping(value, schema, key)


def _convert_plain(value: Any, annotation: Any) -> Any:
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise _Mismatch("a number that a float can hold") from None
    if annotation in (int, float, str, bool):
        if type(value) is not annotation:
            is_range = annotation is int and re.fullmatch(r"\d+\s*(-|\.\.|:)\s*\d+", str(value))
            hint = "; with -m, range(0,5) is 0,1,2,3,4" if is_range else ""
            raise _Mismatch(_describe(annotation) + hint)
        if annotation is float and math.isnan(value):
            raise _Mismatch(_describe(annotation))
    return value  # any other type is checked by the function that takes the value


def _describe(annotation: Any) -> str:
    """An annotation as an error message names it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        rules = ", ".join(str(rule) for rule in arguments[1:])
        return f"{_describe(arguments[0])}, {rules}"
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list, Sequence):
        return "a list, as in '[a,b]'"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
