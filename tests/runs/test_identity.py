from bnexp.runs.identity import config_hash

CONFIG = {"name": "a", "tags": [], "seed": 0, "epochs": 2, "dataset": {"name": "digits", "root": "/x"}}


def test_hash_depends_on_the_experiment_and_not_on_its_name_or_its_files():
    renamed = CONFIG | {"name": "b", "tags": ["t"], "dataset": {"name": "digits", "root": "/y", "delta": 0.5}}
    assert config_hash(renamed) == config_hash(CONFIG)
    assert config_hash(CONFIG | {"seed": 1}) != config_hash(CONFIG)
    assert config_hash(dict(reversed(CONFIG.items()))) == config_hash(CONFIG)
