"""A user's mistake ends in one line (key, value, what is allowed) and exit code 2, and leaves no folder."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

NETS = """
from torch import nn

SIZE = 3

class Flat(nn.Module):
    def __init__(self, image_size, num_classes, width: int = 4):
        super().__init__()
        layers = [nn.Flatten(), nn.Linear(image_size ** 2, width), nn.Linear(width, num_classes)]
        self.layers = nn.Sequential(*layers)
    def forward(self, x):
        return self.layers(x)

class FiveClasses(Flat):
    def __init__(self, image_size):
        super().__init__(image_size, 5)

class NoParameters(nn.Flatten):
    pass

class Refuses(Flat):
    def __init__(self, image_size, num_classes, depth: int):
        raise ValueError("depth must be even")

def number():
    return 3
"""

BROKEN_YAML = {
    "tabs": b"a:\n\tb: 1\n",
    "twice": b"_target_: x\n_target_: y\n",
    "latin1": b"_target_: x  # gr\xf6\xdfe\n",
}
CONFIG_DIR = {  # of the user
    "same_name/model/mlp.yaml": "_target_: nets.Flat\n",
    "mine/model/number.yaml": "1: 2\n_target_: nets.Flat\n",
    "mine/model/circle.yaml": "defaults:\n  - circle\n",
    "mine/experiment/no_package.yaml": "epochs: 1\n",
    "mine/experiment/dots.yaml": "# @package _global_\nmodel.norm: batch\n",
    "mine/experiment/defaults.yaml": "# @package _global_\ndefaults:\n  - model: conv\n",
    "mine/experiment/axes.yaml": "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 0,1\n",
}
MISTAKES = [
    # unknown choices and keys, at any depth, with a plus and without
    ("model=covn", "model=covn: must be one of .*did you mean conv"),
    ("dataset=minst", "dataset=minst: .*did you mean mnist"),
    ("optimizer=sgdd", "did you mean sgd"),
    ("scheduler=stp", "did you mean step"),
    ("loss=hing", "did you mean hinge"),
    ("device=gpu", "device=gpu: must be one of auto, cpu, cuda, mps"),
    ("experiment=mnist_mpl", "did you mean mnist_mlp"),
    ("epoch=3", "epoch: unknown key; did you mean epochs"),
    ("lr=0.1", r"lr: unknown key; did you mean optimizer\.lr\?"),
    ("norm=batch", r"norm: unknown key; did you mean model\.norm\?"),
    ("device=gpu", r"device=gpu: .*; did you mean cuda\?"),
    ("model=null", "model=null: must be one of conv"),
    ("mnist_mlp", "mnist_mlp: write experiment=mnist_mlp"),
    ("seed=0-4", r"seed=0-4: must be a whole number; with -m, range\(0,5\)"),
    ("-m hydra.launcher.job=2", r"hydra\.launcher\.job: unknown key; did you mean hydra\.launcher\.jobs\?"),
    ("-m hydra/launcher=basic hydra.launcher.x=2", r"hydra\.launcher\.x: Hydra has no such key"),
    ("-m hydra/launcher=ray hydra.launcher.init={num_cpus:2}", r"hydra\.launcher\.init: a new key is added "),
    ("-m seed=0,1 n_jobs=2", r"n_jobs: unknown key; hydra\.launcher\.jobs=2 trains two jobs"),
    ("optimizer=rmsprop", r"optimizer=custom optimizer\._target_=torch\.optim\.RMSprop takes torch's"),
    ("scheduler=multistep", r"scheduler\._target_=torch\.optim\.lr_scheduler\.MultiStepLR"),
    ("loss=nll", r"loss=custom loss\._target_=torch\.nn\.NLLLoss"),
    ("model=custom model._target_=nets.Flat model.width=64", r"added with a plus: \+model\.width=64"),
    ("model=custom model._target_=test.Base", r"module test \(.*test.__init__\.py\) has no Base"),
    ("name=", "^bnexp: name='': must not be empty$"),
    ("-m name= seed=0,1", "^bnexp: name='': must not be empty$"),
    ("name=../../x", "name='../../x': must be one line without /"),
    ("-m name=a/b seed=0,1", "name='a/b': must be one line without /"),
    ("batch_size=499 dataset.train_size=500 model=mlp_bn", "batch_size=498 will do"),
    ("--config-dir tabs model=mine", r"tabs/model/mine\.yaml, line 2: found character"),
    ("--config-dir twice model=mine", r"twice/model/mine\.yaml, line 2: found duplicate key"),
    ("--config-dir same_name", r"same_name: model/mlp\.yaml has the name of a file of bnexp"),
    ("--config-dir mine model=number", r"model\.1: a key must be text, and YAML reads a int; quote it$"),
    ("-m seed=0,1 --config-dir mine model=number", r"^bnexp: model\.1: a key must be text"),
    ("--config-dir mine model=circle", "^bnexp: model=circle: its defaults list names the file itself"),
    ("--config-dir mine experiment=no_package", "^bnexp: experiment: epochs: no effect, because the"),
    ("-m seed=0,1 --config-dir mine experiment=no_package", "^bnexp: experiment: epochs: no effect"),
    ("--config-dir mine experiment=dots", r"^bnexp: model\.norm: YAML has no keys with dots; "),
    ("--config-dir mine experiment=defaults", "^bnexp: experiment/model=conv: .*'override /model: conv'$"),
    ("-m seed=0,1,", "^bnexp: seed=0,1,: cannot be read as key=value; a list has a value before"),
    ("-m seed=,0,1", "^bnexp: seed=,0,1: cannot be read as key=value; a list has a value before"),
    ("model.hidden=[100,]", r"^bnexp: model\.hidden=\[100,\]: cannot be read .*; a list has a value before"),
    ("optimizer.lr=\N{LEFT DOUBLE QUOTATION MARK}1\N{RIGHT DOUBLE QUOTATION MARK}", "write straight quotes$"),
    ("model={a:1}", "^bnexp: model: must name one of conv, conv_bn, custom"),
    ("optimizer..lr=0.1", "cannot be read as key=value; a key has one dot between its parts$"),
    ("seed.=1", "cannot be read as key=value; a key has one dot between its parts$"),
    ("seed='3'", "^bnexp: seed='3': must be a whole number$"),
    ("model=mlp seed 1", "^bnexp: seed: cannot be read as key=value; write seed=VALUE$"),
    ("model=mlp optimizer.lr:1", r"^bnexp: optimizer\.lr:1: cannot be read .*; write optimizer\.lr=V"),
    ("--config-dir mine experiment=axes", r"^bnexp: experiment=axes: its axes \(seed\) are a sweep; add -m$"),
    ("--config-dir latin1 model=mine", r"latin1/model/mine\.yaml: must be saved as UTF-8"),
    ("optimizer.lrr=1", r"optimizer.lrr: unknown key; did you mean optimizer\.lr\?"),
    ("+optimizer.lrr=1", r"optimizer.lrr: unknown key; did you mean optimizer\.lr\?"),
    ("+model.widht=1", "model.widht: unknown key"),
    ("+dataset.valsize=1", r"dataset.valsize: unknown key; did you mean dataset\.val_size"),
    ("+early_stopping.patiance=1", r"did you mean early_stopping\.patience"),
    ("+epochs=3", "write it without the plus"),
    ("~nothing", "nothing: unknown key"),
    ("~model", "model: this key is missing"),
    ("--epochs 5", "--epochs: .*epochs="),
    ("epochs", "epochs: cannot be read as key=value"),
    ("epochs=[", r"epochs=\[: cannot be read"),
    ("~seed", "^bnexp: seed: this key is missing"),
    # a deleted key would be a default of torch's or of bnexp's own signatures
    ("~optimizer.lr", r"^bnexp: ~optimizer\.lr: a key cannot be deleted.*; write optimizer\.lr=VALUE$"),
    ("~model.norm", r"^bnexp: ~model\.norm: a key cannot be deleted"),
    ("scheduler=step ~scheduler.step_size", r"^bnexp: ~scheduler\.step_size: a key cannot be deleted"),
    ("~dataset.delta", r"^bnexp: ~dataset\.delta: a key cannot be deleted"),
    ("~report", "^bnexp: ~report: a key cannot be deleted"),
    ("~loss.weight", r"^bnexp: ~loss\.weight: a key cannot be deleted"),
    ("~grad_clip", "^bnexp: ~grad_clip: a key cannot be deleted"),
    ("~dataset.val_size", r"^bnexp: dataset\.val_size: this key is missing"),
    ("-m ~optimizer.lr seed=0,1", r"^bnexp: ~optimizer\.lr: a key cannot be deleted"),
    # an interpolation of nothing
    ("-m seed=${nope},1", "^bnexp: seed: Interpolation key 'nope' not found$"),
    ("-m seed=0,1 epochs=${nope}", "^bnexp: epochs: Interpolation key 'nope' not found$"),
    ("-m model.norm=none,${nope}", r"^bnexp: model\.norm: Interpolation key 'nope' not found$"),
    ("seed=${nothing}", "^bnexp: seed: Interpolation key 'nothing' not found$"),
    ("hydra.sweep.dir=größe -m seed=0,1", "needs quotes: \"hydra.sweep.dir='größe'\""),
    ("name=a(b", "needs quotes: \"name='a\\(b'\""),
    ("hydra.run.dir=a b", "b: cannot be read .* needs quotes: \"hydra.run.dir='a b'\""),
    ("optimizer.lr=\N{MINUS SIGN}0.1", "write optimizer.lr=-0.1 with ASCII characters"),
    ("seed=\N{FULLWIDTH DIGIT THREE}", "write seed=3 with ASCII characters"),
    ("model = conv", "model: .* write key=value without spaces"),
    ("=3", "^bnexp: =3: write key=value without spaces"),
    ("experiment=", "experiment='': must be one of"),
    ("+optimizer=adam", r"\+optimizer=adam: .*write it without the plus"),
    ("model.hidden={a:1}", r"^bnexp: model\.hidden=\{a:1\}: must be a list"),
    ("hydra.mode=multi", "^bnexp: hydra.mode=multi: .*one of"),
    ("--vresion", "--vresion: .*did you mean --version"),
    ("--cfg jobs", "--cfg/-c: invalid choice: 'jobs' .*job"),
    ("--config-dir nowhere", "--config-dir .*nowhere: there is no such folder"),
    ("epochs=1e400", "epochs=inf: must be a whole number"),
    ("optimizer.lr=1e400", "optimizer.lr=inf: must be a finite number, at least 0"),
    ("batch_size=3000000000", "at most 2147483648"),
    ("seed=1,2", "several values are a sweep .add -m."),
    # wrong types
    ("epochs=abc", "epochs=abc: must be a whole number"),
    ("epochs=1.5", "epochs=1.5: must be a whole number"),
    ("epochs=null", "epochs=null: must be a whole number"),
    ("optimizer.lr=fast", "optimizer.lr=fast: must be a number"),
    ("model.hidden=100", r"model.hidden=100: must be a list"),
    ("model.hidden=[a]", r"model.hidden\[0\]=a: must be a whole number"),
    ("tracking.histograms=2", "tracking.histograms=2: must be true or false"),
    ("model.norm=null", "model.norm=null: .*write the word none"),
    ("model.norm=bacth", "model.norm=bacth: .*did you mean batch"),
    ("dataset.augment=[rotate]", "dataset.augment.*one of flip, crop"),
    # out of range
    ("epochs=0", "epochs=0: must be a whole number, at least 1"),
    ("epochs=-1", "epochs=-1: must be a whole number, at least 1"),
    ("batch_size=0", "batch_size=0: .*at least 1"),
    ("optimizer.lr=-0.1", "optimizer.lr=-0.1: must be a number, at least 0"),
    ("optimizer=adam optimizer.betas=[0.9,1.5]", r"optimizer.betas\[1\]=1.5: .*below 1"),
    ("seed=-1", "seed=-1: .*at least 0"),
    ("model.dropout=1.5", "model.dropout=1.5: .*below 1"),
    ("grad_clip=0", "grad_clip=0: .*above 0"),
    ("loss.label_smoothing=2", "loss.label_smoothing=2: .*at most 1"),
    # not allowed by the data
    ("dataset.val_size=70000", "dataset.val_size=70000: must be below 1438"),
    ("dataset.train_size=70000", "dataset.train_size=70000: "),
    ("dataset.test_size=361", "dataset.test_size=361: "),
    ("dataset.folds=5 dataset.fold=5", "dataset.fold=5: must be below dataset.folds=5"),
    ("dataset.folds=5", "dataset.fold: needed together with dataset.folds"),
    ("dataset.folds=1000 dataset.fold=0", "dataset.folds=1000: "),
    ("dataset.mean=[0.5,0.5]", "dataset.mean=.*"),
    ("dataset=mnist dataset.root=nowhere", "dataset.root=.*nowhere.*MNIST"),
    ("dataset=image_folder", "dataset.root"),
    ("dataset=image_folder dataset.root=nowhere", "dataset.root=.*nowhere"),
    # not allowed by the network
    ("model=mlp_bn batch_size=1", "batch_size=1: .*more than one value a channel"),
    ("model=mlp_bn batch_size=4 dataset.train_size=13", "batch_size=4: the last of 13"),
    ("model=conv model.norm=group model.norm_groups=4", "model.norm_groups=4: must divide"),
    ("model.norm=instance", "model.norm=instance: "),
    ("model=conv dataset.resize=4", "model.kernel_size=.*convolution 2 and its pool, whose input is 2 x 2"),
    ("model=conv model.kernel_size=[3,3,3]", "model.kernel_size"),
    ("model=torchvision model.arch=vgg99", "model.arch=vgg99: "),
    ("model=torchvision model.arch=alexnet", "does not fit 28 x 28.*dataset.resize"),
    # without a validation set
    ("scheduler=plateau dataset.val_size=0", "scheduler.monitor=val/loss: needs a validation set"),
    ("early_stopping.patience=2 dataset.val_size=0", "early_stopping.patience=2: needs a validation set"),
    ("early_stopping.monitor=test/loss", "early_stopping.monitor=test/loss: must be one of val/loss"),
    ("scheduler=plateau scheduler.monitor=test/loss", "scheduler.monitor=test/loss: must be one of"),
    ("scheduler=plateau scheduler.interval=step", "scheduler.interval=step: must be epoch, because"),
    # the device
    ("device.precision=fp8", "device.precision=fp8: must be one of fp32, bf16, fp16"),
    ("device=cpu device.precision=fp16", "device.precision=fp16: a CPU does fp32 and bf16"),
    ("device=cpu device.graphs=true", "device.graphs=true: "),
    ("device.threads=0", "device.threads=0: "),
    # the user's own components
    ("model=custom", "model._target_: give the class"),
    ("model=custom model._target_=Net", "model._target_=Net: write the module too"),
    ("model=custom model._target_=nonets.Net", "model._target_=nonets.Net: cannot be imported.*nonets"),
    ("model=custom model._target_=nets.Flatt", r"has no Flatt; did you mean nets\.Flat"),
    ("model=custom model._target_=nets.SIZE", "model._target_=nets.SIZE: must be a class or function"),
    ("model=custom model._target_=nets.number", "gives a int, not an nn.Module"),
    ("model=custom model._target_=nets.Flat +model.wdith=3", "model.wdith: .*did you mean model.width"),
    ("model=custom model._target_=nets.Flat +model.width=x", "model.width=x: must be a whole number"),
    ("model=custom model._target_=nets.Refuses", "model.depth: Refuses needs this key"),
    ("model=custom model._target_=nets.Refuses +model.depth=3", "model.depth=3: .*depth must be even"),
    ("model=custom model._target_=nets.FiveClasses", r"it must give \(2, 10\)"),
    ("model=custom model._target_=nets.NoParameters", "model"),
    ("model=custom model._target_=broken.Net", "cannot be imported.*SyntaxError"),
    ("optimizer=custom optimizer._target_=nets.number", "optimizer"),
    # the folder
    ("hydra.sweep.dir=a", r"^bnexp: hydra\.sweep\.dir=a: a run .* is written to hydra\.run\.dir;"),
    ("-m seed=0,1 hydra.run.dir=", r"^bnexp: hydra\.run\.dir=: a sweep is written to hydra\.sweep\.dir;"),
    ("--config-dir= model=mlp", "^bnexp: --config-dir '': must name a folder$"),
    ("dataset=mnist dataset.root=", "^bnexp: dataset.root='': must be the folder"),
    ("hydra.run.dir=~/run", "^bnexp: hydra.run.dir=~/run: .*; write hydra.run.dir=\\$HOME/run: the shell"),
    ("dataset.root=~/pics", r"write dataset\.root=\$HOME/pics"),
    ("hydra.run.dir='~/run'", r"^bnexp: hydra\.run\.dir=~/run: ~ is not the home folder .* \$HOME/run$"),
    ("hydra.run.dir='~me/run'", r"^bnexp: hydra\.run\.dir=~me/run: ~ is not .*; write the whole path$"),
    ("-m seed=0,1 hydra.sweep.dir='~/s'", r"^bnexp: hydra\.sweep\.dir=~/s: ~ is not .*; write \$HOME/s$"),
    ("-m seed=0,1 hydra.sweep.dir=taken/sweep", "hydra.sweep.dir=taken/sweep: must name a folder, but taken"),
    ("hydra.run.dir=taken/run", "hydra.run.dir=taken/run: must name a folder, but taken is a file"),
    # flags of Hydra's
    ("--package model", "^bnexp: --package model: no effect without --cfg$"),
    ("--config-name other", "^bnexp: --config-name: bnexp does not take this flag of Hydra's$"),
    ("-cp somewhere", "^bnexp: --config-path: bnexp does not take this flag of Hydra's$"),
    ("~hydra.callbacks.run", "^bnexp: ~hydra.callbacks.run: it protects the folders of other runs; leave"),
    ("hydra.callbacks={}", "^bnexp: hydra.callbacks={}: it protects the folders of other runs; leave"),
    ("hydra.callbacks.run=null", "^bnexp: hydra.callbacks.run=null: it protects the folders of other runs"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "line"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(commands, monkeypatch, arguments: str, line: str):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # no network, even on a machine that has one
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # the old opener has the old proxies
    Path("nets.py").write_text(NETS)
    Path("broken.py").write_text("class Net(\n")
    Path("taken").write_text("a file where a folder should be")
    for name, content in BROKEN_YAML.items():
        Path(name, "model").mkdir(parents=True)
        Path(name, "model", "mine.yaml").write_bytes(content)
    for name, text in CONFIG_DIR.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    files_before = sorted(Path.cwd().rglob("*"))
    monkeypatch.syspath_prepend(str(commands.folder))
    for name in ("nets", "broken"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)

    result = commands.bnexp(*arguments.split())

    errors = result.err.strip().splitlines()
    assert result.code == 2, result
    assert len(errors) == 1, result.err
    assert re.search(line, errors[0]), errors[0]
    assert "FLOPs" not in result.out, "the table of layers comes before the mistake"
    files_after = [path for path in sorted(Path.cwd().rglob("*")) if "__pycache__" not in path.parts]
    assert files_after == files_before, "the command left files"


def test_the_environment_of_several_processes_without_torchrun(commands, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = commands.bnexp("epochs=1", "dataset.train_size=100")
    message = "bnexp: WORLD_SIZE=2: RANK is not set; start with torchrun, or unset WORLD_SIZE\n"
    assert (result.code, result.err) == (2, message)


ARGUMENTS_OF_OTHERS = [
    ("watch", "file", "bnexp: DIR: file must name a folder, but is a file (bnexp-watch --help lists all)"),
    ("resume", "file", "bnexp: DIR: file must name a folder, but is a file (bnexp-resume --help lists all)"),
    (
        "compare",
        "file",
        "bnexp: DIR: file must name a folder, but is a file (bnexp-compare --help lists all)",
    ),
    ("list", "file", "bnexp: DIR: file must name a folder, but is a file (bnexp-list --help lists all)"),
    ("plan", "file", "bnexp: file: must name a folder, but is a file"),
    ("resume", "nowhere", "bnexp: nowhere: no such folder"),
    ("compare", ". --published nan", "bnexp: --published=nan: must be a finite number"),
    ("compare", ". --published inf --metric val/loss", "bnexp: --published=inf: must be a finite number"),
    ("compare", ". --published -1", "bnexp: --published=-1.0: must be an accuracy in percent, from 0 to 100"),
    (
        "compare",
        ". --published 970",
        "bnexp: --published=970.0: must be an accuracy in percent, from 0 to 100",
    ),
]


@pytest.mark.parametrize(("command", "arguments", "line"), ARGUMENTS_OF_OTHERS)
def test_a_wrong_argument_of_another_command_is_one_line(commands, command, arguments, line):
    Path("file").write_text("no folder")
    result = getattr(commands, command)(*arguments.split())
    assert (result.code, result.out, result.err) == (2, "", f"{line}\n")


CHOSEN_FILES = {
    "experiment=x": {
        b"": "holds no keys, so experiment=x has no effect",
        b"\n  # @package _global_\n---\n": "holds no keys, so experiment=x has no effect",
        b"\xef\xbb\xbf# @package _global_\nepochs: 1\n": (
            "begins with a byte order mark; save it as UTF-8 without one"
        ),
        b"# @package _global_\n- epochs\n": "must hold keys, not a list",
    },
    "model=x": {b"": "holds no keys, so model=x has no effect"},
}


@pytest.mark.parametrize("choice", CHOSEN_FILES)
def test_a_chosen_file_that_would_have_no_effect_is_named(commands, choice):
    path = Path("myconf", choice.replace("=", "/") + ".yaml")
    path.parent.mkdir(parents=True)
    for content, reason in CHOSEN_FILES[choice].items():
        path.write_bytes(content)
        for sweep in ((), ("-m", "seed=0,1", "hydra.sweep.dir=sweep")):
            result = commands.bnexp("--config-dir", "myconf", choice, "hydra.run.dir=run", *sweep)
            assert (result.code, result.err) == (2, f"bnexp: {path}: {reason}\n")
    path.write_text("# @package _global_\nseed: 1\n")  # a file beside it is not chosen
    path.with_name("y.yaml").write_text("")
    if choice == "experiment=x":
        assert commands.bnexp("--config-dir", "myconf", choice, "--cfg", "job").code == 0


def test_a_preset_that_removes_the_check_of_the_run_folder_trains_nothing(commands):
    preset = Path("myconf/experiment/bare.yaml")
    preset.parent.mkdir(parents=True)
    preset.write_text(
        "# @package _global_\nhydra: {callbacks: {run: {_target_: hydra.experimental.callback.Callback}}}\n",
        encoding="utf-8",
    )
    result = commands.bnexp("--config-dir", "myconf", "experiment=bare", "hydra.run.dir=run", "epochs=1")
    assert result.code == 2
    assert "bnexp: hydra.callbacks.run: it protects the folders of other runs; keep it" in result.err
    assert not Path("run/summary.json").exists()


def test_spaces_in_a_quoted_argument_are_told(commands):
    result = commands.bnexp("optimizer.lr = 0.1")
    assert (result.code, result.err) == (
        2, "bnexp: optimizer.lr = 0.1: write optimizer.lr=0.1, without spaces\n"
    )  # fmt: skip
