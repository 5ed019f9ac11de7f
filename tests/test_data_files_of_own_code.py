"""Data files that a user's own code reads are part of what a run is, as its images and its code are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from bnexp import files
from bnexp.config import opened_files

QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50", "tracking.tensorboard=false")
NET = """
import torch
from torch import nn
{at_import}

class Net(nn.Module):
    def __init__(self, image_size, num_classes, scale: str = ""):
        super().__init__()
        with open("notes.txt", "a") as notes:
            notes.write("a file that is written is none that is read")
        self.register_buffer("scale", {scale})
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, num_classes))

    def forward(self, images):
        return self.layers(images * self.scale)
"""
SOURCES = {
    "in the constructor": ("", "torch.load('scale.pt')", ()),
    "at the import": ("SCALE = torch.load('scale.pt')", "SCALE.clone()", ()),
    "named by a key": ("", "torch.tensor(1.0)", ("+model.scale=scale.pt",)),
}


@pytest.fixture(params=SOURCES)
def own_network(request, commands, monkeypatch):
    """The arguments of a network that reads scale.pt; after ``new_process`` its module is imported again."""
    at_import, scale, keys = SOURCES[request.param]
    Path("readers.py").write_text(NET.format(at_import=at_import, scale=scale), encoding="utf-8")
    torch.save(torch.tensor(1.0), "scale.pt")
    monkeypatch.syspath_prepend(str(commands.folder))
    new_process(monkeypatch)
    return ("model=custom", "model._target_=readers.Net", *keys, *QUICK)


def new_process(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "readers", raising=False)


def test_a_run_records_the_files_that_its_code_reads_and_is_refused_where_they_have_changed(
    commands, own_network, monkeypatch
):
    assert commands.bnexp(*own_network, "hydra.run.dir=run").code == 0
    path = str(commands.folder / "scale.pt")
    assert list(commands.summary()["files"]) == [path]
    longer = ("run", "epochs=2", "--trust", "readers.Net")
    torch.save(torch.tensor(5.0), "scale.pt")
    new_process(monkeypatch)
    refused = commands.resume(*longer)
    assert (refused.code, refused.err) == (
        2,
        f"bnexp: hydra.run.dir=run: {path}, which this run has read, has changed since then; choose another"
        " folder\n",
    )
    torch.save(torch.tensor(1.0), "scale.pt")
    new_process(monkeypatch)
    assert commands.resume(*longer).code == 0


def test_a_sweep_does_not_skip_a_job_whose_files_have_changed(commands, own_network, monkeypatch):
    sweep = (*own_network, "-m", "seed=0,1", "hydra.sweep.dir=sweep", "hydra.launcher.jobs=1")
    assert commands.bnexp(*sweep).code == 0
    new_process(monkeypatch)
    assert "2 of 2 jobs ended before: skipped" in commands.bnexp(*sweep).out
    torch.save(torch.tensor(5.0), "scale.pt")
    new_process(monkeypatch)
    changed = commands.bnexp(*sweep)
    assert changed.code == 1
    assert changed.err.count("scale.pt, which this run has read, has changed since then") == 2


def test_runs_with_other_files_are_not_pooled(commands, own_network, monkeypatch):
    for number in range(2):
        torch.save(torch.tensor(1.0 + 4 * number), "scale.pt")
        new_process(monkeypatch)
        assert commands.bnexp(*own_network, f"seed={number}", f"hydra.run.dir=run{number}").code == 0
    result = commands.compare("run0", "run1")
    assert result.code == 0
    assert "files.read" in result.out


def test_a_module_from_a_folder_that_the_code_adds_to_the_search_path_is_such_a_file(commands, monkeypatch):
    shared = commands.folder / "shared"
    shared.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(commands.folder)])
    module = shared / "shared_nets.py"
    module.write_text(NET.format(at_import="", scale="torch.tensor(1.0)"), encoding="utf-8")
    Path("mine.py").write_text("import sys; sys.path.append('shared')\nfrom shared_nets import Net\n")
    arguments = ("model=custom", "model._target_=mine.Net", *QUICK)

    def run(command, *arguments):
        for name in ("mine", "shared_nets"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        return command(*arguments)

    assert run(commands.bnexp, *arguments, "hydra.run.dir=run").code == 0
    assert list(commands.summary()["files"]) == [str(module)]
    assert run(commands.bnexp, *arguments, "hydra.run.dir=run").code == 0  # from the compiled module
    assert list(commands.summary()["files"]) == [str(module)]
    module.write_text(module.read_text(encoding="utf-8").replace("1.0", "2.0"), encoding="utf-8")
    refused = run(commands.resume, "run", "epochs=2", "--trust", "mine.Net")
    assert refused.code == 2
    assert f"{module}, which this run has read, has changed since then" in refused.err


UNSEEN_READER = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, image_size, num_classes, pretrained: str, norm: str = "none"):
        super().__init__(nn.Flatten(), nn.Linear(image_size**2, num_classes))
"""


