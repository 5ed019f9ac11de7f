from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bnexp.cli.help import CONF, GROUPS, choices, help_text


def keys_of(path):
    """Every leaf key that a YAML file sets, by its own text: at least each must be explained in --help."""
    parents: list[str] = []
    for line in path.read_text().splitlines():
        if match := re.match(r"^( *)([a-z_A-Z0-9]\w*):(.*)$", line):
            parents = [*parents[: len(match[1]) // 2], match[2]]
            if match[3].strip() and parents[0] not in ("hydra", "defaults"):
                yield ".".join(parents)


def test_help_explains_every_key_and_names_every_choice():
    text = help_text()
    for key in keys_of(CONF / "config.yaml"):
        assert f"  {key}=" in text, key
    for group in GROUPS:
        for name in choices(group):
            assert re.search(rf"\b{name}\b", text), name
            if group != "experiment":
                for key in keys_of(CONF / group / f"{name}.yaml"):
                    assert f"  {group}.{key}=" in text or key in ("name", "_target_"), key


def test_help_has_five_examples_and_no_line_over_100():
    text = help_text()
    assert len(re.findall(r"^  bnexp", text, re.MULTILINE)) == 5
    assert max(map(len, text.splitlines())) <= 100


def test_help_shows_the_defaults_and_who_has_others():
    text = " ".join(help_text().split())
    assert "optimizer: adam, adamw, custom, momentum, nesterov, sgd (default)" in text
    assert "optimizer.lr=0.1 learning rate; 0.001 in adam, adamw; 0.05 in momentum, nesterov" in text


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_ends_well(commands, flag):
    done = commands.bnexp(flag)
    assert done.code == 0
    assert done.out.strip() == help_text().strip()


def test_cfg_job_prints_the_configuration_and_leaves_nothing(commands):
    done = commands.bnexp("--cfg", "job", "epochs=7")
    assert done.code == 0
    assert "epochs: 7" in done.out
    assert not list(commands.folder.iterdir())


def test_completion_offers_groups_and_choices(shell):
    done = shell("-sc", "query=bash", COMP_LINE="bnexp model=conv", COMP_POINT="16")
    assert done.code == 0
    assert "model=conv_bn" in done.out


def test_examples_of_the_help_compose(commands):
    import shlex

    for line in re.findall(r"^  bnexp(.*)$", help_text(), re.MULTILINE):
        words = shlex.split(re.split(r"\s{2,}", line.strip())[0]) if line.strip() else []
        single = [re.split(",", word)[0] if "=[" not in word else word for word in words if word != "-m"]
        if words and "=" not in line:
            continue
        assert commands.bnexp("--cfg", "job", *single).code == 0, line


@pytest.mark.parametrize(
    ("command", "words", "line"),
    [
        ("plan", ["--foo"], "unrecognized arguments: --foo"),
        ("resume", [], "required: DIR"),
        ("eval", ["run", "--chekpoint", "best"], "did you mean --checkpoint?"),
    ],
)
def test_the_smaller_commands_complain_in_one_line_too(commands, command, words, line):
    done = getattr(commands, command)(*words)
    assert done.code == 2
    assert line in done.err
    assert len(done.err.splitlines()) == 1


def test_a_reader_that_leaves_early_is_no_crash(tmp_path):
    command = f"{sys.executable} -m bnexp.evaluate --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (0, 141)
    assert "Traceback" not in done.stderr


WHILE_IMPORTING = """
import signal, sys
class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
from bnexp import door
door.{command}()
"""


@pytest.mark.parametrize(
    ("command", "module"), [("train", "hydra"), ("compare", "bnexp.cli.exit_codes"), ("plan", "hydra")]
)
def test_ctrl_c_while_modules_are_imported_is_one_line(command, module, tmp_path):
    code = WHILE_IMPORTING.format(command=command, module=module)
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "bnexp: interrupted (SIGINT)\n"
