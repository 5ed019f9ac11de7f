"""Which runs form a group, and what is compared, read from their saved configurations."""

import json

import pytest

from bnexp.errors import UserError
from bnexp.report.analysis.groups import group_runs
from bnexp.report.read.runs import read_runs
from helpers.run_folders import write_run, write_sweep


def group_folders(*paths, **options):
    return group_runs(read_runs(paths)[0], **options)


def test_groups_are_what_differs_besides_the_seed(tmp_path):
    grouping = group_folders(write_sweep(tmp_path, {"batch": [98, 99], "none": [97, 96]}))
    assert (grouping.by, grouping.baseline) == ("model.norm", "none")
    assert [(group.name, len(group.runs)) for group in grouping.groups] == [("none", 2), ("batch", 2)]
    assert grouping.constants["optimizer.lr"] == "0.1"
    assert not {"seed", "name", "dataset.root", "tracking.every"} & set(grouping.constants)


def test_settings_that_change_no_result_form_no_group(tmp_path):
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
    grouping = group_folders(tmp_path)
    assert grouping.notes == ()
    (group,) = grouping.groups
    assert (group.name, len(group.runs)) == ("all runs", 2)


def test_a_grid_is_compared_block_by_block(tmp_path):
    for lr in (0.1, 1.0):
        write_sweep(tmp_path, {"none": [97], "batch": [98]}, optimizer_lr=lr)
    grouping = group_folders(tmp_path)
    assert [group.block for group in grouping.groups] == ["lr=0.1", "lr=0.1", "lr=1", "lr=1"]
    assert grouping.baseline_of(grouping.groups[3]) is grouping.groups[2]
    by_lr = group_folders(tmp_path, by="lr")
    assert (by_lr.by, by_lr.baseline) == ("optimizer.lr", "0.1")
    assert {group.block for group in by_lr.groups} == {"norm=none", "norm=batch"}


def test_blocks_are_sorted_by_number(tmp_path):
    for lr in (10, 3, 0.1):
        write_sweep(tmp_path, {"none": [97], "batch": [98]}, optimizer_lr=lr)
    assert list(group_folders(tmp_path).blocks) == ["lr=0.1", "lr=3", "lr=10"]
    by_lr = group_folders(tmp_path, by="lr", baseline="3")
    assert [group.value for group in by_lr.groups[:3]] == ["3", "0.1", "10"]


def test_models_are_named_as_they_were_typed(tmp_path):
    for name, target in (("mlp", "MLP"), ("conv", "ConvNet"), ("conv_bn", "ConvNet")):
        run = write_run(tmp_path, 0.9, seed=0, folder=name, model__target_=f"bnexp.models.{target}")
        summary = json.loads((run / "summary.json").read_text()) | {"overrides": [f"model={name}"]}
        (run / "summary.json").write_text(json.dumps(summary))
    values = {group.value for group in group_folders(tmp_path / "mlp", tmp_path / "conv").groups}
    assert values == {"mlp", "conv"}
    values = {group.value for group in group_folders(tmp_path).groups}
    assert values == {"mlp", "ConvNet"}  # conv and conv_bn are one class


def test_a_key_that_changes_with_the_compared_one_is_a_confounder(tmp_path):
    write_sweep(tmp_path / "a", {"none": [97, 96]})
    write_sweep(tmp_path / "b", {"batch": [98, 97]}, epochs=20, optimizer_lr=0.5)
    grouping = group_folders(tmp_path)
    none, batch = grouping.groups
    assert grouping.confounders(batch, none) == ["epochs", "optimizer.lr"]


def test_keys_of_only_one_model_are_no_confounders_but_its_norm_is(tmp_path):
    write_run(tmp_path, 0.9, seed=0)
    conv = write_run(
        tmp_path, 0.9, seed=0, folder="conv", model__target_="bnexp.models.ConvNet", model_norm="batch"
    )
    text = (conv / ".hydra" / "config.yaml").read_text()
    (conv / ".hydra" / "config.yaml").write_text(text.replace("hidden:", "widths:"))
    grouping = group_folders(tmp_path)
    assert grouping.by == "model._target_"
    by_name = {group.name: group for group in grouping.groups}
    assert set(by_name) == {"MLP", "ConvNet"}
    assert grouping.confounders(by_name["ConvNet"], by_name["MLP"]) == ["model.norm"]


def test_different_versions_are_noted(tmp_path):
    for norm, torch in (("none", "2.9"), ("batch", "2.10")):
        run = write_run(tmp_path, 0.9, model_norm=norm, seed=0)
        (run / "environment.json").write_text(json.dumps({"versions": {"torch": torch}}))
    grouping = group_folders(tmp_path)
    assert grouping.notes == ("runs differ in torch: 2.10; 2.9",)
    assert grouping.confounders(grouping.groups[1], grouping.groups[0]) == ["version of torch"]


def test_data_sets_are_never_compared(tmp_path):
    for name in ("mnist", "digits"):
        write_sweep(tmp_path, {"none": [97], "batch": [98]}, dataset_name=name)
    grouping = group_folders(tmp_path)
    assert {group.block for group in grouping.groups} == {"dataset=mnist", "dataset=digits"}
    with pytest.raises(UserError, match="different data sets are not compared"):
        group_folders(tmp_path, by="dataset.name")


def test_data_sets_that_change_with_the_compared_key_are_not_compared(tmp_path):
    write_sweep(tmp_path / "a", {"none": [97, 96]}, dataset_name="mnist")
    write_sweep(tmp_path / "b", {"batch": [98, 97]}, dataset_name="digits")
    grouping = group_folders(tmp_path)
    assert [grouping.baseline_of(group) for group in grouping.groups] == [None, None]


def test_a_key_that_older_runs_lack_is_taken_as_equal(tmp_path):
    write_run(tmp_path, 0.9, seed=0)
    run = write_run(tmp_path, 0.9, seed=1)
    config = run / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 64\n", ""))
    grouping = group_folders(tmp_path)
    assert len(grouping.groups) == 1
    assert grouping.notes == ("not in every run's configuration, taken as equal: batch_size",)


def test_a_key_added_on_the_command_line_forms_a_group(tmp_path):
    write_run(tmp_path, 0.9, seed=0)
    write_run(tmp_path, 0.9, seed=0, model_width=64)
    assert [group.name for group in group_folders(tmp_path).groups] == ["(absent)", "64"]


def test_a_repeated_run_replaces_the_older_one(tmp_path):
    for i, accuracy in enumerate((0.9, 0.8)):
        run = write_run(tmp_path, accuracy, seed=0, folder=f"run{i}")
        (run / "environment.json").write_text(json.dumps({"versions": {}, "started": f"2026-01-0{2 - i}"}))
    grouping = group_folders(tmp_path)
    assert [run.final["test/accuracy"] for run in grouping.groups[0].runs] == [0.9]
    assert "seed 0 of all runs was run again later" in grouping.problems[0].reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "model.norn"}, "--by=model.norn: must be one of model.norm; did you mean model.norm?"),
        ({"by": "batch_size"}, "--by=batch_size: is 64 in every run; these differ: model.norm"),
        ({"baseline": "bath"}, "--baseline=bath: must be one of batch, none; did you mean batch?"),
    ],
)
def test_unknown_names_are_rejected(tmp_path, options, message):
    write_sweep(tmp_path, {"none": [97], "batch": [98]})
    with pytest.raises(UserError) as caught:
        group_folders(tmp_path, **options)
    assert str(caught.value) == message
