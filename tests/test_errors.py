import pickle

import pytest

from bnexp.errors import UserError, bad_choice, bad_value, nearest_match, unknown_key


@pytest.mark.parametrize(
    ("word", "expected"),
    [("covn", "conv"), ("CONV", "conv"), ("mlpbn", "mlp_bn"), ("zzz", None), ("", None)],
)
def test_nearest_match_is_a_similar_choice_or_none(word, expected):
    assert nearest_match(word, ["conv", "mlp_bn", "resnet"]) == expected


def test_a_message_is_one_line_with_key_value_choices_and_nearest_match():
    error = bad_choice("model.norm", "bacth", ["none", "batch"])
    assert str(error) == "model.norm=bacth: must be one of none, batch; did you mean batch?"
    assert "\n" not in str(bad_value("name", "a\nb", "must be\none line"))


def test_unknown_key_lists_the_keys_of_its_parent():
    text = str(unknown_key("optimizer.lrr", ["momentum", "lr"]))
    assert text == "optimizer.lrr: unknown key; did you mean optimizer.lr? optimizer takes: lr, momentum"


def test_an_error_survives_pickling_between_processes():
    error = bad_value("epochs", 0, "must be at least 1")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, UserError)
    assert str(copy) == str(error)
