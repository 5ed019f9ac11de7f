"""Checkpoints: what is saved is loaded, damage is a one-line error, no code in a file runs."""

import pickle

import pytest
import torch

from bnexp.errors import UserError, WriteError
from bnexp.training import checkpoint


class Malicious:
    ran = False

    def __reduce__(self):
        return (setattr, (Malicious, "ran", True))


def test_load_returns_what_save_was_given(tmp_path):
    state = {"model": {"w": torch.randn(3)}, "progress": {"epoch": 2, "best": None, "monitor": "val/loss"}}
    checkpoint.save(state, tmp_path / "last.pt")
    loaded = checkpoint.load(tmp_path / "last.pt")
    assert torch.equal(loaded["model"]["w"], state["model"]["w"])
    assert loaded["progress"] == state["progress"]


def test_code_in_a_pickle_does_not_run(tmp_path):
    for name, write in (
        ("zip", torch.save),
        ("raw", lambda value, path: path.write_bytes(pickle.dumps(value))),
    ):
        path = tmp_path / name
        write({"model": Malicious()}, path)
        with pytest.raises(UserError, match="not a checkpoint that can be read"):
            checkpoint.load(path)
        assert not Malicious.ran


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_a_damaged_checkpoint_is_a_one_line_error(tmp_path, damage):
    path = tmp_path / "last.pt"
    checkpoint.save({"model": {"w": torch.randn(1000)}}, path)
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        checkpoint.save({"weights": 3}, path)
    with pytest.raises(UserError, match=r"last\.pt: ") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_a_users_file_beside_the_numbered_checkpoints_stays(tmp_path):
    own_files = [tmp_path / name for name in ("epoch-final.pt", "epoch-1-copy.pt")]
    for path in own_files:
        path.write_text("mine")
    checkpoints = checkpoint.Checkpoints(tmp_path, every=1, keep=1)
    for epoch in (9, 10):
        checkpoints.save({"model": {}}, epoch, best=False, final=epoch == 10)
    assert [path.read_text() for path in own_files] == ["mine", "mine"]
    assert not (tmp_path / "epoch-9.pt").exists()
    assert (tmp_path / "epoch-10.pt").exists()


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints", every=1, keep=0)
    with pytest.raises(WriteError, match="checkpoints: cannot be written"):
        checkpoints.save_last({})


def test_the_folder_is_made_by_the_first_save_and_not_where_the_run_was_removed(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints", every=1, keep=0)
    with pytest.raises(WriteError):
        checkpoints.save_last({"model": {}})
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    assert checkpoints.newest() is None
    assert not checkpoints.folder.exists()
    checkpoints.save_last({"model": {}})
    assert checkpoints.last.exists()


def test_a_later_checkpoint_leaves_best_unchanged(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, every=1, keep=0)
    for epoch in (1, 2):
        checkpoints.save({"model": {"w": torch.tensor(epoch)}}, epoch, best=epoch == 1, final=epoch == 2)
    assert checkpoint.load(tmp_path / "best.pt")["model"]["w"] == 1
    assert checkpoint.load(tmp_path / "last.pt")["model"]["w"] == 2


def test_linking_best_to_the_checkpoint_that_it_is_leaves_no_other_file(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, every=1, keep=0)
    progress = {"best": {"epoch": 1}, "epoch": 1, "current": {"steps": 0}}
    checkpoints.save({"model": {}, "progress": progress}, 1, best=True, final=True)
    assert checkpoints.newest() is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_last_is_saved_every_n_epochs_and_at_the_end(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, every=3, keep=0)
    checkpoints.save({"model": {}}, 1, best=True, final=False)
    assert (tmp_path / "best.pt").exists()
    assert not (tmp_path / "last.pt").exists()
    checkpoints.save({"model": {}}, 3, best=False, final=False)
    assert (tmp_path / "last.pt").exists()
    checkpoints.save({"model": {"w": torch.tensor(4)}}, 4, best=False, final=True)
    assert checkpoint.load(tmp_path / "last.pt")["model"]["w"] == 4
