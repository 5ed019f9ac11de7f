import pytest

from bnexp.runs.identity import LATER_KEYS, config_hash, experiment

CONFIG = {"name": "a", "tags": [], "seed": 0, "epochs": 2, "dataset": {"name": "digits", "root": "/x"}}


def test_hash_depends_on_the_experiment_and_not_on_its_name_or_its_files():
    renamed = CONFIG | {"name": "b", "tags": ["t"], "dataset": {"name": "digits", "root": "/y", "delta": 0.5}}
    assert config_hash(renamed) == config_hash(CONFIG)
    assert config_hash(CONFIG | {"seed": 1}) != config_hash(CONFIG)
    assert config_hash(dict(reversed(CONFIG.items()))) == config_hash(CONFIG)


@pytest.mark.parametrize(
    ("group", "target"), [("model", "bnexp.models.MLP"), ("loss", "torch.nn.CrossEntropyLoss")]
)
def test_the_default_of_a_later_key_changes_no_hash_and_another_value_does(group, target):
    """A run that was trained before the key existed is the same experiment as one with its default."""
    older = CONFIG | {group: {"_target_": target, "label_smoothing": 0.0}}
    later_keys = next(keys for (name, _), keys in LATER_KEYS.items() if name == group)
    assert later_keys
    newer = older | {group: older[group] | later_keys}
    assert config_hash(newer) == config_hash(older)
    assert experiment(newer) == experiment(older)
    for key in later_keys:
        assert config_hash(older | {group: newer[group] | {key: 7}}) != config_hash(older)


def test_a_key_of_a_users_own_network_is_always_part_of_the_hash():
    own = {"_target_": "mynets.Net"}
    assert config_hash(CONFIG | {"model": own | {"depth": 1}}) != config_hash(CONFIG | {"model": own})
