"""The probe gap: training and test images in eval mode, against an evaluation by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnexp.compute.device import ComputeDevice
from bnexp.config.schema import ProbeKeys
from bnexp.data import DataSplits, Images, Split
from bnexp.models.initialization import build_seeded
from bnexp.probes.gap import Gap
from bnexp.probes.probe import Moment, Setup
from helpers.probe_runs import read_probe, train

CPU = ComputeDevice(torch.device("cpu"), torch.float32)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    )


def moment(*, with_val: bool, images: int) -> Moment:
    stream = torch.Generator().manual_seed(0)
    store = Images(
        torch.randint(0, 256, (60, 1, 4, 4), dtype=torch.uint8, generator=stream),
        torch.randint(0, 3, (60,), generator=stream),
    )
    parts = [
        Split(store, CPU.torch_device, index=torch.arange(start, start + 20), mean=(0.5,), std=(0.3,))
        for start in (0, 20, 40)
    ]
    data = DataSplits(parts[0], parts[1] if with_val else None, parts[2], ("a", "b", "c"))
    model = build_seeded(network, 0).train()
    model(data.train.sample(20)[0])  # running statistics other than 0 and 1
    setup = Setup(model, nn.CrossEntropyLoss(), data, ProbeKeys(images=images), 8, 8, 0, lambda: 0.1)
    return Moment(setup, 5, *setup.sample())


@pytest.mark.parametrize("with_val", [True, False])
@pytest.mark.parametrize("images", [12, 1000])
def test_both_sides_are_evaluated_in_eval_mode(with_val, images):
    now = moment(with_val=with_val, images=images)
    (row,) = Gap().after_epoch(now)
    now.network.eval()
    data = now.setup.data
    expected = {}
    for name, split in (("train", data.train), ("test", data.val if with_val else data.test)):
        pixels, labels = split.sample(min(images, 20))
        with torch.no_grad():
            log_shares = now.network(pixels).double().log_softmax(1)
        expected[f"{name}_loss"] = -float(log_shares[torch.arange(len(labels)), labels].mean())
        expected[f"{name}_accuracy"] = float((log_shares.argmax(1) == labels).double().mean())
    expected["loss_gap"] = expected["test_loss"] - expected["train_loss"]
    expected["accuracy_gap"] = expected["train_accuracy"] - expected["test_accuracy"]
    assert row == pytest.approx(expected, rel=1e-5, abs=1e-6)  # a gap is of two float32 losses


def test_a_run_has_a_row_after_each_epoch(tmp_path):
    rows = read_probe(train(tmp_path / "run", "probes=[gap]", epochs=3), "gap")
    steps = [int(row["step"]) for row in rows]
    assert steps == [steps[0], 2 * steps[0], 3 * steps[0]]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
