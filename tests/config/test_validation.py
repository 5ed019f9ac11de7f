from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from bnexp.config.validation import Count, Positive, Probability, Range, check, check_arguments, check_mapping
from bnexp.errors import UserError

Size = Annotated[int, Range(1)] | Annotated[float, Range(0, 1, exclude_low=True, exclude_high=True)]


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (3, Count, 3),
        (None, int | None, None),
        (0.5, Size, 0.5),
        (7, Size, 7),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], Sequence[float], (1.0, 2.0)),
        ([0.9, 0.99], tuple[Probability, Probability], (0.9, 0.99)),
        ("min", Literal["min", "max"], "min"),
        ({"a": 1}, Any, {"a": 1}),
        (float("inf"), float, float("inf")),
    ],
)
def test_an_allowed_value_is_converted_to_its_type(value, annotation, expected):
    converted = check(value, annotation, "key")
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("abc", int, "key=abc: must be a whole number"),
        (3.0, int, "a whole number"),
        (True, int, "a whole number"),
        (1, bool, "true or false"),
        (True, float, "a number"),
        (0, Count, "at least 1"),
        (0.0, Positive, "above 0"),
        (1.0, Probability, "at least 0 and below 1"),
        (float("nan"), float, "a number"),
        (float("inf"), Positive, "above 0"),
        (10**400, float, "a number that a float can hold"),
        (None, int, "key=null: must be a whole number"),
        ("", Literal["a", "b"], "one of a, b"),
        ("mni", Literal["min", "max"], "did you mean min"),
        (None, Literal["none", "batch"], "write the word none"),
        (True, Literal[1, 2], "one of 1, 2"),
        (1.5, Size, "or"),
        ("x", int | None, "a whole number or null"),
        ([1, "x"], tuple[int, ...], "key[1]=x: must be a whole number"),
        (3, tuple[int, ...], "a list, as in"),
        ([0.9], tuple[float, float], "a list of 2"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(value, annotation, message):
    with pytest.raises(UserError) as error_info:
        check(value, annotation, "key")
    assert message in str(error_info.value)
    assert "\n" not in str(error_info.value)


@dataclass(frozen=True)
class Inner:
    rate: Positive


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str


def test_a_mapping_becomes_nested_dataclasses():
    assert check_mapping({"inner": {"rate": 1}, "name": "x"}, Outer) == Outer(Inner(1.0), "x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"rate": -1}, "name": "x"}, "inner.rate=-1: must be a number, above 0"),
        ({"inner": {"rte": 1, "rate": 1}, "name": "x"}, "inner.rte: unknown key; did you mean inner.rate?"),
        ({"inner": {"rate": 1}}, "name: this key is missing"),
        ({"inner": 3, "name": "x"}, "inner=3: must be a group of keys"),
    ],
)
def test_a_mistake_in_a_mapping_is_named_by_its_full_key(values, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        check_mapping(values, Outer)


class Layer:
    def __init__(self, in_channels: int, *, width: Count, rate: float = 0.1) -> None: ...


def test_arguments_are_checked_against_the_signature():
    arguments = check_arguments(Layer, {"width": 3, "rate": 1}, "model", caller_arguments=["in_channels"])
    assert arguments == {"width": 3, "rate": 1.0}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"widht": 3}, "model.widht: unknown key; did you mean model.width"),
        ({"rate": 0.5}, "model.width: Layer needs this key"),
        ({"width": 0}, "model.width=0: must be a whole number, at least 1"),
        ({"width": 1, "in_channels": 3}, "model.in_channels: unknown key"),
    ],
)
def test_a_wrong_argument_is_named_by_its_full_key(keys, message):
    with pytest.raises(UserError, match=message):
        check_arguments(Layer, keys, "model", caller_arguments=["in_channels"])


def test_annotations_of_the_caller_take_precedence_over_the_signature():
    def sgd(params, lr=0.1): ...

    with pytest.raises(UserError, match=r"optimizer\.lr=-1: must be a number, above 0"):
        check_arguments(
            sgd, {"lr": -1}, "optimizer", caller_arguments=["params"], annotations={"lr": Positive}
        )


def test_a_function_with_open_ended_keywords_takes_any_key():
    def open_ended(**keys): ...

    assert check_arguments(open_ended, {"a": 1}, "model") == {"a": 1}
