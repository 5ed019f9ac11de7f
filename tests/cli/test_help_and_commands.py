from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import metadata

import pytest

from bnexp.cli.help import CONF, GROUPS, choices, help_text


def keys_of(path):
    """Every leaf key that a YAML file sets, read from its text: --help must explain each of them."""
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


def test_help_lists_no_key_of_hydra():
    assert "  hydra." not in help_text()


def test_help_shows_the_defaults_and_which_choices_have_others():
    text = " ".join(help_text().split())
    assert "optimizer: adam, adamw, custom, momentum, nesterov, sgd (default)" in text
    assert "optimizer.lr=0.1 learning rate; 0.001 in adam, adamw; 0.05 in momentum, nesterov" in text


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_flags_print_the_help_and_exit_with_0(commands, flag):
    result = commands.bnexp(flag)
    assert result.code == 0
    assert result.out.strip() == help_text().strip()


def test_cfg_job_prints_the_configuration_and_writes_nothing(commands):
    result = commands.bnexp("--cfg", "job", "epochs=7")
    assert result.code == 0
    assert "epochs: 7" in result.out
    assert not list(commands.folder.iterdir())


def test_shell_completion_offers_groups_and_choices(shell):
    result = shell("-sc", "query=bash", COMP_LINE="bnexp model=conv", COMP_POINT="16")
    assert result.code == 0
    assert "model=conv_bn" in result.out


def test_the_examples_of_the_help_compose(commands):
    for line in re.findall(r"^  bnexp(.*)$", help_text(), re.MULTILINE):
        arguments = shlex.split(re.split(r"\s{2,}", line)[0])  # behind them stands what the command does
        if "-m" in arguments:
            assert commands.plan(*arguments).code == 0, line
        else:
            assert commands.bnexp("--cfg", "job", *arguments).code == 0, line


@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        ("plan", ["--foo"], "unrecognized arguments: --foo"),
        ("resume", [], "required: DIR"),
        ("eval", ["run", "--chekpoint", "best"], "did you mean --checkpoint?"),
        # an unset shell variable is no name of the current folder
        *((command, [""], "must name a file or folder") for command in ("resume", "watch", "list", "eval")),
        ("plan", [""], "'': cannot be read as key=value"),
        ("plan", ["seed=0,1", "hydra.sweep.dir="], "hydra.sweep.dir='': must name a folder"),
        ("plan", ["seed=0,1", "name=a/b"], "name='a/b': must be one line without /"),
        ("plan", ["seed=0,1", "~optimizer.lr"], "~optimizer.lr: a key cannot be deleted"),
        ("plan", ["seed=0,1", "hydra.run.dir=a"], "hydra.run.dir=a: a sweep is written to hydra.sweep.dir"),
        ("eval", ["run", "--predictions", ""], "--predictions: '' must name a file or folder"),
        ("eval", ["run", "--export", " "], "--export: ' ' must name a file or folder"),
    ],
)
def test_a_wrong_argument_of_a_smaller_command_is_one_line(commands, command, arguments, line):
    result = getattr(commands, command)(*arguments)
    assert result.code == 2
    assert line in result.err
    assert len(result.err.splitlines()) == 1


def test_a_reader_that_closes_the_pipe_early_causes_no_traceback(tmp_path):
    command = f"{sys.executable} -m bnexp.evaluate --help | true; exit ${{PIPESTATUS[0]}}"
    process = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode in (0, 141)
    assert "Traceback" not in process.stderr


INTERRUPTED_IMPORT = """
import signal, sys
class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
from bnexp.cli import entry_points
entry_points.{command}()
"""


@pytest.mark.parametrize(
    ("command", "module"), [("train", "hydra"), ("compare", "bnexp.cli.exit_codes"), ("plan", "hydra")]
)
def test_ctrl_c_during_the_imports_is_one_line(command, module, tmp_path):
    code = INTERRUPTED_IMPORT.format(command=command, module=module)
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (process.returncode, process.stdout) == (130, "")
    assert process.stderr == "bnexp: interrupted (SIGINT)\n"


def test_python_m_bnexp_is_bnexp():
    command = [sys.executable, "-m", "bnexp", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"bnexp {metadata.version('bnexp')}, ")


@pytest.mark.parametrize("flag", ["--info", "-i", "--hydra-help"])
def test_flags_of_hydra_stand_at_any_place(commands, flag):
    result = commands.bnexp("model=conv", flag)
    assert (result.code, result.err) == (0, "")
    assert result.out


def test_the_version_is_that_of_bnexp(commands):
    result = commands.bnexp("--version")
    assert (result.code, result.out.startswith(f"bnexp {metadata.version('bnexp')}, ")) == (0, True)


def test_a_name_with_a_line_break_is_refused(commands):
    result = commands.bnexp("name='a\nb'", "epochs=1")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert list(commands.folder.iterdir()) == []


@pytest.mark.parametrize("command", ["bnexp", "bnexp-compare", "bnexp-resume"])
def test_a_deleted_current_folder_is_named(tmp_path, command):
    folder = tmp_path / "deleted"
    folder.mkdir()
    code = (
        "import os, sys, bnexp.cli.entry_points as e; os.rmdir(os.getcwd()); sys.argv = ['x', 'y'];"
        f" e.{ {'bnexp': 'train', 'bnexp-compare': 'compare', 'bnexp-resume': 'resume'}[command] }()"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (
        2, "bnexp: the current folder has been deleted; change to another one\n"
    )  # fmt: skip


def test_by_with_nothing_to_offer_says_so(commands):
    commands.bnexp("epochs=1", "dataset.train_size=100", "dataset.test_size=50", "hydra.run.dir=run")
    result = commands.compare("run", "--by", "model.norm")
    assert result.code == 2
    assert "model.norm" in result.err
    result = commands.compare("run", "--by", "foo")
    assert result.err == "bnexp: --by=foo: all runs have the same settings, so nothing can be compared\n"


def test_a_plan_of_files_as_they_are_imports_no_torch():
    code = (
        "import sys; from bnexp import plan;"
        "sys.argv = ['bnexp-plan', 'model=mlp,conv', 'optimizer=sgd,adam', 'seed=0,1', 'epochs=3'];"
        "plan.sys.exit = lambda code: print(code, 'torch' in sys.modules); plan.main()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "0 False"


def test_a_plan_counts_each_experiment_once(commands):
    lines = commands.plan("model=mlp,mlp_bn", "model.norm=none,batch", "seed=0").out.splitlines()
    assert [line.rpartition(" | ")[2] for line in lines[:-1]] == [
        "to run", "to run", "the same experiment as [1]", "the same experiment as [2]"
    ]  # fmt: skip
    assert lines[-1] == "0 done, 2 to run"


@pytest.mark.parametrize(
    "key", ["hydra.launcher.jobs=1,2", "+hydra.launcher.foo=1,2", "hydra/launcher=local,slurm"]
)
def test_a_plan_refuses_an_axis_of_a_key_of_hydra(commands, key):
    result = commands.plan("seed=0,1", key)
    assert (result.code, result.err) == (2, f"bnexp: {key}: a key of Hydra takes one value, and is no axis\n")


def test_a_plan_refuses_a_key_that_a_component_does_not_take(commands):
    result = commands.plan("seed=0,1", "model=conv", "+model.hidden=[3]")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("bnexp: model.hidden: unknown key; model takes: ")
