"""The names of runs and sweeps, the link to the newest run, bnexp-list and bnexp-plan DIR."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from bnexp.runs.latest import point_latest
from helpers.run_folders import write_run
from helpers.sweep_folders import planned_jobs, write_job, write_made_plan

QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=50", "tracking.tensorboard=false")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("model=mlp_bn", "mlp_bn-digits"),
        ("model=mlp model.norm=batch", "mlp_bn-digits"),
        ("model=mlp_bn model.norm=layer", "mlp_layer-digits"),
        ("experiment=fashion_lenet model.norm=none", "lenet-fashion_mnist"),
        ("model=torchvision model.norm=none", "vgg11-digits"),
        ("model=custom model._target_=torch.nn.Linear", "Linear-digits"),
        ("name=thesis", "thesis"),
    ],
)
def test_a_run_is_named_by_its_model_and_norm(commands, arguments, name):
    out = commands.bnexp(*arguments.split(), "--cfg", "job", "--resolve").out
    assert re.search(rf"^name: {name}$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("model.norm=none,batch optimizer.lr=0.1,0.2", "mlp-norm-lr"),
        ("model=mlp_bn seed=0,1 name=thesis", "thesis"),
        ("model=mlp,mlp_bn", "model"),
    ],
)
def test_a_sweep_is_named_by_its_axes(commands, arguments, name):
    assert commands.bnexp("-m", *arguments.split(), *QUICK).code == 0
    (sweep,) = commands.folder.glob("outputs/multirun/*/*")
    assert re.fullmatch(rf"\d\d-\d\d-\d\d-{name}-[0-9a-f]{{6}}", sweep.name)


def test_latest_is_the_newest_run_and_the_commands_follow_it(commands):
    for seed in range(2):
        assert commands.bnexp(f"seed={seed}", *QUICK).code == 0
    link = commands.folder / "outputs" / "latest"
    assert not os.path.isabs(os.readlink(link))
    assert link.resolve() == commands.runs()[-1]
    assert commands.eval("outputs/latest").code == 0
    assert commands.compare("outputs/latest").code == 0
    assert commands.resume("outputs/latest", "epochs=2").code == 0


def test_a_mistake_leaves_no_link(commands):
    assert commands.bnexp("model=custom", "model._target_=torch.nn.Linear", *QUICK).code == 2
    assert list(commands.folder.iterdir()) == []


def test_a_foreign_file_named_latest_stays(tmp_path):
    folder = tmp_path / "outputs" / "2026-11-26" / "run"
    folder.mkdir(parents=True)
    (tmp_path / "outputs" / "latest").write_text("mine")
    point_latest(folder)
    assert (tmp_path / "outputs" / "latest").read_text() == "mine"
    (tmp_path / "outputs" / "latest").unlink()
    (tmp_path / "outputs" / "latest").symlink_to(tmp_path)
    point_latest(folder)
    assert (tmp_path / "outputs" / "latest").resolve() == tmp_path
    point_latest(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]


def test_the_list_has_a_line_for_each_run_and_sweep_and_for_a_damaged_folder(tmp_path):
    write_run(tmp_path / "outputs", 0.9, folder="2026-11-26/10-00-00-mlp-digits-aaaaaa")
    sweep = tmp_path / "outputs" / "norms"
    jobs = planned_jobs(seeds=2)
    write_made_plan(sweep, jobs)
    write_job(sweep, jobs[0])
    (sweep / "comparison.json").write_text('{"answer": "Does batch norm help? Yes: +1.00 points."}')
    damaged = tmp_path / "outputs" / "damaged"
    damaged.mkdir()
    (damaged / "summary.json").write_text("{")
    command = [sys.executable, "-m", "bnexp.list_results"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in process.stdout.splitlines()]
    assert len(lines) == 3
    assert "2026-11-26/10-00-00-mlp-digits-aaaaaa seed 0 test 90.00 %" in lines
    assert any(line.startswith("norms") and "1/4 Does batch norm help? Yes" in line for line in lines)
    assert any(line.startswith("damaged") and "cannot be read: summary.json" in line for line in lines)


def test_bnexp_plan_of_a_folder_lists_what_is_unfinished(commands):
    jobs = planned_jobs(seeds=2)
    write_made_plan(commands.folder / "sweep", jobs)
    write_job(commands.folder / "sweep", jobs[0])
    result = commands.plan("sweep")
    assert result.code == 0
    assert result.out.splitlines() == [
        "[2/4] model.norm=batch seed=0 | waiting",
        "[3/4] model.norm=none seed=1 | waiting",
        "[4/4] model.norm=batch seed=1 | waiting",
        "1 of 4 done, 3 waiting",
    ]
    assert commands.plan("missing").code == 2
