"""torch's optimizer step and backward pass without torch's wrappers.

``torch.optim`` imports torch's compiler (torch._dynamo: 2 s and 150 MB at every start) and calls it twice a
step, although nothing here compiles an optimizer. The functions below the wrappers give the same bits in less
time. ``python scripts/benchmark.py overhead`` measures what each saves; docs/performance.md has the table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

_WRAPPED_METHODS = ("add_param_group", "state_dict", "load_state_dict")


def skip_compiler_import() -> None:
    """Keeps ``torch.optim`` from importing the compiler. Call it before an optimizer is built.

    torch looks for the attribute ``__dynamo_disable`` on the plain method before it imports the compiler. If
    a torch release wraps its methods in another way, this function does nothing.
    """
    for name in _WRAPPED_METHODS:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            setattr(method, "__dynamo_disable", method)


def unwrapped_step(optimizer: Optimizer) -> Callable[..., object]:
    """``optimizer.step`` without its wrappers, for torch's own optimizers; ``optimizer.step`` for any other.

    Hooks run as usual, also those that are registered later: a step with hooks goes through the wrappers.
    Saves 11 % of the time of a bare step of MNIST's MLP, 2 to 7 % of its convolutional net.
    """
    is_from_torch = type(optimizer).__module__.startswith("torch.optim.")
    if not is_from_torch or optimizer.defaults.get("differentiable"):
        return optimizer.step
    update = inspect.unwrap(type(optimizer).step)

    def step(*closure: Callable[[], Tensor]) -> None:
        if _has_hooks(optimizer):
            optimizer.step(*closure)  # type: ignore[arg-type]
            return
        with torch.no_grad():
            update(optimizer, *closure)
        optimizer._opt_called = True  # type: ignore[attr-defined]  # schedulers warn if this is not set

    return step


def _has_hooks(optimizer: Optimizer) -> bool:
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
    )


def unwrapped_backward(loss: Tensor) -> None:
    """``loss.backward()`` for a scalar, without the checks of its wrappers.

    The wrappers look for tensor subclasses, nested tensors, logging hooks and the compiler's context. The
    engine below them does the same work either way, and runs the hooks of tensors and modules. Not for a
    compiled network, which needs the compiler's context. Saves 6 to 8 % of the time of a bare step of MNIST's
    MLP, 3 % of its convolutional net.
    """
    engine = torch.autograd.Variable._execution_engine
    gradient = torch.ones_like(loss)
    engine.run_backward((loss,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)
