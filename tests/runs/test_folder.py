import json
import os
import signal

import pytest

from bnexp.errors import Diverged, Interrupted, UserError
from bnexp.runs import environment, folder
from bnexp.runs.folder import RunFolder, discard, record_outcome
from bnexp.runs.identity import config_hash
from bnexp.signals import StopSignal
from bnexp.sweeps.job_folders import job_folder

CONFIG = {"name": "a", "tags": [], "seed": 0, "epochs": 2, "dataset": {"name": "digits", "root": "/x"}}


def folder_in(path):
    path.mkdir(parents=True, exist_ok=True)
    return RunFolder(path, CONFIG, ["epochs=2"])


def test_hash_is_of_the_experiment_not_of_its_name_or_place():
    same = CONFIG | {"name": "b", "tags": ["t"], "dataset": {"name": "digits", "root": "/y", "delta": 0.5}}
    assert config_hash(same) == config_hash(CONFIG)
    assert config_hash(CONFIG | {"seed": 1}) != config_hash(CONFIG)
    assert config_hash(dict(reversed(CONFIG.items()))) == config_hash(CONFIG)


def test_job_folders_are_readable_short_and_distinct(tmp_path):
    assert job_folder(tmp_path, "model=conv,seed=0", "1a2b") == "model=conv,seed=0-1a2b"
    assert "/" not in job_folder(tmp_path, "dataset.root=/a/b", "1a2b")
    assert len(job_folder(tmp_path, "x" * 300, "1a2b")) < 200  # file systems allow 255


def test_a_job_begun_under_other_words_keeps_its_folder(tmp_path):
    folder_in(tmp_path / "seed=0-1a2b").update()
    assert job_folder(tmp_path, "model=conv,seed=0", "1a2b") == "seed=0-1a2b"
    assert job_folder(tmp_path, "model=conv,seed=0", "1a2c") == "model=conv,seed=0-1a2c"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (None, "finished", None),
        (Diverged("the loss became nan in epoch 1, step 3"), "diverged", "step 3"),
        (Interrupted(signal.SIGTERM), "interrupted", "SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "SIGINT"),
        (RuntimeError("two\nlines"), "failed", "RuntimeError: two lines"),
    ],
)
def test_summary_says_how_the_run_ended(tmp_path, error, status, words):
    folder = folder_in(tmp_path / "run")
    try:
        with record_outcome(folder, keep=False):
            assert json.loads((folder.path / "summary.json").read_text())["status"] == "running"
            if error:
                raise error
    except BaseException as raised:
        assert raised is error  # noqa: PT017
    summary = folder.load_summary(folder.path)
    assert summary["status"] == status
    assert summary["time"]["total_s"] >= 0
    assert words is None or words in summary["error"]


def test_a_users_mistake_leaves_no_folder_unless_in_a_sweep(tmp_path):
    for keep in (False, True):
        folder = folder_in(tmp_path / f"run-{keep}")
        with pytest.raises(UserError), record_outcome(folder, keep=keep):
            raise UserError("epochs=0: no")
        assert folder.path.exists() is keep


def test_discard_leaves_what_is_not_ours(tmp_path):
    folder = folder_in(tmp_path / "run")
    folder.update()
    (folder.path / "thesis.tex").write_text("mine")
    discard(folder.path)
    assert [path.name for path in folder.path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("number", StopSignal.SIGNALS)
def test_first_signal_waits_and_the_second_leaves_at_once(number):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number
        assert stop.interrupted().exit_code == 128 + number
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_environment_names_versions_and_command():
    found = environment.environment()
    assert found["versions"]["torch"]
    assert found["command"]
    json.dumps(found)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"seed": 1}'])
def test_a_damaged_summary_is_a_users_line(tmp_path, text):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"summary\.json"):
        folder.load_summary(tmp_path)
