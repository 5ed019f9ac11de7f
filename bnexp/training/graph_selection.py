"""Whether a run's step is a CUDA graph: what prevents one, and a trial of its losses and its speed."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor

from bnexp.compute.device import graph_obstacle
from bnexp.config.schema import Config
from bnexp.data import Split
from bnexp.errors import bad_value, one_line
from bnexp.seeding import seed_global
from bnexp.training.cuda_graph import WARM_UP_STEPS, CudaGraphTrainer, is_capturable, make_capturable
from bnexp.training.metrics import StepOutput
from bnexp.training.trainer import Trainer

log = logging.getLogger(__name__)

TIMED_STEPS = 20
TOLERANCE = 1e-3  # relative, for the loss of each step: a GPU may sum in another order at every launch

TrainerFactory = Callable[[], Trainer]


def with_cuda_graph(
    config: Config, trainer: Trainer, split: Split, used_before: bool | None = None
) -> Trainer:
    """``trainer``, or one that takes its steps on ``split`` as CUDA graphs, as ``device.graphs`` says.

    ``used_before``: whether the run that this one continues used a graph; None for a new run. Raises
    UserError if ``device.graphs`` is true and no graph is possible.
    """
    if not _wants_graph(config, trainer, split, used_before):
        return trainer
    make_capturable(trainer.optimizer)
    return CudaGraphTrainer(trainer, split, config.batch_size)


def _wants_graph(config: Config, trainer: Trainer, split: Split, used_before: bool | None) -> bool:
    if config.device.graphs is False:
        return False
    reason = graph_obstacle(trainer.device.torch_device, config.device) or _step_obstacle(config, trainer)
    if config.device.graphs is True:
        if reason is not None:
            raise bad_value("device.graphs", "true", reason)
        return True
    if (
        reason is not None or config.device.deterministic
    ):  # times differ from run to run, so they must not choose between two roundings
        return False
    if used_before is not None:
        return used_before
    return _is_known_code(trainer) and _wins_trial(config, trainer, split)


def _step_obstacle(config: Config, trainer: Trainer) -> str | None:
    """Why this trainer's step cannot be a graph; None if it can."""
    if trainer.processes.is_distributed:
        return "a graph is one process's; torchrun's talk to each other within a step"
    if getattr(trainer.schedule.scheduler, "cycle_momentum", False):
        return "this scheduler moves the momentum too, which a graph holds; +scheduler.cycle_momentum=false"
    if not is_capturable(trainer.optimizer):
        target = config.optimizer.target
        return f"optimizer._target_={target} can't run inside a graph; SGD and those with capturable can"
    return None


def _is_known_code(trainer: Trainer) -> bool:
    """Whether all modules are torch's or bnexp's. A graph runs Python once; other code may not allow it."""
    components = [*trainer.model.modules(), *trainer.loss.modules(), trainer.optimizer]
    packages = {type(component).__module__.split(".")[0] for component in components}
    return packages <= {"torch", "torchvision", "bnexp"}


def _wins_trial(config: Config, trainer: Trainer, split: Split) -> bool:
    """Whether a trial on copies finds the graph's losses the same and the graph faster."""

    def copy_trainer() -> Trainer:
        model, optimizer = copy.deepcopy((trainer.model, trainer.optimizer))
        make_capturable(optimizer)  # the same kernels in both: only the launches differ
        return Trainer(
            model, trainer.loss, optimizer, trainer.device, l1=trainer.l1, grad_clip=trainer.grad_clip
        )

    def graph_trainer() -> Trainer:
        return CudaGraphTrainer(copy_trainer(), split, config.batch_size)

    wins, reason = graph_is_faster(copy_trainer, graph_trainer, split, config.batch_size)
    log.info(f"{config.name}: {'one CUDA graph a step' if wins else 'no CUDA graph'}: {reason}")
    return wins


def graph_is_faster(
    make_plain: TrainerFactory, make_graphed: TrainerFactory, split: Split, batch_size: int
) -> tuple[bool, str]:
    """Whether the graphed trainer gives the losses of the plain one in less time; and the reason in words.

    Both must start from the same weights. Where several batches are gathered in one go, the plain trainer's
    may be gathered before the clock starts: the comparison then favours it a little.
    """
    try:
        # The first trainer is freed before the second is made: both may not fit the memory.
        plain_losses, plain_s = time_steps(make_plain(), split, batch_size)
        losses, graphed_s = time_steps(make_graphed(), split, batch_size)
    except Exception as error:  # of any kind; if plain steps have it too, the run will report it
        return False, f"it can't be recorded ({one_line(error)[:200] or type(error).__name__})"
    if not torch.allclose(losses, plain_losses, rtol=TOLERANCE, atol=0.0, equal_nan=True):
        return False, "it gives other losses"
    speed_up = plain_s / graphed_s
    return speed_up > 1, f"{speed_up:.2g} x as fast in a trial of {TIMED_STEPS} steps"


def time_steps(trainer: Trainer, split: Split, batch_size: int) -> tuple[Tensor, float]:
    """The losses of some steps, and the seconds of the last ``TIMED_STEPS`` of them.

    An epoch's last batch is trained before and after: it may be of another size, which needs another
    search for the fastest kernels, and memory beside the graph's.
    """
    seed_global(0, "trial")
    last_batch, step_count = split.steps(batch_size) - 1, WARM_UP_STEPS + 1 + TIMED_STEPS
    losses: list[Tensor] = []

    def train_steps(epoch: int, first: int, count: int) -> None:
        outputs: list[StepOutput] = []
        for batch in islice(split.epoch(batch_size, 0, epoch, first), count):
            if len(losses) + len(outputs) == 1 + step_count - TIMED_STEPS:
                trainer.device.synchronize()
                starts.append(time.perf_counter())
            outputs.append(trainer.step(batch))
        losses.extend(output.loss.clone() for output in outputs)  # a graph's next epoch overwrites them

    starts: list[float] = []
    train_steps(epoch=0, first=last_batch, count=1)
    epoch = 0
    while len(losses) < 1 + step_count:
        epoch += 1
        train_steps(epoch, first=0, count=1 + step_count - len(losses))
    trainer.device.synchronize()
    seconds = time.perf_counter() - starts[0]
    train_steps(epoch, first=last_batch, count=1)
    return torch.stack(losses), seconds
