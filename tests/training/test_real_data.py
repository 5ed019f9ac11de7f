"""Short runs on the real data sets; skipped where BNEXP_DATA_DIR doesn't name their folder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bnexp.data import datasets, splits

SHORT = (
    "epochs=1", "batch_size=32", "dataset.train_size=2000", "dataset.val_size=500", "dataset.test_size=500",
    "device=cpu", "device.threads=1", "tracking.tensorboard=false",
)  # fmt: skip
# The floor under the accuracies: 500 guesses reach 0.16 once in 100,000. Measured on the test images with
# seeds 0 to 4, mean and sample deviation: 0.908 and 0.014, 0.743 and 0.014, 0.344 and 0.008.
RECIPES = [
    ("mnist model=conv_bn optimizer=momentum optimizer.lr=0.02", 0.8),
    ("fashion_mnist model=lenet_bn optimizer=adam scheduler=onecycle scheduler.max_lr=0.01", 0.6),
    (
        "cifar10 dataset.resize=16 dataset.train_size=4000 model=resnet model.depths=[1,1]"
        " model.widths=[16,32] optimizer=adam scheduler=onecycle scheduler.max_lr=0.005",
        0.25,
    ),
]


@pytest.mark.parametrize(
    ("overrides", "at_least"), RECIPES, ids=[overrides.split()[0] for overrides, _ in RECIPES]
)
def test_a_short_run_learns_more_than_chance(commands, data_dir, overrides, at_least):
    done = commands.bnexp(*SHORT, f"dataset.root={data_dir}", *f"dataset={overrides}".split())
    assert (done.code, done.err) == (0, "")
    final = commands.summary()["final"]
    assert final["test/accuracy"] > at_least
    assert final["val/accuracy"] > at_least
    evaluation = commands.eval(str(commands.runs()[-1]))
    assert f"accuracy {final['test/accuracy']:.4f}, loss {final['test/loss']:.4f}" in evaluation.out


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_five_folds_divide_the_real_labels_evenly(data_dir, name):
    labels = datasets.load_dataset(name, data_dir, None).train.labels
    val_indices = []
    for fold in range(5):
        keys = SimpleNamespace(val_size=0.1, train_size=None, folds=5, fold=fold)
        train_index, val_index = splits.train_val_indices(labels, keys, seed=0)
        assert torch.equal(torch.cat([train_index, val_index]).sort().values, torch.arange(len(labels)))
        val_indices.append(val_index)
    assert torch.equal(torch.cat(val_indices).sort().values, torch.arange(len(labels)))
    assert {len(val_index) for val_index in val_indices} == {len(labels) // 5}
    counts = torch.stack(
        [labels[val_index].bincount(minlength=10) for val_index in val_indices]
    )  # (fold, class)
    assert (counts.amax(0) - counts.amin(0)).max() <= 1


def test_a_run_validates_on_its_fold(commands, data_dir):
    overrides = ("dataset=mnist", f"dataset.root={data_dir}", "dataset.folds=5", "dataset.fold=3")
    assert commands.bnexp(*SHORT, *overrides).code == 0
    (run,), final = commands.runs(), commands.summary()["final"]
    evaluation = commands.eval(str(run), "--split", "val")
    assert "val: 12000 images" in evaluation.out
    assert f"accuracy {final['val/accuracy']:.4f}, loss {final['val/loss']:.4f}" in evaluation.out
