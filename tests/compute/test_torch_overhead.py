import subprocess
import sys

import pytest
import torch
from torch import nn

from bnexp.compute import torch_overhead

OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    (torch.optim.AdamW, {"lr": 0.01}),
    (torch.optim.RMSprop, {"lr": 0.01, "centered": True}),
    (torch.optim.Adagrad, {"lr": 0.1}),
    (torch.optim.NAdam, {"lr": 0.01}),
]


@pytest.mark.parametrize(("kind", "keys"), OPTIMIZERS)
def test_plain_steps_are_the_same_bits(kind, keys):
    found = []
    for plain in (True, False):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        optimizer = kind(network.parameters(), **keys)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        step = torch_overhead.unwrapped_step(optimizer) if plain else optimizer.step
        assert (step is not optimizer.step) == plain
        for _ in range(5):
            optimizer.zero_grad()
            network(torch.randn(6, 5)).square().sum().backward()
            step()
            scheduler.step()  # warns where it does not see the step
        found.append(network.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_plain_backward_pass_is_the_same_bits(reduction):
    found = []
    for backward in (torch_overhead.unwrapped_backward, torch.Tensor.backward):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        seen = []
        network[0].weight.register_hook(lambda grad, seen=seen: seen.append(grad.clone()))
        loss = nn.functional.cross_entropy(
            network(torch.randn(6, 5)), torch.tensor([0, 1, 2, 0, 1, 2]), reduction=reduction
        )
        backward(loss)
        backward_again = network(torch.randn(6, 5)).sum()
        backward(backward_again)  # gradients add up
        found.append([parameter.grad for parameter in network.parameters()] + seen)
    assert len(found[0]) == 8
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_torch_that_keeps_its_engine_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.autograd, "Variable", object())
    x = torch.ones((), requires_grad=True)
    torch_overhead.unwrapped_backward(3 * x)
    assert x.grad == 3


def test_foreign_optimizers_and_hooks_are_left_alone():
    class Mine(torch.optim.SGD):
        pass

    parameter = nn.Parameter(torch.ones(1))
    mine, hooked = Mine([parameter], lr=0.1), torch.optim.SGD([parameter], lr=0.1)
    hooked.register_step_pre_hook(lambda *_: None)
    for optimizer in (mine, hooked):
        assert torch_overhead.unwrapped_step(optimizer) == optimizer.step


@pytest.mark.parametrize("words", ["optimizer=sgd", "optimizer=adam scheduler=onecycle grad_clip=1"])
def test_a_run_does_not_import_the_compiler(tmp_path, words):
    """It would cost every start two seconds and 150 MB; nor are other heavy libraries needed to train."""
    code = (
        "import sys; sys.argv[1:] = sys.argv[1].split()\n"
        "from bnexp.train import main\n"
        "try: main()\n"
        "except SystemExit as leave: assert not leave.code\n"
        "heavy = {'torch._dynamo', 'torch._inductor', 'sympy', 'torchvision', 'triton.compiler'}\n"
        "print(heavy & set(sys.modules))"
    )
    words += " epochs=1 model=conv_bn dataset.train_size=100 dataset.test_size=100"
    done = subprocess.run([sys.executable, "-c", code, words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
