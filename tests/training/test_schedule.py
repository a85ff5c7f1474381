"""Learning rates by optimizer step, as they are defined."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oligo_ad.training.schedule import constant, exponential, warmup_cosine

RATE = 0.2
Schedule = Callable[..., Any]


def shares(schedule: Schedule, steps: int, **options: float) -> list[float]:
    """The share of the full rate at each step, and after the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    made = schedule(optimizer, steps, **options)
    found = []
    for _ in range(steps + 1):
        found.append(made.get_last_lr()[0] / RATE)
        optimizer.step()
        made.step()
    return found


@given(st.integers(20, 200), st.sampled_from([0.0, 0.05, 0.1, 0.5]))
@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        (constant, lambda share: 1.0),
        (warmup_cosine, lambda share: (1 + math.cos(math.pi * share)) / 2),
    ],
)
def test_the_rate_rises_in_equal_steps_to_the_full_one_and_then_follows_its_curve(
    schedule: Schedule, after: Callable[[float], float], steps: int, warmup: float
) -> None:
    found, n_warm = shares(schedule, steps, warmup=warmup), round(steps * warmup)
    assert found[:n_warm] == pytest.approx([(step + 1) / (n_warm + 1) for step in range(n_warm)])
    assert found[n_warm] == pytest.approx(1)
    left = steps - n_warm
    assert found[n_warm:] == pytest.approx([after(step / left) for step in range(left + 1)], abs=1e-9)


@given(st.integers(20, 200), st.sampled_from([0.1, 0.35, 1.0]))
def test_the_exponential_rate_loses_the_same_share_in_each_step(steps: int, final: float) -> None:
    found, n_warm = shares(exponential, steps, final=final), round(steps * 0.05)
    assert found[-1] == pytest.approx(final)
    ratios = [later / earlier for earlier, later in zip(found[n_warm:], found[n_warm + 1 :], strict=False)]
    assert ratios == pytest.approx([final ** (1 / steps)] * len(ratios))


@pytest.mark.parametrize(
    "schedule", [warmup_cosine, partial(warmup_cosine, warmup=0.5), exponential, constant]
)
@given(steps=st.integers(1, 50))
def test_no_rate_is_zero_before_the_end_or_above_the_full_one(schedule: Schedule, steps: int) -> None:
    assert all(0 < share <= 1 + 1e-9 for share in shares(schedule, steps)[:-1])
