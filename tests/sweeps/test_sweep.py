"""Sweeps that survive: what is finished is skipped, what failed is said, what is left can be run."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from bnexp.sweeps import sweep
from bnexp.training import checkpoint

QUICK = ("epochs=1", "dataset.train_size=100", "dataset.test_size=100", "tracking.tensorboard=false")
INTO = "hydra.sweep.dir=sweep"


def trained(done):
    """The jobs that this command trained, by their own line."""
    return [line.split(" | ")[0] for line in done.out.splitlines() if line.startswith("epoch 1/1")]


def ends(commands):
    return {path.name: (path / "summary.json").read_bytes() for path in commands.runs()}


def test_the_same_sweep_again_runs_nothing_and_ends_in_the_same_table(commands):
    first = commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, INTO)
    before = ends(commands)
    again = commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, INTO)
    assert (first.code, len(trained(first))) == (0, 4)
    assert (again.code, len(trained(again))) == (0, 0)
    assert again.out.count("finished before: skipped") == 4
    assert ends(commands) == before
    assert (
        first.out[first.out.index("test accuracy, final") :]
        == again.out[again.out.index("test accuracy, final") :]
    )


def test_more_seeds_run_the_new_ones_only(commands):
    commands.bnexp("-m", "seed=0,1", *QUICK, INTO)
    done = commands.bnexp("-m", "seed=0,1,2", *QUICK, INTO)
    assert len(trained(done)) == 1
    assert len(commands.runs()) == 3


def test_a_job_is_known_by_its_configuration_whatever_the_words(commands):
    commands.bnexp("-m", "model=mlp_bn", "seed=0,1", *QUICK, INTO)
    done = commands.bnexp("-m", "seed=0,1", "model=mlp", "model.norm=batch", "name=other", *QUICK, INTO)
    assert trained(done) == []
    folders = [path for path in (commands.folder / "sweep").iterdir() if path.is_dir()]
    assert len(folders) == 2  # none for a skipped job


def test_a_jobs_name_is_what_tells_it_from_the_others(commands):
    done = commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0", *QUICK, INTO)
    names = [run.name.rpartition("-")[0] for run in commands.runs()]
    assert sorted(names) == ["model=mlp,seed=0", "model=mlp_bn,seed=0"], "the seed always"
    heads = [line for line in done.out.splitlines() if line.startswith("[")]
    assert [head.split(" | ")[0] for head in heads] == ["[1/2] model=mlp seed=0", "[2/2] model=mlp_bn seed=0"]


def test_an_unfinished_job_goes_on_in_its_folder_whatever_the_words(commands):
    commands.bnexp("-m", "seed=0,1", *QUICK, INTO)
    folder = next(run for run in commands.runs() if run.name.startswith("seed=1-"))
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    done = commands.bnexp("-m", "seed=0,1", "model=mlp,mlp_bn", *QUICK, INTO)
    assert done.code == 0
    assert sorted(run.name.rpartition("-")[0] for run in commands.runs()) == [
        "model=mlp_bn,seed=0", "model=mlp_bn,seed=1", "seed=0", "seed=1"
    ]  # fmt: skip
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


def test_a_job_that_diverged_is_not_trained_to_diverge_again(commands):
    words = ("-m", "optimizer.lr=0.1,1e30", *QUICK, INTO)
    first, again = commands.bnexp(*words), commands.bnexp(*words)
    assert (first.code, again.code) == (1, 1)
    assert trained(again) == []
    assert "optimizer.lr=1e+30 | diverged before: skipped" in again.out
    (named,) = again.err.splitlines()
    assert named.startswith("diverged: sweep/optimizer.lr=1e+30-")
    assert named in first.err
    assert commands.plan(*words).out.splitlines()[1].split(" | ")[1].startswith("diverged, 0:")


def test_a_changed_configuration_is_another_job(commands):
    commands.bnexp("-m", "seed=0", *QUICK, INTO)
    done = commands.bnexp("-m", "seed=0", "optimizer.lr=0.2", *QUICK, INTO)
    assert len(trained(done)) == 1


def test_a_failed_job_is_tried_again_and_the_others_are_not(commands):
    words = ("-m", "model=mlp_bn,mlp", "batch_size=1", *QUICK, INTO)
    assert commands.bnexp(*words).code == 1
    done = commands.bnexp(*words)
    assert done.code == 1
    assert done.out.count("finished before: skipped") == 1
    assert "more than one value a channel" in done.err


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("model.norm=none,batc", "bnexp: model.norm=batc: must be one of none, "),
        ("optimizer.lr=0.1,O.2", "bnexp: optimizer.lr=O.2: must be a number"),
        ("seed=0,x", "bnexp: seed=x: must be a whole number"),
        ("model=mlp,con", "bnexp: model=con: must be one of conv, "),
    ],
)
def test_a_mistake_in_one_job_is_found_before_the_first_is_trained(commands, word, line):
    done = commands.bnexp("-m", word, *QUICK, INTO)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(line)
    assert len(done.err.splitlines()) == 1
    assert not (commands.folder / "sweep").exists()


@pytest.mark.parametrize("word", ["seed=5", "seed=5,0", "seed=range(5,6)"])
def test_more_seeds_leave_out_none_of_the_unfinished_jobs(commands, word):
    commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, INTO)
    for run in commands.runs()[1:]:
        shutil.rmtree(run)
    done = commands.resume("sweep", word)
    assert done.code == 0
    names = {run.name.rpartition("-")[0] for run in commands.runs()}
    assert names == {f"model={model},seed={seed}" for model in ("mlp", "mlp_bn") for seed in (0, 1, 5)}
    assert trained(commands.resume("sweep")) == []


def test_an_axis_of_a_preset_gets_longer_too(commands):
    words = ("experiment=norm_zoo", "dataset=digits", "model.norm=none,layer", *QUICK, INTO)
    assert len(trained(commands.bnexp(*words))) == 10  # its seeds are range(5)
    done = commands.resume("sweep", "seed=7")
    assert (len(trained(done)), len(commands.runs())) == (2, 12)


def test_a_mistake_in_what_resumes_a_sweep_leaves_it_as_it_was(commands):
    commands.bnexp("-m", "seed=0,1", *QUICK, INTO)
    before = (commands.folder / "sweep" / "multirun.yaml").read_bytes()
    done = commands.resume("sweep", "seed=2,x")
    assert (done.code, done.err) == (2, "bnexp: seed=x: must be a whole number\n")
    assert (commands.folder / "sweep" / "multirun.yaml").read_bytes() == before
    assert len(commands.runs()) == 2


def test_sweeps_that_start_at_once_have_folders_of_their_own(commands):
    for _ in range(2):
        commands.bnexp("-m", "seed=0", *QUICK)
    names = [path.name for path in commands.folder.glob("outputs/multirun/*/*")]
    assert len(names) == 2
    assert all(re.fullmatch(r"\d\d-\d\d-\d\d-[0-9a-f]{6}", name) for name in names)


def test_a_plan_finds_the_mistakes_that_need_no_torch(commands):
    done = commands.plan("seed=0,1", "optimizer.lr=0.1,O.2")
    assert (done.code, done.out, done.err) == (2, "", "bnexp: optimizer.lr=O.2: must be a number\n")


def test_on_failure_stop_runs_no_further_job(commands):
    words = ("-m", "model=mlp,mlp_bn,conv", "batch_size=1", *QUICK, INTO)
    done = commands.bnexp(*words, "on_failure=stop")
    assert done.code == 1
    assert len(trained(done)) == 1
    assert "not run: a job failed (on_failure=stop)" in done.out
    assert len(commands.runs()) == 2


def test_each_job_says_where_the_sweep_is(commands):
    done = commands.bnexp("-m", "seed=0,1,2", *QUICK)
    heads = [line for line in done.out.splitlines() if line.startswith("[")]
    assert [head.split("]")[0] for head in heads] == ["[1/3", "[2/3", "[3/3"]
    assert ["left" in head for head in heads] == [False, True, True]


def test_the_time_left_is_guessed_from_jobs_that_were_trained(commands):
    commands.bnexp("-m", "seed=0,1", *QUICK, INTO)
    done = commands.bnexp("-m", "seed=range(5)", *QUICK, INTO)
    heads = [line for line in done.out.splitlines() if line.startswith("[")]
    assert ["left" in head for head in heads] == [False, False, False, True, True]


def test_resume_runs_what_is_left_of_a_sweep(commands):
    commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, INTO)
    shutil.rmtree(commands.runs()[2])
    done = commands.resume("sweep")
    assert done.code == 0
    assert len(trained(done)) == 1
    assert len(commands.runs()) == 4
    assert "test accuracy, final" in done.out


def test_resume_leaves_a_finished_run_alone(commands):
    commands.bnexp(*QUICK, "hydra.run.dir=run")
    before = {path: path.read_bytes() for path in (commands.folder / "run").rglob("*") if path.is_file()}
    done = commands.resume("run")
    assert (done.code, done.out.strip()) == (0, "run: this run is finished; nothing to do")
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_resume_of_no_run_is_one_line(commands, folder):
    done = commands.resume(folder)
    assert done.code == 2
    assert "neither a run's folder" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_folder_that_holds_another_run_is_refused_untouched(commands):
    commands.bnexp(*QUICK, "hydra.run.dir=run")
    before = {path: path.read_bytes() for path in (commands.folder / "run").rglob("*") if path.is_file()}
    for words, why in ((["seed=1"], "seed=0 (here 1)"), (["epochs=0"], "(here 0)")):
        done = commands.bnexp(*QUICK, "hydra.run.dir=run", *words)
        assert done.code == 2
        assert done.err.startswith("bnexp: hydra.run.dir=run: holds a run with ")
        assert why in done.err
    assert before == {
        path: path.read_bytes() for path in (commands.folder / "run").rglob("*") if path.is_file()
    }


def test_plan_lists_the_jobs_and_what_is_done(commands):
    commands.bnexp("-m", "model=mlp,mlp_bn", "seed=0", *QUICK, INTO)
    done = commands.plan("-m", "model=mlp,mlp_bn", "seed=0,1", *QUICK, INTO)
    lines = done.out.splitlines()
    assert done.code == 0
    assert [line.split(" | ")[1].split(",")[0] for line in lines[:4]] == [
        "finished", "to run", "finished", "to run"
    ]  # fmt: skip
    assert lines[4].startswith("2 done, 2 to run, about 0:")
    assert len(commands.runs()) == 2


@pytest.mark.parametrize(
    ("preset", "jobs"), [("bn_study", 40), ("bn_learning_rate", 70), ("bn_batch_size", 45), ("norm_zoo", 30)]
)
def test_presets_for_questions_are_sweeps(commands, preset, jobs):
    done = commands.plan(f"experiment={preset}")
    assert done.out.splitlines()[-1] == f"0 done, {jobs} to run"
    fewer = commands.plan(f"experiment={preset}", "seed=7")
    assert all("seed=7" in line for line in fewer.out.splitlines()[:-1])


def test_a_preset_is_a_sweep_without_a_flag(commands):
    words = ("experiment=norm_zoo", "dataset=digits", "model.norm=none,layer", "seed=0,1")
    done = commands.bnexp(*words, *QUICK)
    assert done.code == 0
    assert len(commands.runs()) == 4


def test_batch_size_scales_the_rate(commands):
    done = commands.bnexp("experiment=bn_batch_size", "dataset=digits", "seed=0", "batch_size=32,64",
                          "model.norm=layer", *QUICK)  # fmt: skip
    assert done.code == 0
    rates = [
        float((run / "metrics.csv").read_text().splitlines()[1].split(",")[7]) for run in commands.runs()
    ]
    assert rates == [0.1 * 32 / 256, 0.1 * 64 / 256]


def hparams(run):
    """What the HParams tab reads from a run's one events file."""
    (events,) = run.glob("events.out.tfevents.*")
    accumulator = EventAccumulator(str(events)).Reload()
    found = {}
    for tag in ("experiment", "session_start_info", "session_end_info"):
        content = accumulator.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
        found[tag] = HParamsPluginData.FromString(content)
    return accumulator, found


