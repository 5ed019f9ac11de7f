from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from bnexp.config.validation import Count, Positive, Probability, Range, check, check_arguments, check_mapping
from bnexp.errors import UserError

Size = Annotated[int, Range(1)] | Annotated[float, Range(0, 1, above=True, below=True)]


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
def test_allowed(value, annotation, expected):
    found = check(value, annotation, "key")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "words"),
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
        (10**400, float, "a number a float can hold"),
        (None, int, "key=null: must be a whole number"),
        ("", Literal["a", "b"], "one of a, b"),
        ("mni", Literal["min", "max"], "did you mean min"),
        (None, Literal["none", "batch"], "write none, the word"),
        (True, Literal[1, 2], "one of 1, 2"),
        (1.5, Size, "or"),
        ("x", int | None, "a whole number or null"),
        ([1, "x"], tuple[int, ...], "key[1]=x: must be a whole number"),
        (3, tuple[int, ...], "a list, as in"),
        ([0.9], tuple[float, float], "a list of 2"),
    ],
)
def test_refused_in_one_line(value, annotation, words):
    with pytest.raises(UserError) as caught:
        check(value, annotation, "key")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Inner:
    rate: Positive


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str


def test_mapping_becomes_nested_dataclasses():
    assert check_mapping({"inner": {"rate": 1}, "name": "x"}, Outer) == Outer(Inner(1.0), "x")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"inner": {"rate": -1}, "name": "x"}, "inner.rate=-1: must be a number, above 0"),
        ({"inner": {"rte": 1, "rate": 1}, "name": "x"}, "inner.rte: unknown key; did you mean inner.rate?"),
        ({"inner": {"rate": 1}}, "name: this key is missing"),
        ({"inner": 3, "name": "x"}, "inner=3: must be a group of keys"),
    ],
)
def test_mapping_faults_name_the_full_key(values, words):
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        check_mapping(values, Outer)


class Layer:
    def __init__(self, in_channels: int, *, width: Count, rate: float = 0.1) -> None: ...


def test_arguments_are_held_against_the_signature():
    assert check_arguments(Layer, {"width": 3, "rate": 1}, "model", given=["in_channels"]) == {
        "width": 3,
        "rate": 1.0,
    }


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"widht": 3}, "model.widht: unknown key; did you mean model.width"),
        ({"rate": 0.5}, "model.width: Layer needs this key"),
        ({"width": 0}, "model.width=0: must be a whole number, at least 1"),
        ({"width": 1, "in_channels": 3}, "model.in_channels: unknown key"),
    ],
)
def test_argument_faults(keys, words):
    with pytest.raises(UserError, match=words):
        check_arguments(Layer, keys, "model", given=["in_channels"])


def test_known_annotations_stand_in_for_a_signature_without_ranges():
    def sgd(params, lr=0.1): ...

    with pytest.raises(UserError, match=r"optimizer\.lr=-1: must be a number, above 0"):
        check_arguments(sgd, {"lr": -1}, "optimizer", given=["params"], known={"lr": Positive})


def test_open_ended_functions_take_any_key():
    def anything(**keys): ...

    assert check_arguments(anything, {"a": 1}, "model") == {"a": 1}
