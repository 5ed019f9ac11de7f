"""Values held against type annotations: the one place that decides whether a value is allowed.

A type has one home, the signature (or the dataclass field) that uses it; ``check`` reads it there.
Ranges ride along as ``Annotated[int, Range(1)]``.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from bnexp.errors import UserError, bad_choice, bad_value, unknown_key

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``; ``above`` and ``below`` leave out the ends."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        low_ok = value > self.low if self.above else value >= self.low
        high_ok = value < self.high if self.below else value <= self.high
        return low_ok and high_ok

    def __str__(self) -> str:
        parts = []
        if math.isfinite(self.low):
            parts.append(f"{'above' if self.above else 'at least'} {self.low:g}")
        if math.isfinite(self.high):
            parts.append(f"{'below' if self.below else 'at most'} {self.high:g}")
        return " and ".join(parts)


Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Probability = Annotated[float, Range(0, 1, below=True)]


def check(value: Any, annotation: Any, key: str) -> Any:
    """``value`` as the annotated type: an int becomes a float, a list a tuple.

    Raises UserError, naming ``key`` and what is allowed.
    """
    if annotation is Any or annotation is inspect.Parameter.empty:
        return value
    try:
        return _convert(value, annotation, key)
    except _Mismatch as mismatch:
        raise bad_value(key, value, f"must be {mismatch}") from None


def check_mapping(values: Mapping[str, Any], schema: type[T], key: str = "") -> T:
    """An instance of the dataclass ``schema``; only keys with a default may be missing, none may be over."""
    dotted = f"{key}." if key else ""
    hints = get_type_hints(schema, include_extras=True)
    for name in values:
        if name not in hints:
            raise unknown_key(f"{dotted}{name}", hints)
    for field in dataclasses.fields(schema):  # type: ignore[arg-type]
        if field.name not in values and field.default is dataclasses.MISSING:
            raise UserError(f"{dotted}{field.name}: this key is missing")
    given = {name: check(value, hints[name], f"{dotted}{name}") for name, value in values.items()}
    return schema(**given)


def check_arguments(
    function: Callable[..., Any],
    values: Mapping[str, Any],
    key: str,
    *,
    given: Sequence[str] = (),
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``values`` as arguments for ``function``, held against its signature.

    ``given`` names the parameters that the caller fills in itself; ``known`` holds annotations for
    parameters whose own signature does not say enough (torch's carry no ranges).
    """
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes = named - set(given) - {"self"}
    hints = _hints(function)
    checked = {}
    for name, value in values.items():
        if name not in takes and not open_ended:
            raise unknown_key(f"{key}.{name}", takes)
        annotation = (known or {}).get(name, hints.get(name, Any))
        checked[name] = check(value, annotation, f"{key}.{name}")
    for name, parameter in parameters.items():
        needed = parameter.default is parameter.empty and name in takes
        if needed and name not in values:
            needs = f"{getattr(function, '__name__', function)} needs this key, as in +{key}.{name}=..."
            raise UserError(f"{key}.{name}: {needs}")
    return checked


class _Mismatch(Exception):
    """What the value should have been, in words."""


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    subject = function.__init__ if inspect.isclass(function) else function
    try:
        return get_type_hints(subject, include_extras=True)
    except (NameError, TypeError):  # a foreign signature whose annotations don't resolve
        return {}


def _convert(value: Any, annotation: Any, key: str) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin is Annotated:
        converted = _convert(value, arguments[0], key)
        for rule in arguments[1:]:
            if isinstance(rule, Range) and not rule.holds(converted):
                raise _Mismatch(f"{_words(arguments[0])}, {rule}".rstrip(", "))
        return converted
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, key)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            hint = " (write none, the word)" if value is None and "none" in arguments else ""
            if hint:
                raise _Mismatch(f"one of {', '.join(map(str, arguments))}{hint}")
            raise bad_choice(key, value, map(str, arguments))
        return value
    if origin in (tuple, list, Sequence) or annotation in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise _Mismatch(_words(annotation))
        item = arguments[0] if arguments else Any
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise _Mismatch(f"a list of {len(arguments)}")
            return tuple(
                check(v, a, f"{key}[{i}]") for i, (v, a) in enumerate(zip(value, arguments, strict=True))
            )
        return tuple(check(v, item, f"{key}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        if isinstance(value, annotation):
            return value
        if not isinstance(value, Mapping):
            raise _Mismatch("a group of keys")
        return check_mapping(value, annotation, key)
    return _convert_plain(value, annotation)


def _convert_union(value: Any, arguments: tuple[Any, ...], key: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    expected = []
    for argument in arguments:
        if argument is type(None):
            expected.append("null")
            continue
        try:
            return _convert(value, argument, key)
        except (_Mismatch, UserError) as mismatch:
            if isinstance(mismatch, UserError) and isinstance(value, (list, tuple)):
                raise  # the fault is inside the list: that line says more
            expected.append(str(mismatch) if isinstance(mismatch, _Mismatch) else _words(argument))
    raise _Mismatch(" or ".join(dict.fromkeys(expected)))


def _convert_plain(value: Any, annotation: Any) -> Any:
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise _Mismatch("a number a float can hold") from None
    if annotation in (int, float, str, bool):
        if type(value) is not annotation:
            raise _Mismatch(_words(annotation))
        if annotation is float and math.isnan(value):
            raise _Mismatch(_words(annotation))
    return value  # anything else is the target's own business


def _words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        rules = ", ".join(str(rule) for rule in arguments[1:])
        return f"{_words(arguments[0])}, {rules}"
    if origin in (Union, types.UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list, Sequence):
        return "a list, as in '[a,b]'"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(
        annotation, "null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))
    )
