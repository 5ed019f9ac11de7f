"""How many seeds are worth training together."""

from __future__ import annotations

from bnexp.models.summary import Summary

# Several small networks in one step save the time between operations. Large ones fill a core each, and
# several of them no longer fit its cache. Images/s of R networks over those of one, on one thread of an
# AVX-512 processor, medians of 3 (mlp: of 9), with the forward MFLOP of a batch in brackets. The first three
# lines are of ``scripts/benchmark.py fused``, the others of the bare step with batch 32.
#     mlp with batch norm (10)          R=2: 0.94   R=4: 0.96   R=8: 1.2    R=16: 1.4
#     conv with batch norm (37)         R=2: 1.3    R=4: 1.5    R=8: 1.4    R=16: 1.4
#     lenet with batch norm (36)        R=2: 1.2    R=4: 1.3    R=8: 1.1    R=16: 1.3
#     resnet widths 8, 16 (148)         R=2: 1.4    R=4: 1.5    R=8: 1.2
#     densenet growth 8 (298)           R=2: 1.6    R=4: 1.5    R=8: 1.2
#     resnet widths 16, 32, 64 (800)    R=2: 1.2    R=4: 1.0    R=8: 0.95
#     resnet widths 64, 128 (8,703)     R=2: 1.1    R=4: 1.0    R=8: 0.7
STEP_FLOPS = 1e9  # forward, of all networks together
# Weights, gradients and Adam's two moments: a bound on what large layers with small batches need.
WEIGHT_BYTES = 1 << 30
BYTES_PER_PARAMETER = 16


def replicas_for(summary: Summary, batch_size: int, limit: int) -> int:
    """How many seeds of a network gain by being trained together, from 1 to ``limit``.

    The answer depends on the network and the batch size alone: a resumed unit has the size that it had.
    """
    by_work = STEP_FLOPS // max(1, summary.flops * batch_size)
    by_memory = WEIGHT_BYTES // max(1, BYTES_PER_PARAMETER * summary.parameters)
    return max(1, min(limit, int(by_work), int(by_memory)))
