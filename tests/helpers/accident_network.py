"""A user's network whose training can be slow, and whose process can have an accident."""

# If the file "accident" exists, the first job that reaches its third training step, the first of the second
# epoch, sends its own process the signal whose number is in the file; the file is then renamed. A step takes
# ``pause`` seconds more, and one second more where the file "slow" exists.
NETWORK = """
import os
import time
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_channels, image_size, num_classes, width: int, pause: float = 0.0):
        if width < 1:
            raise ValueError("no width")
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, width), nn.BatchNorm1d(width),
                         nn.Linear(width, num_classes))
        self.steps, self.pause = 0, pause

    def forward(self, images):
        self.steps += self.training
        time.sleep(self.pause + (self.training and Path("slow").exists()))
        if self.steps == 3 and self.training and Path("accident").exists():
            try:
                file = Path("accident").rename(f"accident-{os.getpid()}")
            except FileNotFoundError:
                return super().forward(images)
            os.kill(os.getpid(), int(file.read_text()))
        return super().forward(images)
"""
