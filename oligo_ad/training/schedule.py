"""Learning rate schedules: functions of the optimizer step alone, whatever the number of processes."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: float = 0.05) -> LambdaLR:
    """Linear warm-up over a share of all steps, then a cosine down to 0 (Loshchilov 2017)."""
    n_warm = round(steps * warmup)

    def factor(step: int) -> float:
        after = (step - n_warm) / max(1, steps - n_warm)
        return (step + 1) / (n_warm + 1) if step < n_warm else 0.5 * (1 + math.cos(math.pi * after))

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, steps: int, warmup: float = 0.0) -> LambdaLR:
    """Linear warm-up over a share of all steps, then the full rate."""
    n_warm = round(steps * warmup)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (n_warm + 1)))


def exponential(optimizer: Optimizer, steps: int, final: float = 0.35, warmup: float = 0.05) -> LambdaLR:
    """Linear warm-up over a share of all steps, then a steady decline to the share `final` of the rate."""
    n_warm = round(steps * warmup)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (n_warm + 1)) * final ** (step / steps))
