"""Every preset is a valid configuration, and those of published measurements are in the gallery's order."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module

from bnexp.cli.composed_config import resolve_config
from bnexp.config.schema import parse

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from science import ORDER

PRESETS = Path(__file__).parents[2] / "conf" / "experiment"
NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
PUBLISHED = [name for name in NAMES if re.match(r"[a-z]+\d{4}_", name)]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_valid_configuration(name):
    with initialize_config_module("bnexp.conf", version_base="1.3"):
        composed = compose("config", overrides=[f"experiment={name}", "name=preset"])
    assert parse(resolve_config(composed)).epochs >= 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_measurement_is_a_sweep_with_seeds_and_begins_with_its_question(name):
    text = (PRESETS / f"{name}.yaml").read_text()
    hydra = yaml.safe_load(text)["hydra"]
    assert hydra["mode"] == "MULTIRUN"
    assert "seed" in hydra["sweeper"]["params"]
    assert re.search(r"\?.*\d{4}", text.splitlines()[1])  # a question, and the year of its source


def test_the_gallery_shows_every_published_measurement():
    assert sorted(ORDER) == PUBLISHED
