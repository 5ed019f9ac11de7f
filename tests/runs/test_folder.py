import json
import signal

import pytest

from bnexp.errors import Diverged, Interrupted, UserError
from bnexp.runs.folder import RunFolder, discard, is_free, missing_folders
from bnexp.runs.outcome import record_outcome
from bnexp.runs.summary import load_summary

CONFIG = {"name": "a", "tags": [], "seed": 0, "epochs": 2, "dataset": {"name": "digits", "root": "/x"}}


def make_folder(path):
    path.mkdir()
    return RunFolder(path, CONFIG, ["epochs=2"], new_folders=[path])


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, "finished", None),
        (Diverged("the loss became nan in epoch 1, step 3"), "diverged", "step 3"),
        (Interrupted(signal.SIGTERM), "interrupted", "SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "SIGINT"),
        (RuntimeError("two\nlines"), "failed", "RuntimeError: two lines"),
    ],
)
def test_summary_says_how_the_run_ended(tmp_path, error, status, message):
    folder = make_folder(tmp_path / "run")
    try:
        with record_outcome(folder, keep=False):
            assert json.loads((folder.path / "summary.json").read_text())["status"] == "running"
            if error:
                raise error
    except BaseException as raised:
        assert raised is error  # noqa: PT017
    summary = load_summary(folder.path)
    assert summary["status"] == status
    assert summary["time"]["total_s"] >= 0
    assert message is None or message in summary["error"]


def test_a_users_mistake_leaves_no_folder_except_in_a_sweep(tmp_path):
    for keep in (False, True):
        folder = make_folder(tmp_path / f"run-{keep}")
        with pytest.raises(UserError), record_outcome(folder, keep=keep):
            raise UserError("epochs=0: no")
        assert folder.path.exists() is keep


def test_discard_leaves_other_files(tmp_path):
    folder = make_folder(tmp_path / "run")
    folder.update()
    (folder.path / "thesis.tex").write_text("text")
    discard(folder.path, [folder.path])
    assert [path.name for path in folder.path.iterdir()] == ["thesis.tex"]


def test_discard_removes_only_folders_that_were_created_for_the_run(tmp_path):
    (tmp_path / "outputs").mkdir()
    path = tmp_path / "outputs/today/run"
    new_folders = missing_folders(path)
    assert new_folders == [path, path.parent]
    path.mkdir(parents=True)
    discard(path, new_folders)
    assert list(tmp_path.rglob("*")) == [tmp_path / "outputs"]
    discard(tmp_path / "outputs", missing_folders(tmp_path / "outputs"))
    assert (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "name", ["metrics.csv", "steps.csv", "confusion.csv", "environment.json", "checkpoints/last.pt"]
)
def test_records_without_a_summary_belong_to_no_run(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("text")
    with pytest.raises(UserError, match="belongs to no run of bnexp"):
        RunFolder(tmp_path, CONFIG, [])
    assert (tmp_path / name).read_text() == "text"


def test_clear_removes_only_what_a_run_writes(tmp_path):
    make_folder(tmp_path / "run").update()
    names = ["metrics.csv", "confusion.csv", "checkpoints/last.pt", "checkpoints/epoch-3.pt"]
    names.append("checkpoints/epoch-final.pt")
    (tmp_path / "run/checkpoints").mkdir()
    for name in names:
        (tmp_path / "run" / name).write_text("text")
    RunFolder(tmp_path / "run", CONFIG, []).clear()
    assert [name for name in names if (tmp_path / "run" / name).exists()] == names[-1:]


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", '{"seed": 1}', '{"status": "finished", "epochs": "two"}', '{"status": 3}']
)
def test_a_damaged_summary_is_a_user_error(tmp_path, text):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"summary\.json"):
        load_summary(tmp_path)


def test_a_run_that_was_killed_before_its_summary_blocks_no_folder(tmp_path):
    """Runs that are trained together make the folder of their checkpoints before they write summary.json."""
    for name in (".hydra", "checkpoints"):
        (tmp_path / name).mkdir()
    (tmp_path / ".lock").touch()
    assert is_free(tmp_path)
    assert RunFolder(tmp_path, CONFIG, []).previous_summary is None
    (tmp_path / "checkpoints/last.pt").touch()
    assert not is_free(tmp_path)