@pytest.fixture
def named_folder(commands, monkeypatch):
    """The arguments of a network whose library reads the folder weights unseen; ``weights`` is its path."""
    Path("readers.py").write_text(UNSEEN_READER, encoding="utf-8")
    for name in ("a.bin", "deep/b.bin", ".hidden", ".cache/c.bin"):
        path = Path("weights", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.syspath_prepend(str(commands.folder))
    new_process(monkeypatch)
    return ("model=custom", "model._target_=readers.Net", "+model.pretrained=weights", *QUICK)


def test_the_files_of_a_folder_that_a_key_names_are_those_of_the_run(commands, named_folder):
    sweep = (*named_folder, "-m", "seed=0,1", "hydra.sweep.dir=sweep", "hydra.launcher.jobs=1")
    assert commands.bnexp(*sweep).code == 0
    weights = commands.folder / "weights"
    expected = [f"{weights}/", str(weights / "a.bin"), str(weights / "deep/b.bin")]
    assert list(commands.summary()["files"]) == expected
    (weights / ".hidden").write_text("another text")
    (weights / "__pycache__").mkdir()
    (weights / "__pycache__/a.pyc").touch()
    assert "2 of 2 jobs ended before: skipped" in commands.bnexp(*sweep).out
    (weights / "deep/b.bin").write_text("other weights")
    changed = commands.bnexp(*sweep)
    assert changed.code == 1
    assert changed.err.count("deep/b.bin, which this run has read, has changed since then") == 2


@pytest.mark.parametrize("change", ["added", "removed", "renamed"])
def test_another_list_of_files_in_a_named_folder_is_told(commands, named_folder, change):
    """The code reads all files of the folder: with one more it is another network."""
    assert commands.bnexp(*named_folder, "hydra.run.dir=run").code == 0
    path = commands.folder / "weights/deep/b.bin"
    if change == "added":
        path.with_name("c.bin").touch()
    elif change == "removed":
        path.unlink()
    else:
        path.rename(path.with_name("c.bin"))
    problem = f"{commands.folder}/weights/, which this run has read, has changed since then"
    assert problem in commands.eval("run", "--trust", "readers.Net").err
    result = commands.resume("run", "epochs=2", "--trust", "readers.Net")
    assert (result.code, problem in result.err) == (2, True)


def test_a_folder_of_bnexp_that_has_the_name_of_a_value_is_no_data(commands, named_folder):
    """The records of a run in a folder ``batch`` change, and would forbid to resume it."""
    run = ("+model.norm=batch", "hydra.run.dir=batch")
    assert commands.bnexp(*named_folder, *run).code == 0
    assert all("/weights/" in path for path in json.loads(Path("batch/summary.json").read_text())["files"])
    assert commands.bnexp("model=mlp", "model.norm=batch", *QUICK, "hydra.run.dir=other").code == 0
    assert json.loads(Path("other/summary.json").read_text())["files"] == {}


def test_a_folder_gives_a_limited_number_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILES", 3)
    for number in range(5):
        (tmp_path / f"{number}.bin").touch()
    assert list(opened_files.paths_in({"data": [str(tmp_path)]})) == [
        f"{tmp_path}/",
        *(str(tmp_path / f"{number}.bin") for number in range(3)),
    ]


def test_weights_of_every_ending_are_data(tmp_path):
    path = tmp_path / "weights.pth"
    path.touch()
    with opened_files.collect_opened_files("a network"):
        path.read_bytes()
    assert list(opened_files.file_digests(["a network"], left_out=())) == [str(path)]
