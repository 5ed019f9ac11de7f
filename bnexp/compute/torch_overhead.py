"""torch's optimizers and backward pass without torch's compiler.

torch.optim imports the compiler (torch._dynamo: 2 s and 150 MB at every start) only to be left alone by it,
and calls it twice a step to the same end. Nothing here compiles an optimizer, so the plain functions below
the wrappers do, bit for bit, in less time. An optimizer from elsewhere is used as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

_WRAPPED_METHODS = ("add_param_group", "state_dict", "load_state_dict")


def skip_compiler_import() -> None:
    """Call it before an optimizer is built. Where a torch wraps its methods otherwise, it does nothing."""
    for name in _WRAPPED_METHODS:
        plain = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)  # what torch would ask the compiler for


def unwrapped_step(optimizer: Optimizer) -> Callable[[], object]:
    """``optimizer.step`` without its wrappers; itself where it is not one of torch's own or has hooks."""
    own = type(optimizer).__module__.startswith("torch.optim.")
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if not own or hooks or optimizer.defaults.get("differentiable"):
        return optimizer.step
    function = inspect.unwrap(type(optimizer).step)

    def step() -> None:
        with torch.no_grad():
            function(optimizer)
        optimizer._opt_called = True  # type: ignore[attr-defined]  # what schedulers look for

    return step


def unwrapped_backward(loss: Tensor) -> None:
    """``loss.backward()`` for a scalar, without what its wrappers look for.

    They ask for tensor subclasses, nested tensors, hooks that log and the compiler's context, which takes a
    tenth of a small network's step; the engine below them does the same either way. Not for a compiled
    network, which needs the context.
    """
    engine = getattr(torch.autograd.Variable, "_execution_engine", None)
    if engine is None:  # a torch that keeps it elsewhere
        loss.backward()
        return
    one = torch.ones_like(loss)
    engine.run_backward((loss,), (one,), False, False, (), allow_unreachable=True, accumulate_grad=True)
