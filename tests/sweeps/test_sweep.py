"""Sweeps: completed jobs are skipped, failed jobs are listed, unfinished jobs are second."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from bnexp.errors import WriteError
from bnexp.sweeps.planning import JobComposer

QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=100", "tracking.tensorboard=false")
SWEEP_FOLDER = "hydra.sweep.dir=sweep"


def trained_jobs(result):
    """The line of each job that this command trained to its end."""
    return [line.split(" | ")[0] for line in result.out.splitlines() if re.search(r"\| test \d", line)]


def summaries(commands):
    """The bytes of the summary of each run, by folder name."""
    return {path.name: (path / "summary.json").read_bytes() for path in commands.runs()}


def file_contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.pictures
def test_a_repeated_sweep_trains_nothing_and_prints_the_same_table(commands):
    first = commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, SWEEP_FOLDER)
    old_summaries = summaries(commands)
    second = commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, SWEEP_FOLDER)
    assert (first.code, len(trained_jobs(first))) == (0, 4)
    assert "pruned" not in first.out + first.err  # what matplotlib does with fonts is nobody's concern
    assert (second.code, len(trained_jobs(second))) == (0, 0)
    assert second.out.startswith("4 of 4 jobs ended before: skipped\n")
    assert summaries(commands) == old_summaries
    tables = [result.out[result.out.index("Does batch norm help") :] for result in (first, second)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "model.norm=none,batch", "seed=0,1", *QUICK),
        ("-m", "seed=0,1", "model.norm=none,batch", *QUICK),
        ("experiment=bn_study", "dataset=digits", "model=mlp", "seed=0,1", *QUICK),
    ],
    ids=["as typed", "seeds in front", "axes of a preset"],
)
def test_twins_are_trained_side_by_side(commands, arguments):
    assert commands.bnexp(*arguments, SWEEP_FOLDER).code == 0
    jobs = json.loads((commands.folder / "sweep" / "sweep.json").read_text())["jobs"]
    labels = [re.findall(r"(?:seed|model\.norm)=(\w+)", job["label"]) for job in jobs]
    assert [set(label) for label in labels] == [{"0", "none"}, {"0", "batch"}, {"1", "none"}, {"1", "batch"}]
    numbers = {json.loads(text)["job_number"] for text in summaries(commands).values()}
    assert numbers == {0, 1, 2, 3}


def test_a_glob_is_every_choice_that_it_names(commands):
    result = commands.bnexp("-m", "model=glob(mlp*)", "seed=0,1", *QUICK, SWEEP_FOLDER)
    assert (result.code, len(trained_jobs(result)), result.err) == (0, 4, "")
    assert commands.plan("model=glob(mlp*)", "seed=0,1").out.count("to run") == 5


def test_an_axis_without_a_value_is_a_mistake(commands):
    result = commands.bnexp("-m", "model=glob(zzz*)", *QUICK, SWEEP_FOLDER)
    assert (result.code, result.err) == (2, "bnexp: model=glob(zzz*): names no value, so there is no job\n")
    assert not (commands.folder / "sweep").exists()


def test_two_jobs_with_one_folder_are_a_mistake(commands):
    subdir = "hydra.sweep.subdir=${optimizer.lr}"
    result = commands.bnexp("-m", subdir, "optimizer.lr=0.1,0.01", "seed=0,1", *QUICK, SWEEP_FOLDER)
    assert result.code == 2
    assert result.err == (
        "bnexp: hydra.sweep.subdir: seed=0 optimizer.lr=0.1 and seed=1 optimizer.lr=0.1"
        " would have one folder, 0.1\n"
    )
    assert not (commands.folder / "sweep").exists()


@pytest.mark.parametrize("subdir", ["../${seed}", ".", "/tmp/${seed}"])
def test_a_job_outside_of_the_sweeps_folder_is_a_mistake(commands, subdir):
    result = commands.bnexp("-m", f"hydra.sweep.subdir='{subdir}'", "seed=0,1", *QUICK, SWEEP_FOLDER)
    assert result.code == 2
    assert re.fullmatch(r"bnexp: hydra\.sweep\.subdir: /\S* must lie inside the sweep's .*\n", result.err)
    assert list(commands.folder.iterdir()) == []


def test_jobs_without_a_run_are_named_and_the_exit_code_is_1(commands):
    """The folder of one job cannot be created: a file has its name."""
    arguments = ("-m", "seed=0,1", *QUICK, SWEEP_FOLDER)
    commands.bnexp(*arguments)
    (folder,) = commands.folder.glob("sweep/seed=1-*")
    shutil.rmtree(folder)
    folder.write_text("a file")
    result = commands.bnexp(*arguments)
    assert result.code == 1
    lines = [line for line in result.err.splitlines() if line.startswith("not run: ")]
    assert [line.split(" epochs=1")[0] for line in lines] == ["not run: seed=1", "not run: 1 of 2 jobs"]
    assert re.search(
        r"^seed=1: .*/sweep/seed=1-\w+: cannot be written \(File exists\)$", result.err, re.MULTILINE
    )


def test_two_names_of_one_job_are_no_missing_job(commands):
    arguments = ("-m", "model=mlp,mlp_bn", "model.norm=batch", *QUICK, SWEEP_FOLDER)
    for _ in range(2):
        result = commands.bnexp(*arguments)
        line = "model=mlp_bn: the same experiment as model=mlp, trained once\n"
        assert (result.code, result.err) == (0, line)


def test_an_axis_that_makes_no_other_experiment_is_told(commands):
    result = commands.bnexp("-m", "name=a,b", "seed=0,1", *QUICK, SWEEP_FOLDER)
    assert (result.code, len(trained_jobs(result))) == (0, 2)
    line = "seed=0 name=b: the same experiment as seed=0 name=a, trained once; 1 more like it\n"
    assert result.err == line


@pytest.mark.parametrize(
    ("first", "second"),
    [("seed=0,1", "seed=2"), ("seed=range(2)", "++seed=3,4"), ("model=mlp,conv", "model=conv")],
)
@pytest.mark.parametrize("command", ["bnexp", "plan"])
def test_an_axis_that_another_override_replaces_is_a_mistake(commands, command, first, second):
    mode = ["-m", *QUICK, SWEEP_FOLDER] if command == "bnexp" else []
    result = getattr(commands, command)(*mode, first, second)
    assert (result.code, result.out) == (2, "")
    key = first.partition("=")[0]
    assert result.err == f"bnexp: {first}: {second} would replace it; write {key} once, with all values\n"
    assert list(commands.folder.iterdir()) == []


@pytest.mark.parametrize(
    "axis", ["seed=range(3),7", "model.norm=none,glob(*)", "optimizer.lr=interval(0.1,1),2"]
)
@pytest.mark.parametrize("command", ["bnexp", "plan"])
def test_a_function_in_a_list_of_values_is_a_mistake(commands, command, axis):
    mode = ["-m", *QUICK, SWEEP_FOLDER] if command == "bnexp" else []
    result = getattr(commands, command)(*mode, axis)
    reason = "a function as range, choice, interval or glob stands alone; or write all values, as in a,b,c"
    assert (result.code, result.out, result.err) == (2, "", f"bnexp: {axis}: {reason}\n")


def test_the_verdict_is_printed_though_the_disk_is_full(commands, monkeypatch):
    def fail(*_):
        raise WriteError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sweep/report.html")

    monkeypatch.setattr("bnexp.report.write.write_report", fail)
    result = commands.bnexp("-m", "model.norm=none,batch", "seed=0,1", *QUICK, SWEEP_FOLDER)
    assert (result.code, result.err) == (
        1,
        "sweep/report.html: cannot be written (No space left on device)\n",
    )
    assert "Does batch norm help" in result.out


def test_more_seeds_by_resume_join_the_verdict(commands):
    commands.bnexp("-m", "model.norm=none,batch", "seed=0,1,2", *QUICK, SWEEP_FOLDER)
    result = commands.resume("sweep", "seed=3,4")
    assert len(trained_jobs(result)) == 4
    assert "5 paired seeds" in result.out


def test_a_sweep_with_more_seeds_trains_only_the_new_ones(commands):
    commands.bnexp("-m", "seed=0,1", *QUICK, SWEEP_FOLDER)
    result = commands.bnexp("-m", "seed=0,1,2", *QUICK, SWEEP_FOLDER)
    assert len(trained_jobs(result)) == 1
    assert len(commands.runs()) == 3


def test_a_job_is_identified_by_its_configuration_and_not_by_its_overrides(commands):
    commands.bnexp("-m", "model=mlp_bn", "seed=0,1", *QUICK, SWEEP_FOLDER)
    result = commands.bnexp(
        "-m", "seed=0,1", "model=mlp", "model.norm=batch", "name=other", *QUICK, SWEEP_FOLDER
    )
    assert trained_jobs(result) == []
    folders = [path for path in (commands.folder / "sweep").iterdir() if path.is_dir()]
    assert len(folders) == 2  # a skipped job leaves no folder


def test_a_job_is_named_by_its_distinguishing_overrides(commands):
    result = commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0", *QUICK, SWEEP_FOLDER)
    names = [run.name.rpartition("-")[0] for run in commands.runs()]
    assert sorted(names) == ["model=mlp,seed=0", "model=mlp_bn,seed=0"], "the seed is always part of the name"
    assert sorted(trained_jobs(result)) == ["seed=0 model=mlp", "seed=0 model=mlp_bn"]


def test_an_unfinished_job_is_resumed_in_its_folder_under_other_overrides(commands):
    commands.bnexp("-m", "seed=0,1", *QUICK, SWEEP_FOLDER)
    folder = next(run for run in commands.runs() if run.name.startswith("seed=1-"))
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    result = commands.bnexp("-m", "seed=0,1", "model=mlp,mlp_bn", *QUICK, SWEEP_FOLDER)
    assert result.code == 0
    assert sorted(run.name.rpartition("-")[0] for run in commands.runs()) == [
        "model=mlp_bn,seed=0", "model=mlp_bn,seed=1", "seed=0", "seed=1"
    ]  # fmt: skip
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


def test_a_diverged_job_is_not_trained_again(commands):
    arguments = ("-m", "optimizer.lr=0.1,1e30", *QUICK, SWEEP_FOLDER, "hydra.launcher.jobs=2")
    first, second = commands.bnexp(*arguments), commands.bnexp(*arguments)
    assert (first.code, second.code) == (1, 1)
    assert trained_jobs(second) == []
    assert second.out.startswith("2 of 2 jobs ended before: skipped\n")
    assert "optimizer.lr=1e30 | diverged in epoch 1" in first.out.replace("1e+30", "1e30")
    (line,) = second.err.splitlines()
    assert line.startswith("diverged: sweep/optimizer.lr=1e+30-")
    assert line in first.err
    assert commands.plan(*arguments).out.splitlines()[1].split(" | ")[1].startswith("diverged, 0:")


def test_a_job_with_a_changed_configuration_is_trained(commands):
    commands.bnexp("-m", "seed=0", *QUICK, SWEEP_FOLDER)
    result = commands.bnexp("-m", "seed=0", "optimizer.lr=0.2", *QUICK, SWEEP_FOLDER)
    assert len(trained_jobs(result)) == 1


def test_only_the_failed_job_of_a_sweep_is_repeated(commands):
    arguments = ("-m", "model=mlp_bn,mlp", "batch_size=1", *QUICK, SWEEP_FOLDER)
    assert commands.bnexp(*arguments).code == 1
    result = commands.bnexp(*arguments)
    assert result.code == 1
    assert result.out.startswith("1 of 2 jobs ended before: skipped\n")
    assert "more than one value a channel" in result.err


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("model.norm=none,batc", "bnexp: model.norm=batc: must be one of none, "),
        ("optimizer.lr=0.1,O.2", "bnexp: optimizer.lr=O.2: must be a number"),
        ("seed=0,x", "bnexp: seed=x: must be a whole number"),
        ("model=mlp,con", "bnexp: model=con: must be one of conv, "),
    ],
)
def test_a_mistake_in_one_job_is_reported_before_the_first_is_trained(commands, axis, message):
    result = commands.bnexp("-m", axis, *QUICK, SWEEP_FOLDER)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(message)
    assert len(result.err.splitlines()) == 1
    assert not (commands.folder / "sweep").exists()


@pytest.mark.parametrize("axis", ["seed=5", "seed=5,0", "seed=range(5,6)"])
def test_resume_with_more_seeds_also_runs_the_unfinished_jobs(commands, axis):
    commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, SWEEP_FOLDER)
    for run in commands.runs()[1:]:
        shutil.rmtree(run)
    result = commands.resume("sweep", axis)
    assert result.code == 0
    names = {run.name.rpartition("-")[0] for run in commands.runs()}
    assert names == {f"model={model},seed={seed}" for model in ("mlp", "mlp_bn") for seed in (0, 1, 5)}
    assert trained_jobs(commands.resume("sweep")) == []


def test_resume_adds_seeds_to_the_axis_of_a_preset(commands):
    overrides = ("experiment=norm_zoo", "dataset=digits", "model.norm=none,layer", *QUICK, SWEEP_FOLDER)
    assert len(trained_jobs(commands.bnexp(*overrides))) == 10  # the preset has seed: range(5)
    result = commands.resume("sweep", "seed=7")
    assert (len(trained_jobs(result)), len(commands.runs())) == (2, 12)


def test_a_mistake_in_a_resume_command_leaves_the_sweep_unchanged(commands):
    commands.bnexp("-m", "seed=0,1", *QUICK, SWEEP_FOLDER)
    old_text = (commands.folder / "sweep" / "multirun.yaml").read_bytes()
    result = commands.resume("sweep", "seed=2,x")
    assert (result.code, result.err) == (2, "bnexp: seed=x: must be a whole number\n")
    assert (commands.folder / "sweep" / "multirun.yaml").read_bytes() == old_text
    assert len(commands.runs()) == 2


def test_sweeps_that_start_in_the_same_second_have_different_folders(commands):
    for _ in range(2):
        commands.bnexp("-m", "seed=0", *QUICK)
    names = [path.name for path in commands.folder.glob("outputs/multirun/*/*")]
    assert len(names) == 2
    assert all(re.fullmatch(r"\d\d-\d\d-\d\d-mlp-[0-9a-f]{6}", name) for name in names)


def test_plan_reports_the_mistakes_that_need_no_torch(commands):
    result = commands.plan("seed=0,1", "optimizer.lr=0.1,O.2")
    assert (result.code, result.out, result.err) == (2, "", "bnexp: optimizer.lr=O.2: must be a number\n")


def write_images(root, broken=False):
    pixels = np.random.default_rng(0)
    for level, name in ((0, "cat"), (100, "dog")):
        (root / name).mkdir(parents=True)
        for i in range(10):
            image = Image.fromarray(pixels.integers(level, level + 100, (8, 8), dtype=np.uint8))
            image.save(root / name / f"{i}.png")
    if broken:
        (root / "dog/3.png").write_bytes((root / "dog/3.png").read_bytes()[:60])


PROBLEM = "dog/3.png can't be read as an image (image file is truncated); repair or delete it"
BROKEN = f"bnexp: dataset.root=B: {PROBLEM}"
FOLDER = ("dataset=image_folder", "model=mlp", "epochs=1", "batch_size=8", "tracking.tensorboard=false")


@pytest.mark.parametrize("fuse", [1, 3])
def test_a_mistake_that_every_job_would_meet_is_told_once(commands, fuse):
    """Each job failed with the same line, and the sweep ended with 1."""
    write_images(commands.folder / "B", broken=True)
    sweep = ("-m", "model.norm=none,batch", "seed=range(6)", "dataset.root=B", *FOLDER, SWEEP_FOLDER)
    result = commands.bnexp(*sweep, f"hydra.launcher.fuse={fuse}")
    assert (result.code, result.err) == (2, f"{BROKEN}\n")
    assert len(re.findall(r"\| failed", result.out)) == 2 * fuse  # the first unit of each recipe
    assert sorted(path.name for path in (commands.folder / "sweep").iterdir()) == [
        "multirun.yaml",
        "sweep.json",
    ]
    (commands.folder / "B/dog/3.png").unlink()
    assert commands.resume("sweep").code == 0


def test_distinct_mistakes_of_all_recipes_are_told(commands):
    sweep = ("-m", "model=mlp_bn", "batch_size=1,3", "seed=0,1", *QUICK, SWEEP_FOLDER)
    result = commands.bnexp(*sweep, "hydra.launcher.fuse=1")
    assert result.code == 2
    lines = [line.partition(": the last of 100")[0] for line in result.err.splitlines()]
    assert lines == ["bnexp: batch_size=1", "bnexp: batch_size=3"]
    assert commands.runs() == []


def test_jobs_without_the_mistake_of_others_are_trained(commands):
    write_images(commands.folder / "A")
    write_images(commands.folder / "B", broken=True)
    result = commands.bnexp("-m", "dataset.root=A,B", "seed=0,1", *FOLDER, SWEEP_FOLDER)
    assert result.code == 1
    assert len(trained_jobs(result)) == 2
    assert result.err.count(BROKEN.removeprefix("bnexp: ")) == 2  # in the line of each run that failed
    assert (commands.folder / "sweep/report.html").exists()


def test_on_failure_stop_starts_no_further_job(commands):
    arguments = ("-m", "model=mlp,mlp_bn,conv", "batch_size=1", *QUICK, SWEEP_FOLDER)
    result = commands.bnexp(*arguments, "on_failure=stop", "hydra.launcher.jobs=1")
    assert result.code == 1
    assert len(trained_jobs(result)) == 1
    assert "not run: model=conv " in result.err
    assert len(commands.runs()) == 2


def test_resume_runs_the_unfinished_jobs_of_a_sweep(commands):
    commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, SWEEP_FOLDER)
    shutil.rmtree(commands.runs()[2])
    result = commands.resume("sweep")
    assert result.code == 0
    assert len(trained_jobs(result)) == 1
    assert len(commands.runs()) == 4
    assert "test accuracy, epoch" in result.out


def test_resume_leaves_a_finished_run_unchanged(commands):
    commands.bnexp(*QUICK, "hydra.run.dir=run")
    old_files = file_contents(commands.folder / "run")
    result = commands.resume("run")
    assert (result.code, result.out.strip()) == (0, "run: this run is finished; nothing to do")
    assert old_files == {path: path.read_bytes() for path in old_files}


@pytest.mark.parametrize(
    ("folder", "reason"), [(".", "neither a run's folder"), ("nowhere", "nowhere: no such folder")]
)
def test_resume_without_a_run_is_a_one_line_error(commands, folder, reason):
    result = commands.resume(folder)
    assert result.code == 2
    assert reason in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["resume", "eval"])
def test_a_folder_of_another_hydra_project_is_no_run(commands, name):
    hydra = "hydra: {overrides: {hydra: [], task: []}, sweeper: {}, runtime: {cwd: /, config_sources: []}}\n"
    for folder, files in {
        "run": [".hydra/hydra.yaml", ".hydra/config.yaml", "app.log"], "partly": [".hydra/config.yaml"],
        "sweep": ["multirun.yaml", "0/.hydra/hydra.yaml", "1/.hydra/hydra.yaml"],
    }.items():  # fmt: skip
        for file in files:
            Path(folder, file).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, file).write_text(hydra)
    files_before = sorted(Path().rglob("*"))
    reasons = {
        "run": "holds files of Hydra, but no run of bnexp (no summary.json)",
        "partly": "neither a run's folder (no .hydra/hydra.yaml) nor a sweep's (no multirun.yaml)",
        "sweep": "holds files of Hydra, but no sweep of bnexp (no sweep.json)",
    }
    for folder, reason in reasons.items():
        if name == "eval":
            reason = "not a run folder (summary.json: No such file or directory)"
        result = getattr(commands, name)(folder)
        assert (result.code, result.out, result.err) == (2, "", f"bnexp: {folder}: {reason}\n")
    assert sorted(Path().rglob("*")) == files_before


def test_a_folder_with_another_run_is_refused_and_unchanged(commands):
    commands.bnexp(*QUICK, "hydra.run.dir=run")
    old_files = file_contents(commands.folder / "run")
    for overrides, difference in ((["seed=1"], "seed=0 (here 1)"), (["optimizer.lr=1"], "(here 1")):
        result = commands.bnexp(*QUICK, "hydra.run.dir=run", *overrides)
        assert result.code == 2
        assert result.err.startswith("bnexp: hydra.run.dir=run: holds a run with ")
        assert difference in result.err
    assert old_files == file_contents(commands.folder / "run")


def test_plan_lists_the_jobs_and_their_status(commands):
    commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0", *QUICK, SWEEP_FOLDER)
    result = commands.plan("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, SWEEP_FOLDER)
    lines = result.out.splitlines()
    assert result.code == 0
    assert [line.split(" | ")[1].split(",")[0] for line in lines[:4]] == [
        "finished", "finished", "to run", "to run"
    ]  # fmt: skip
    assert lines[4].startswith("2 done, 2 to run, about 0:")
    assert len(commands.runs()) == 2


@pytest.mark.parametrize(
    ("preset", "jobs"),
    [
        ("bn_study", 40),
        ("bn_learning_rate", 70),
        ("bn_batch_size", 45),
        ("norm_zoo", 30),
        ("wuhe2018_batch_size", 50),
        ("luo2019_ghost_batches", 20),
        ("desmith2020_residual_depth", 36),
    ],
)
def test_study_presets_are_sweeps(commands, preset, jobs):
    result = commands.plan(f"experiment={preset}")
    assert result.out.splitlines()[-1] == f"0 done, {jobs} to run"


def test_the_seed_of_the_command_line_replaces_those_of_a_preset(commands):
    *jobs, total = commands.plan("experiment=luo2019_ghost_batches", "seed=7").out.splitlines()
    assert (len(jobs), total) == (4, "0 done, 4 to run")
    assert all("seed=7" in job for job in jobs)


def test_a_preset_is_a_sweep_without_a_flag(commands):
    overrides = ("experiment=norm_zoo", "dataset=digits", "model.norm=none,layer", "seed=0,1")
    result = commands.bnexp(*overrides, *QUICK)
    assert result.code == 0
    assert len(commands.runs()) == 4


def test_the_batch_size_scales_the_learning_rate(commands):
    result = commands.bnexp("experiment=bn_batch_size", "dataset=digits", "seed=0", "batch_size=32,64",
                          "model.norm=layer", *QUICK)  # fmt: skip
    assert result.code == 0
    rates = [
        float((run / "metrics.csv").read_text().splitlines()[1].split(",")[7]) for run in commands.runs()
    ]
    assert sorted(rates) == [0.1 * 32 / 256, 0.1 * 64 / 256]


def read_hparams(run):
    """The content of the HParams tab, from a run's only event file."""
    (events,) = run.glob("events.out.tfevents.*")
    accumulator = EventAccumulator(str(events)).Reload()
    messages = {}
    for tag in ("session_start_info", "session_end_info"):
        content = accumulator.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
        messages[tag] = HParamsPluginData.FromString(content)
    return accumulator, messages


