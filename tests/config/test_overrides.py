from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from bnexp.config.overrides import flatten, override_key, override_values, quote_value, split_override


def parse_value(text: str) -> object:
    """The value that Hydra reads from ``key=text``."""
    (override,) = OverridesParser.create().parse_overrides([f"key={text}"])
    assert not override.is_sweep_override()
    return override.value()


TEXTS = [
    "", "plain", "two words", " spaces at both ends ", "Größe über öäüß", "a,b", "a=b", "[1,2]", "{a:b}", "{",
    "}", "(x)", "${x}", "$", "null", "1", "true", "'", "''", "it's", '"double"', "\t", "line\nline", "#", "~",
    "\\", "\\\\", "\\\\\\", "a\\b", "a\\\\b", "\\'", "\\\\'", "\\\\\\'", "'\\", "'\\\\", "a\\'b\\\\'c\\",
    "a/b", '\\"', "trailing\\", "trailing\\\\", "C:\\new\\table", "../b", "%(x)s",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_hydra_reads_a_quoted_value_as_the_text_itself(text):
    assert parse_value(quote_value(text)) == text


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(st.sampled_from("\\'\"a ,$={}"), max_size=12))
def test_hydra_reads_any_mixture_of_backslashes_and_quotes_as_the_text_itself(text):
    assert parse_value(quote_value(text)) == text


def test_hydra_reads_quoted_values_of_a_list_one_by_one():
    """Commas inside quotes separate nothing."""
    texts = ["it's", "a,b", "back\\"]
    assert parse_value(f"[{','.join(map(quote_value, texts))}]") == texts


@pytest.mark.parametrize(
    ("override", "key", "sides"),
    [
        ("model.norm=batch", "model.norm", ("model.norm", "batch")),
        ("+model.width=64", "model.width", ("+model.width", "64")),
        ("++model.width=64", "model.width", ("++model.width", "64")),
        ("~model.norm", "model.norm", ("~model.norm", "")),
        ("name='a=b'", "name", ("name", "'a=b'")),
        ("name=", "name", ("name", "")),
    ],
)
def test_an_override_has_a_key_and_a_value(override, key, sides):
    assert split_override(override) == sides
    assert override_key(override) == key


def test_the_last_override_of_a_key_counts():
    assert override_values(["seed=1", "+a=2", "seed=3"]) == {"seed": "3", "+a": "2"}


def test_flatten_joins_nested_keys_with_dots_and_keeps_lists_and_empty_groups():
    values = {"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None, "g": {}, "h": {"i": {}}}
    assert flatten(values) == {"a.b.c": 1, "a.d": [1, {"e": 2}], "f": None, "g": {}, "h.i": {}}
