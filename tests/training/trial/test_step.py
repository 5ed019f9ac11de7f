"""A step and an evaluation: what fails in them is one line with the key of its part."""

from __future__ import annotations

import pytest

MODULE = '''
class LateLayer(Net):
    """Makes a layer in its first forward pass."""

    def forward(self, images):
        logits = super().forward(images)
        if not hasattr(self, "head"):
            self.head = nn.Linear(logits.shape[1], logits.shape[1])
        return self.head(logits)


class TupleInEval(Net):
    def forward(self, images):
        logits = super().forward(images)
        return logits if self.training else (logits, images)


class TupleInTraining(Net):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class LayersInAList(nn.Module):
    def __init__(self, in_channels, image_size, num_classes, frozen: bool = False):
        super().__init__()
        self.layers = [nn.Linear(in_channels * image_size**2, 8)]
        self.layers[0].requires_grad_(not frozen)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        return self.head(self.layers[0](images.flatten(1)))


OUTSIDE = nn.Linear(10, 10)


class LayersElsewhere(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.parts = {"scale": [torch.ones(num_classes, requires_grad=True)]}

    def forward(self, images):
        return OUTSIDE(super().forward(images)) * self.parts["scale"][0]


class AlwaysTraining(Net):
    def train(self, mode=True):
        return super().train(True)


class Lazy(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))


class Detached(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.insert(1, nn.Linear(784, 784))

    def forward(self, images):
        return self[2](self[1](self[0](images)).detach())


class BatchStatistics(Net):
    def forward(self, images):
        return super().forward(images - images.mean(0))


class NoRunningStatistics(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes):
        norm = nn.BatchNorm2d(in_channels, track_running_stats=False)
        super().__init__(norm, nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


class HalfOfThem(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(list(params)[:1], lr=lr)


class NoLr(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        pass


class NoReturn(Net):
    """Methods that return nothing where torch's return the network."""

    def train(self, mode=True):
        super().train(mode)


class LayerNamedByAHook(Net):
    """A hook writes into a dictionary that a deep copy would have a copy of."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.outputs = outputs = {}
        self[1].register_forward_hook(lambda module, inputs, output: outputs.update(last=output))

    def forward(self, images):
        super().forward(images)
        return self.outputs["last"]


class OldWeightNorm(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        from torch.nn.utils import prune

        prune.l1_unstructured(self[1], "weight", 0.5)


class Lock(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        import threading

        self.lock = threading.Lock()


class InputInPlace(Net):
    def forward(self, images):
        return super().forward(images.mul_(2))


class InputInPlaceInEval(Net):
    def forward(self, images):
        return super().forward(images if self.training else images.mul_(2))


class Dictionary(Net):
    def forward(self, images):
        return {"logits": super().forward(images)}


class WithBlock(Net):
    def __init__(self, in_channels, image_size, num_classes, block=None):
        super().__init__(in_channels, image_size, num_classes)


class KeyInForward(Net):
    def forward(self, images):
        return {}["scale"]


class Lazily(Net):
    """Makes a tensor in its first evaluation, where torch forbids its later use in training."""

    scale = None

    def forward(self, images):
        if not self.training and self.scale is None:
            self.scale = torch.ones(1)
        logits = super().forward(images)
        return logits if self.scale is None else logits * self.scale


class NeedsSeveralImages(Net):
    """One image in a batch loses its dimension."""

    def forward(self, images):
        return super().forward(images).squeeze()


class Complex(Net):
    def __init__(self, in_channels, image_size, num_classes):
        super().__init__(in_channels, image_size, num_classes)
        self.filter = nn.Parameter(torch.ones(image_size, image_size // 2 + 1, dtype=torch.cfloat))

    def forward(self, images):
        return super().forward(torch.fft.irfft2(torch.fft.rfft2(images) * self.filter, s=images.shape[-2:]))


class CompleteBatches(nn.Module):
    """Works in training on batches of 11 images alone."""

    def forward(self, logits, labels):
        loss = nn.functional.cross_entropy(logits, labels, reduction="none")
        return (torch.eye(11) @ loss).mean() if self.training else loss.mean()

'''
MISTAKES = {
    "closure": (["optimizer=custom", "optimizer._target_=torch.optim.LBFGS"], "LBFGS: its step fails"),
    "sparse gradients": (
        ["optimizer=custom", "optimizer._target_=torch.optim.SparseAdam"], "SparseAdam: its step fails"
    ),
    "no lr": (["optimizer=custom", "optimizer._target_=mine.NoLr"], "have no lr"),
    "late layer": (["model._target_=mine.LateLayer"], "makes parameters in its first forward pass"),
    "tuple in eval": (["model._target_=mine.TupleInEval"], "gives a tuple in eval mode"),
    "tuple in training": (["model._target_=mine.TupleInTraining"], "gives no single tensor for 2 images"),
    "always in training": (["model._target_=mine.AlwaysTraining"], "stays in training mode after eval()"),
    "layers in a list": (
        ["model._target_=mine.LayersInAList"], "mine.LayersInAList: layers[0].weight, layers[0].bias would be"
    ),
    "layers elsewhere": (
        ["model._target_=mine.LayersElsewhere"], "LayersElsewhere: parts['scale'][0], a parameter (10, 10)"
    ),
    "lazy": (["model._target_=mine.Lazy"], "mine.Lazy: 1: lazy layers have no weights"),
    "some parameters": (
        ["optimizer=custom", "optimizer._target_=mine.HalfOfThem"], "leaves out 3 of 4 parameters, among them"
    ),
    "a key that no CPU supports": (
        ["optimizer=adam", "+optimizer.capturable=true"], "torch.optim.Adam: its step fails"
    ),
    "images in place": (["model._target_=mine.InputInPlace"], "InputInPlace: changes the images in place"),
    "images in place in eval mode": (
        ["model._target_=mine.InputInPlaceInEval"], "InputInPlaceInEval: changes the images in place"
    ),
    "a dictionary": (["model._target_=mine.Dictionary"], "gives no single tensor for 2 images"),
    "an error that is no shape": (
        ["model._target_=mine.KeyInForward"], "its forward pass fails (KeyError: 'scale'; mine.py, line"
    ),
    "a last batch of one image in an evaluation": (
        ["model._target_=mine.NeedsSeveralImages", "eval_batch_size=39"],
        "must give logits (1, 10) in eval mode, and gives (10,)",
    ),
    "a last batch that is not complete": (
        ["loss=custom", "loss._target_=mine.CompleteBatches", "batch_size=11", "dataset.val_size=0"],
        "mine.CompleteBatches: fails in training on 5 images, as the last batch of an epoch has",
    ),
    "a tensor of inference": (
        ["model._target_=mine.Lazily"],
        "mine.Lazily or optimizer._target_=torch.optim.SGD: the step after an evaluation fails",
    ),
    "a target inside a group": (
        ["model._target_=mine.WithBlock", "+model.block={_target_: torch.nn.Tanh}"],
        "model.block._target_=torch.nn.Tanh: only the _target_ of a group is built"
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(own_code, mistake):
    own_code(MODULE).assert_refused(*MISTAKES[mistake])


def test_a_frozen_layer_may_lie_in_a_list(own_code):
    own_code(MODULE).output("model._target_=mine.LayersInAList", "+model.frozen=true")


@pytest.mark.parametrize("name", ["NoReturn", "LayerNamedByAHook", "OldWeightNorm", "Lock", "Complex"])
def test_a_network_that_no_deep_copy_can_follow_is_trained(own_code, name):
    assert "Warning" not in own_code(MODULE).output(f"model._target_=mine.{name}", "optimizer=adam")


def test_a_network_whose_methods_return_nothing_is_evaluated(own_code):
    code = own_code(MODULE)
    code.output("model._target_=mine.NoReturn")
    result = code.commands.eval("run", "--trust", "mine.NoReturn")
    assert result.code == 0, result.err


def test_a_compiled_script_is_trained(own_code):
    source = """
def Script(in_channels, image_size, num_classes):
    import warnings
    warnings.simplefilter("ignore")  # torch advises against it
    return torch.jit.script(Net(in_channels, image_size, num_classes))
"""
    own_code(source).output("model._target_=mine.Script")


def test_parameters_without_a_gradient_are_told(own_code):
    output = own_code(MODULE).output("model._target_=mine.Detached")
    assert output.count("does not depend on 1.weight, 1.bias: the first step") == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "NoRunningStatistics",
            "mine.NoRunningStatistics: in eval mode an image has other logits in another",
        ),
        ("BatchStatistics", "mine.BatchStatistics: in eval mode an image has other logits in another batch"),
        ("ChangesInEval", "mine.ChangesInEval: evaluated changes in eval mode"),
    ],
)
def test_what_makes_an_evaluation_depend_on_others_is_told(own_code, name, line):
    code = own_code(MODULE)
    for network, count in ((name, 1), ("Net", 0)):
        output = code.output(f"model._target_=mine.{network}", folder=network)
        assert output.count(line.replace(name, network)) == count
