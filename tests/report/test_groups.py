"""Which runs belong together, read from their saved configurations."""

import json

import pytest

from bnexp.errors import UserError
from bnexp.report.analysis.groups import group
from bnexp.report.read.runs import read_runs
from helpers.run_folders import write_run, write_sweep


def grouped(*paths, **words):
    return group(read_runs(paths)[0], **words)


def test_groups_are_what_differs_other_than_the_seed(tmp_path):
    found = grouped(write_sweep(tmp_path, {"batch": [98, 99], "none": [97, 96]}))
    assert (found.by, found.baseline) == ("model.norm", "none")
    assert [(one.name, len(one.runs)) for one in found.groups] == [("none", 2), ("batch", 2)]
    assert found.constants["optimizer.lr"] == "0.1"
    assert not {"seed", "name", "dataset.root", "tracking.every"} & set(found.constants)


def test_what_changes_no_result_makes_no_group(tmp_path):
    write_run(tmp_path, 0.9, seed=0, name="a", device_threads=1, dataset_root="/here", tags=["x"])
    write_run(
        tmp_path,
        0.9,
        seed=1,
        name="b",
        device_threads=2,
        dataset_root="/there",
        eval_batch_size=7,
        on_failure="stop",
    )
    found = grouped(tmp_path)
    assert found.notes == ()
    (one,) = found.groups
    assert (one.name, len(one.runs)) == ("all runs", 2)


def test_a_grid_is_compared_block_by_block(tmp_path):
    for lr in (0.1, 1.0):
        write_sweep(tmp_path, {"none": [97], "batch": [98]}, optimizer_lr=lr)
    found = grouped(tmp_path)
    assert [one.block for one in found.groups] == ["lr=0.1", "lr=0.1", "lr=1", "lr=1"]
    assert found.reference(found.groups[3]) is found.groups[2]
    by_lr = grouped(tmp_path, by="lr")
    assert (by_lr.by, by_lr.baseline) == ("optimizer.lr", "0.1")
    assert {one.block for one in by_lr.groups} == {"norm=none", "norm=batch"}


def test_blocks_stand_in_the_order_of_their_numbers(tmp_path):
    for lr in (10, 3, 0.1):
        write_sweep(tmp_path, {"none": [97], "batch": [98]}, optimizer_lr=lr)
    assert list(grouped(tmp_path).blocks) == ["lr=0.1", "lr=3", "lr=10"]
    assert [one.value for one in grouped(tmp_path, by="lr", baseline="3").groups[:3]] == ["3", "0.1", "10"]


def test_models_are_called_as_they_were_typed(tmp_path):
    for word, target in (("mlp", "MLP"), ("conv", "ConvNet"), ("conv_bn", "ConvNet")):
        run = write_run(tmp_path, 0.9, seed=0, folder=word, model__target_=f"bnexp.models.{target}")
        summary = json.loads((run / "summary.json").read_text()) | {"overrides": [f"model={word}"]}
        (run / "summary.json").write_text(json.dumps(summary))
    names = {one.value for one in grouped(tmp_path / "mlp", tmp_path / "conv").groups}
    assert names == {"mlp", "conv"}
    assert {one.value for one in grouped(tmp_path).groups} == {"mlp", "ConvNet"}  # two words for one class


def test_a_key_that_varies_along_is_a_confounder(tmp_path):
    write_sweep(tmp_path / "a", {"none": [97, 96]})
    write_sweep(tmp_path / "b", {"batch": [98, 97]}, epochs=20, optimizer_lr=0.5)
    found = grouped(tmp_path)
    none, batch = found.groups
    assert found.confounders(batch, none) == ["epochs", "optimizer.lr"]


def test_another_models_own_keys_are_no_confounders_but_its_norm_is(tmp_path):
    write_run(tmp_path, 0.9, seed=0)
    conv = write_run(
        tmp_path, 0.9, seed=0, folder="conv", model__target_="bnexp.models.ConvNet", model_norm="batch"
    )
    text = (conv / ".hydra" / "config.yaml").read_text()
    (conv / ".hydra" / "config.yaml").write_text(text.replace("hidden:", "widths:"))
    found = grouped(tmp_path)
    assert found.by == "model._target_"
    names = {one.name: one for one in found.groups}
    assert set(names) == {"MLP", "ConvNet"}
    assert found.confounders(names["ConvNet"], names["MLP"]) == ["model.norm"]


def test_versions_are_pointed_out(tmp_path):
    for norm, torch in (("none", "2.9"), ("batch", "2.10")):
        run = write_run(tmp_path, 0.9, model_norm=norm, seed=0)
        (run / "environment.json").write_text(json.dumps({"versions": {"torch": torch}}))
    found = grouped(tmp_path)
    assert found.notes == ("runs differ in torch: 2.10; 2.9",)
    assert found.confounders(found.groups[1], found.groups[0]) == ["version of torch"]


def test_data_sets_are_never_compared(tmp_path):
    for name in ("mnist", "digits"):
        write_sweep(tmp_path, {"none": [97], "batch": [98]}, dataset_name=name)
    found = grouped(tmp_path)
    assert {one.block for one in found.groups} == {"dataset=mnist", "dataset=digits"}
    with pytest.raises(UserError, match="different data sets are not compared"):
        grouped(tmp_path, by="dataset.name")


def test_a_key_that_older_runs_lack_is_taken_as_equal(tmp_path):
    write_run(tmp_path, 0.9, seed=0)
    run = write_run(tmp_path, 0.9, seed=1)
    config = run / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 64\n", ""))
    found = grouped(tmp_path)
    assert len(found.groups) == 1
    assert found.notes == ("not in every run's configuration, taken as equal: batch_size",)


def test_a_key_that_was_added_on_the_command_line_does_differ(tmp_path):
    write_run(tmp_path, 0.9, seed=0)
    write_run(tmp_path, 0.9, seed=0, model_width=64)
    assert [one.name for one in grouped(tmp_path).groups] == ["(absent)", "64"]


def test_a_run_done_again_replaces_the_older_one(tmp_path):
    for i, accuracy in enumerate((0.9, 0.8)):
        run = write_run(tmp_path, accuracy, seed=0, folder=f"run{i}")
        (run / "environment.json").write_text(json.dumps({"versions": {}, "started": f"2026-01-0{2 - i}"}))
    found = grouped(tmp_path)
    assert [run.final["test/accuracy"] for run in found.groups[0].runs] == [0.9]
    assert "seed 0 of all runs was run again later" in found.problems[0].reason


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"by": "model.norn"}, "--by=model.norn: must be one of model.norm; did you mean model.norm?"),
        ({"by": "batch_size"}, "--by=batch_size: is 64 in every run; these differ: model.norm"),
        ({"baseline": "bath"}, "--baseline=bath: must be one of batch, none; did you mean batch?"),
    ],
)
def test_unknown_names(tmp_path, words, message):
    write_sweep(tmp_path, {"none": [97], "batch": [98]})
    with pytest.raises(UserError) as caught:
        grouped(tmp_path, **words)
    assert str(caught.value) == message