def test_hparams_have_the_same_keys_and_types_in_every_run(commands):
    overrides = ("epochs=1", "dataset.train_size=100", "dataset.test_size=100")
    assert commands.bnexp("-m", "model=mlp,mlp_bn", "optimizer.lr=0.1,1", *overrides).code == 0
    kinds = []
    for run in commands.runs():
        accumulator, messages = read_hparams(run)
        values = messages["session_start_info"].session_start_info.hparams
        kinds.append({key: value.WhichOneof("kind") for key, value in values.items()})
        assert {"test/accuracy", "train_eval/loss"} <= set(accumulator.Tags()["scalars"])
        assert "_hparams_/experiment" not in accumulator.Tags()["tensors"]  # the columns of one sweep alone
        assert not [
            path for path in run.iterdir() if path.is_dir() and path.name not in (".hydra", "checkpoints")
        ]
    choices = dict.fromkeys(("model", "dataset", "optimizer"), "string_value")  # also those that do not vary
    assert kinds == [choices | {"optimizer.lr": "number_value"}] * 4


def test_a_recipe_is_composed_once_and_its_seeds_have_the_texts_of_composed_jobs(commands, monkeypatch):
    composed_jobs = []
    compose = ConfigLoaderImpl.load_sweep_config
    monkeypatch.setattr(
        ConfigLoaderImpl,
        "load_sweep_config",
        lambda loader, config, overrides: (
            composed_jobs.append(overrides) or compose(loader, config, overrides)
        ),
    )
    arguments = ("-m", "model.hidden=[8],[4,4]", "epochs=1", "hydra.launcher.jobs=1", *QUICK[1:])
    assert commands.bnexp(*arguments, "seed=0,0,1,2", "hydra.sweep.dir=together").code == 0
    assert len(composed_jobs) == 2
    monkeypatch.setattr(JobComposer, "_composed", lambda self, overrides: compose(
        self.context.config_loader, self.config, overrides))  # fmt: skip
    assert commands.bnexp(*arguments, "seed=0,0,1,2", "hydra.sweep.dir=each").code == 0
    assert len(list(commands.folder.glob("together/*/.hydra/hydra.yaml"))) == 6
    for path in commands.folder.glob("together/*/.hydra/*.yaml"):
        same_path = commands.folder / "each" / path.relative_to(commands.folder / "together")
        assert (
            path.read_text().replace("/together", "/each").replace("=together", "=each")
            == same_path.read_text()
        )


def test_what_a_job_changes_for_the_whole_process_ends_with_it(commands, tmp_path):
    (commands.folder / "process_nets.py").write_text("""
import os
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

class Changes(Net):
    def __init__(self, in_channels, image_size, num_classes):
        torch.set_default_dtype(torch.float64)
        os.chdir("/")
        super().__init__(in_channels, image_size, num_classes)

    def forward(self, images):
        return super().forward(images.double())
""")
    networks = ("model=custom", "model._target_=process_nets.Changes,process_nets.Net")
    quick = ("epochs=1", "dataset.train_size=60", "dataset.test_size=40", "tracking.tensorboard=false")
    result = commands.bnexp("-m", *networks, *quick, "hydra.launcher.jobs=1", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    assert os.getcwd() == str(tmp_path)


def test_a_missing_folder_of_images_is_a_mistake_before_the_sweep_has_a_folder(commands):
    result = commands.bnexp("-m", "dataset=image_folder", "dataset.root=nowhere,neither", "seed=0,1", *QUICK)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "nowhere" in result.err
    assert not (commands.folder / "outputs").exists()
