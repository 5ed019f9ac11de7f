"""The commands that Hydra configures: where their keys are in ``conf``, and the texts of their --help."""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CONF = Path(str(importlib.resources.files("bnexp.conf")))


@dataclass(frozen=True)
class HydraCommand:
    """A command and its configuration: the file ``config.yaml`` of ``config_module``, and its groups.

    ``folders`` are searched in this order for the choices of a group. The groups ``listed`` are presets or
    functions: --help has a line for each of their choices.
    """

    name: str
    title: str
    config_module: str
    folders: tuple[Path, ...]
    groups: tuple[str, ...]
    listed: tuple[str, ...]
    examples: str
    footer: str

    @property
    def config_file(self) -> Path:
        return self.folders[0] / "config.yaml"

    @cached_property
    def defaults(self) -> dict[str, str]:
        """The choice of each group where the user makes none."""
        text = self.config_file.read_text(encoding="utf-8")
        return dict(re.findall(r"^  - (\w+): (\w+)$", text, re.MULTILINE))

    def choices(self, group: str) -> list[str]:
        """The names that a group can be set to."""
        return sorted({path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")})

    def file(self, group: str, name: str) -> Path:
        """The YAML file of a choice."""
        paths = (folder / group / f"{name}.yaml" for folder in self.folders)
        return next(path for path in paths if path.exists())


TRAIN = HydraCommand(
    name="bnexp",
    title="bnexp: does this normalisation, optimiser or learning rate help, and how sure are we?",
    config_module="bnexp.conf",
    folders=(CONF,),
    groups=("model", "dataset", "optimizer", "scheduler", "loss", "device", "experiment"),
    listed=("experiment",),
    examples="""\
  bnexp                                                     a first run on embedded data
  bnexp model=conv_bn dataset=mnist epochs=5                one network on MNIST
  bnexp model=resnet model.norm=group dataset=cifar10 'dataset.augment=[flip,crop]'
  bnexp -m model=conv,conv_bn dataset=mnist seed=0,1,2,3,4  a sweep, then its verdict
  bnexp -m experiment=mnist_mlp model.norm=none,batch seed=auto  as many seeds as it takes
""",
    footer="""\
To set a key that is not listed, write a plus before it: +model.width=64.
To set a list, write brackets inside quotes: 'model.hidden=[200,200]'.
[a, b] behind a key: only these choices of the group have it.
-m runs one job for each combination of comma-separated values. An interval is tuned for each
group: 'optimizer.lr=interval(0.001,10)'.
--cfg job prints the configuration and runs nothing.
--config-dir DIR adds a folder with groups of your own.
Shell completion: eval "$(bnexp -sc install=bash)".
Other commands: bnexp-compare DIR..., bnexp-eval RUN_DIR, bnexp-plan, bnexp-resume DIR,
bnexp-watch DIR, bnexp-list, bnexp-descend.
Hydra's own flags: bnexp --hydra-help.\
""",
)

DESCEND = HydraCommand(
    name="bnexp-descend",
    title="bnexp-descend: the path of an optimiser on a function that one can see.",
    config_module="bnexp.conf.descent",
    folders=(CONF / "descent", CONF),
    groups=("function", "optimizer", "scheduler"),
    listed=("function",),
    examples="""\
  bnexp-descend                                         gradient descent on an ellipse
  bnexp-descend function=square start=10 steps=10 optimizer.lr=1.1
  bnexp-descend -m optimizer=sgd,momentum,adam,newton   four paths in one picture, and their ranking
  bnexp-descend -m function=square start=10 optimizer.lr=0.05,0.2,1.1
  bnexp-descend -m function=regression batch_size=442,10,1 epochs=6 optimizer.lr=0.005
""",
    footer="""\
A function of your own: function=custom function._target_=myfunctions.f 'start=[1,2]', where
myfunctions.py in the current folder has def f(x1, x2): it computes with tensors.
An epoch is one step, and of regression one pass over the examples.
To set a key that is not listed, write a plus before it: +function.width=64.
[a, b] behind a key: only these choices of the group have it.
-m runs one descent for each combination of comma-separated values.
--cfg job prints the configuration and runs nothing.
--config-dir DIR adds a folder with groups of your own.
Shell completion: eval "$(bnexp-descend -sc install=bash)".
Hydra's own flags: bnexp-descend --hydra-help.\
""",
)
