"""Finds which attention kernel a training step runs, by watching PyTorch's dispatcher."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from oligo_ad.inputs.batch import Batch


def attention_kernels(model: nn.Module, batch: Batch) -> list[str]:
    """The scaled-dot-product kernels that a training step runs, as seen at PyTorch's dispatcher.

    Empty for a network without attention; `math` where no fused kernel would take the call. The model
    itself is left alone.
    """
    trial = copy.deepcopy(model).train()
    with torch.random.fork_rng(), _Calls() as calls, _Kernels() as watch:
        trial(batch)
    # What PyTorch computes by its own definition is dispatched as plain products.
    return sorted(watch.kernels) or ["math"] * calls.attention


class _Calls(TorchFunctionMode):
    """Records, while active, whether attention is called."""

    attention = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.attention |= func is scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


class _Kernels(TorchDispatchMode):
    """Records, while active, the attention kernels among all dispatched operations."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().removeprefix("aten::")
        if name.startswith("_scaled_dot_product_"):
            self.kernels.add(name.removeprefix("_scaled_dot_product_"))
        elif name == "torch_attn::_varlen_attn":
            self.kernels.add("varlen_attn (flash attention)")
        return func(*args, **(kwargs or {}))
