"""One descent: from its configuration to its path."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from bnexp.compute.torch_overhead import unwrapped_step
from bnexp.config.instantiate import instantiate
from bnexp.descent.functions import Point, make_function
from bnexp.descent.newton import SingularHessian
from bnexp.descent.regression import ByHand, Regression, descend_by_hand
from bnexp.descent.settings import DescentConfig
from bnexp.errors import UserError, bad_value
from bnexp.seeding import generator, seed_global
from bnexp.signals import StopSignal
from bnexp.training import components
from bnexp.training.blame import blamed_on
from bnexp.training.schedule import Schedule

EXAMPLES_PER_ROW = 100  # of regression, between two rows of the path


class Objective(Protocol):
    """What is minimised. A point is a tensor (d,) of float64, with an element for each variable."""

    @property
    def variables(self) -> tuple[str, ...]: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def loss(self, point: Tensor, step: int) -> Tensor: ...

    def value(self, point: Tensor) -> Tensor: ...

    def minimum(self, point: Point) -> Point | None: ...


@dataclass(frozen=True)
class PathRow:
    """One point of a path, after ``step`` steps. ``seconds`` are those of the steps alone."""

    step: int
    epoch: float  # passes over the examples; of a plain function the same as ``step``
    seconds: float
    lr: float  # of the step that led here; in the first row that of the first step
    value: float
    gradient_norm: float  # without noise
    point: Point

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, (self.value, self.gradient_norm, *self.point)))


@dataclass(frozen=True)
class DescentPath:
    """A descent that has ended. Only the last row may have a number that is not finite."""

    objective: Objective
    rows: tuple[PathRow, ...]
    hessian: tuple[float, ...]  # the eigenvalues of the Hessian at the last finite point, in rising order
    is_stochastic: bool = False  # whether the gradient has noise, or is that of a batch
    interrupted: bool = False
    by_hand: ByHand | None = None

    @property
    def finite_rows(self) -> tuple[PathRow, ...]:
        return self.rows if self.rows[-1].is_finite else self.rows[:-1]

    @property
    def last(self) -> PathRow:
        """The last point that is finite."""
        return self.finite_rows[-1]


class Variables(nn.Module):
    """The point as the only parameter of a network: the optimizers are built as those of training."""

    def __init__(self, start: Point) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor(start, dtype=torch.float64))


class Descent:
    """A descent that is ready to start. Building it raises UserError for everything that is wrong before."""

    def __init__(self, config: DescentConfig) -> None:
        self.config = config
        self.objective = make_objective(config)
        count = len(self.objective.variables)
        self.start = config.start or (0.0,) * count
        if len(self.start) != count:
            names = ", ".join(self.objective.variables)
            plural = "numbers" if count > 1 else "number"
            is_own = not str(config.function.target).startswith("bnexp.")
            hint = (
                f"; a key is no variable once it is set: +function.{names.split()[-1]}=..." if is_own else ""
            )
            raise bad_value("start", self.start, f"must have {count} {plural}, for {names}{hint}")
        per_epoch = self.objective.steps_per_epoch
        self.steps = config.steps if config.epochs is None else config.epochs * per_epoch
        network = Variables(self.start)
        self.point = network.point
        seed_global(config.seed, "components")  # a user's own optimizer may draw when it is built
        self.optimizer = components.optimizer_of(config.optimizer, network)
        self._optimizer_step = unwrapped_step(self.optimizer)
        self.schedule: Schedule = components.schedule_of(
            config.scheduler, self.optimizer,
            epochs=-(-self.steps // per_epoch), steps_per_epoch=per_epoch,
        )  # fmt: skip
        row = self._row(0, 0.0)
        if not row.is_finite:
            part = "gradient" if math.isfinite(row.value) else "value"
            number = row.gradient_norm if math.isfinite(row.value) else row.value
            raise bad_value("start", self.start, f"the function's {part} is not finite there ({number})")

    def run(self, stop: StopSignal | None = None) -> DescentPath:
        """Takes the steps. It ends early at a number that is not finite, and after a stop signal.

        Raises UserError where a step cannot be taken.
        """
        rows, rates, seconds = [self._row(0, 0.0)], [], 0.0
        interrupted = False
        for step in range(self.steps):
            if interrupted := stop is not None and stop.received is not None:
                if rows[-1].step != step:
                    rows.append(self._row(step, seconds))
                break
            rates.append(self._lr)
            begin = time.perf_counter()
            self._take_step(step)
            seconds += time.perf_counter() - begin
            is_epoch_end = (step + 1) % self.objective.steps_per_epoch == 0
            if self._is_recorded(step + 1) or is_epoch_end:
                rows.append(self._row(step + 1, seconds))
                if not rows[-1].is_finite:
                    break
                self._advance_schedule(rows[-1].value, is_epoch_end)
            else:
                self.schedule.after_step()
        by_hand = self._by_hand(rates) if rows[-1].is_finite and not interrupted else None
        last = rows[-1] if rows[-1].is_finite else rows[-2]
        is_stochastic = self.config.noise > 0 or self.objective.steps_per_epoch > 1
        return DescentPath(
            self.objective, tuple(rows), self._eigenvalues(last.point), is_stochastic, interrupted, by_hand
        )

    @property
    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _take_step(self, step: int) -> None:
        needs_hessian = getattr(self.optimizer, "needs_hessian", False)
        noise = None
        if self.config.noise:
            numbers = generator(self.config.seed, "noise", step)
            noise = self.config.noise * torch.randn(self.point.shape, generator=numbers, dtype=torch.float64)

        def closure() -> Tensor:
            loss = self.objective.loss(self.point, step)
            (gradient,) = torch.autograd.grad(loss, self.point, create_graph=needs_hessian)
            self.point.grad = gradient if noise is None else gradient + noise
            return loss

        try:
            with blamed_on(f"optimizer._target_={self.config.optimizer.target}", f"step {step + 1} fails"):
                self._optimizer_step(closure)
        except SingularHessian as error:
            place = ", ".join(f"{coordinate:.6g}" for coordinate in self.point.tolist())
            raise SingularHessian(f"{error} (step {step + 1}, at {place})") from None

    def _advance_schedule(self, value: float, is_epoch_end: bool) -> None:
        self.schedule.after_step()
        if is_epoch_end:
            self.schedule.after_epoch({"val/loss": value, "train/loss": value})

    def _is_recorded(self, step: int) -> bool:
        """Whether the path has a row after ``step`` steps: each, of regression one for 100 examples."""
        if step == self.steps or not isinstance(self.objective, Regression):
            return True
        after, before = (self.objective.examples_after(number) for number in (step, step - 1))
        return after // EXAMPLES_PER_ROW > before // EXAMPLES_PER_ROW

    def _row(self, step: int, seconds: float) -> PathRow:
        point = self.point.detach().clone().requires_grad_()
        value = self.objective.value(point)
        gradient = _gradient(value, point, self.config)
        epoch = step / self.objective.steps_per_epoch
        norm = float(gradient.norm())
        return PathRow(step, epoch, seconds, self._lr, value.item(), norm, tuple(point.tolist()))

    def _eigenvalues(self, point: Point) -> tuple[float, ...]:
        """Those of the objective's Hessian; empty where it has none or it is not finite."""
        try:
            hessian = torch.autograd.functional.hessian(
                self.objective.value, torch.tensor(point, dtype=torch.float64)
            )
            return tuple(torch.linalg.eigvalsh(hessian).tolist()) if hessian.isfinite().all() else ()
        except RuntimeError:  # a user's own function that can be differentiated only once
            return ()

    def _by_hand(self, rates: list[float]) -> ByHand | None:
        """The same descent with numpy, for plain gradient descent on regression."""
        keys = self.config.optimizer.keys
        is_plain = self.config.optimizer.target == "torch.optim.SGD" and not any(
            keys.get(name) for name in ("momentum", "nesterov", "weight_decay", "dampening", "maximize")
        )
        if not (is_plain and isinstance(self.objective, Regression)) or self.config.noise:
            return None
        return descend_by_hand(self.objective, self.start, rates)


def _gradient(value: Tensor, point: Tensor, config: DescentConfig) -> Tensor:
    """The gradient (d,). Raises UserError for a user's own function that leaves autograd."""
    if not value.requires_grad:
        raise UserError(
            f"function._target_={config.function.target}: its value does not depend on its arguments as"
            " tensors, so it has no gradient; compute with torch"
        )
    (gradient,) = torch.autograd.grad(value, point)
    return gradient


def make_objective(config: DescentConfig) -> Objective:
    """The function, or the regression. Raises UserError for a key that it does not take."""
    if not config.is_regression:
        return make_function(config.function)
    regression: Regression = instantiate(
        config.function, {"batch_size": config.batch_size, "seed": config.seed}
    )
    return regression
