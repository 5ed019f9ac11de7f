"""Losses that torch doesn't have."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OneHotMSE(nn.Module):
    """Mean squared error between logits and one-hot targets, over all N·K of them.

    1/(N·K) · sum over n, k of (logits[n, k] - [k = targets[n]])²
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (N, K) and classes (N,), int64 from 0 to K - 1 -> a scalar.

        Raises RuntimeError, on the CPU, for a class outside that range.
        """
        # Not F.one_hot: it reads the targets' range on the host first.
        one_hot = torch.zeros_like(logits).scatter_(1, targets.unsqueeze(1), 1.0)
        return F.mse_loss(logits, one_hot)
