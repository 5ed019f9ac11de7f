"""torch's own optimizer step and backward pass, without the wrappers: the same bits, and the same hooks."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

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
def test_unwrapped_steps_give_the_same_bits(kind, keys):
    states = []
    for is_unwrapped in (True, False):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        optimizer = kind(network.parameters(), **keys)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        step = torch_overhead.unwrapped_step(optimizer) if is_unwrapped else optimizer.step
        assert (step is not optimizer.step) == is_unwrapped
        for _ in range(5):
            optimizer.zero_grad()
            network(torch.randn(6, 5)).square().sum().backward()
            step()
            scheduler.step()  # it warns if it has not seen the step
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_unwrapped_backward_pass_gives_the_same_bits(reduction):
    results = []
    for backward in (torch_overhead.unwrapped_backward, torch.Tensor.backward):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        hook_gradients = []
        network[0].weight.register_hook(lambda grad, copies=hook_gradients: copies.append(grad.clone()))
        loss = nn.functional.cross_entropy(
            network(torch.randn(6, 5)), torch.tensor([0, 1, 2, 0, 1, 2]), reduction=reduction
        )
        backward(loss)
        second_loss = network(torch.randn(6, 5)).sum()
        backward(second_loss)  # gradients accumulate
        results.append([parameter.grad for parameter in network.parameters()] + hook_gradients)
    assert len(results[0]) == 8
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_users_own_optimizer_keeps_its_step():
    class UsersSgd(torch.optim.SGD):
        pass

    optimizer = UsersSgd([nn.Parameter(torch.ones(1))], lr=0.1)
    assert torch_overhead.unwrapped_step(optimizer) == optimizer.step


def pre_hook(optimizer, calls):
    return optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))


def post_hook(optimizer, calls):
    return optimizer.register_step_post_hook(lambda *_: calls.append("post"))


def global_hook(optimizer, calls):
    return register_optimizer_step_post_hook(lambda *_: calls.append("global"))


@pytest.mark.parametrize("register", [pre_hook, post_hook, global_hook])
def test_optimizer_hooks_run_though_they_are_registered_after_the_step_was_unwrapped(register):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    step, calls = torch_overhead.unwrapped_step(optimizer), []
    step()
    handle = register(optimizer, calls)
    step()
    handle.remove()
    step()
    assert len(calls) == 1


@pytest.mark.parametrize("overrides", ["optimizer=sgd", "optimizer=adam scheduler=onecycle grad_clip=1"])
def test_a_run_does_not_import_the_compiler(tmp_path, overrides):
    """The compiler would cost every start two seconds and 150 MB; training needs no other heavy library."""
    code = (
        "import sys; sys.argv[1:] = sys.argv[1].split()\n"
        "from bnexp.train import main\n"
        "try: main()\n"
        "except SystemExit as error: assert not error.code\n"
        "heavy = {'torch._dynamo', 'torch._inductor', 'sympy', 'torchvision', 'triton.compiler'}\n"
        "print(heavy & set(sys.modules))"
    )
    overrides += " epochs=1 model=conv_bn dataset.train_size=100 dataset.test_size=100"
    done = subprocess.run(
        [sys.executable, "-c", code, overrides], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