def test_hparams_have_the_same_keys_and_types_in_every_run(commands):
    words = ("epochs=1", "dataset.train_size=100", "dataset.test_size=100")
    assert commands.bnexp("-m", "model=mlp,mlp_bn", "optimizer.lr=0.1,1", *words).code == 0
    seen = []
    for run in commands.runs():
        accumulator, found = hparams(run)
        values = found["session_start_info"].session_start_info.hparams
        seen.append({key: value.WhichOneof("kind") for key, value in values.items()})
        metrics = {info.name.tag for info in found["experiment"].experiment.metric_infos}
        assert {"test/accuracy", "train_eval/loss"} <= metrics <= set(accumulator.Tags()["scalars"])
        assert not [
            path for path in run.iterdir() if path.is_dir() and path.name not in (".hydra", "checkpoints")
        ]
    assert seen == [{"model": "string_value", "optimizer.lr": "number_value"}] * 4, (
        "what changes, and no more"
    )


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_with_the_table_and_the_rest_can_be_run(tmp_path):
    words = ["-m", "seed=0,1,2", "epochs=30", "tracking.tensorboard=false", INTO]
    command = [sys.executable, "-m", "bnexp.train", *words]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("[2/3]"):
            break
    for line in process.stdout:
        if line.startswith("epoch"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "test accuracy, final" in out
    assert "interrupted: " in err
    assert out.splitlines()[-1] == "carry on: bnexp-resume sweep"
    statuses = sorted(
        json.loads(path.read_text())["status"] for path in tmp_path.glob("sweep/*/summary.json")
    )
    assert statuses == ["finished", "interrupted"]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0
    assert again.stdout.count("finished before: skipped") == 1


@pytest.mark.slow
def test_jobs_side_by_side_give_the_same_bits(commands):
    pytest.importorskip(
        "hydra_plugins.hydra_joblib_launcher", reason="needs the extra: pip install bnexp[parallel]"
    )
    words = ("-m", "model=conv_bn", "seed=0,1,2", *QUICK, "device.threads=1")
    assert commands.bnexp(*words, "hydra.sweep.dir=one").code == 0
    command = [sys.executable, "-m", "bnexp.train", *words]
    command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=two"]
    done = subprocess.run(command, cwd=commands.folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    runs = sorted((commands.folder / "one").glob("*/"))
    assert len(runs) == 3
    for run in runs:
        twin = commands.folder / "two" / run.name
        ours, theirs = (checkpoint.load(path / "checkpoints" / "last.pt")["model"] for path in (run, twin))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "test accuracy, final" in done.stdout


def test_a_job_is_composed_once_and_runs_as_if_it_were_composed_again(commands, monkeypatch):
    composed = []
    compose = sweep._Composed.compose
    monkeypatch.setattr(
        sweep._Composed, "compose", lambda *given: composed.append(given[2]) or compose(*given)
    )
    words = ("-m", "model.hidden=[8],[4,4]", "seed=0,0,1", "epochs=1", *QUICK[1:])
    assert commands.bnexp(*words, "hydra.sweep.dir=first").code == 0
    once = len(composed)
    monkeypatch.setattr(sweep._Composed, "MOST", 0)
    assert commands.bnexp(*words, "hydra.sweep.dir=other").code == 0
    assert (once, len(composed) - once) == (6, 3 + 6 + 6), "checked, looked at by Hydra, and run"
    both = ("first", "other")
    for name in ("config.yaml", "overrides.yaml", "hydra.yaml"):
        saved = {folder: sorted(commands.folder.glob(f"{folder}/*/.hydra/{name}")) for folder in both}
        texts = [[path.read_text().replace(folder, "") for path in paths] for folder, paths in saved.items()]
        assert texts[0] == texts[1]
        assert len(texts[0]) == 4
