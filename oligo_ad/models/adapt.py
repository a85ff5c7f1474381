"""Adapts any network with stages: frozen stages, LoRA, and recomputation to save memory."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from oligo_ad.config import AdaptConfig
from oligo_ad.errors import UserError
from oligo_ad.models.blocks import Attention
from oligo_ad.models.classifier import Network


def adapt(network: Network, config: AdaptConfig) -> None:
    """Choose the trained weights of a network, and whether its stages are recomputed.

    Raises:
        UserError: options that contradict each other or the network.
    """
    if config.frozen_stages is not None and config.lora_rank is not None:
        raise UserError(
            f"model.adapt.lora_rank={config.lora_rank} keeps all weights, so model.adapt.frozen_stages="
            f"{config.frozen_stages} has no use: leave one of them out."
        )
    if config.frozen_stages is not None:
        _freeze(network, config.frozen_stages)
    if config.lora_rank is not None:
        _add_low_rank(network, config.lora_rank, config.lora_alpha)
    if config.recompute:
        _recompute(network)


def _freeze(network: Network, n_stages: int) -> None:
    """Freeze the weights of the first stages. The running means of a batch norm in them are still updated."""
    if n_stages > len(network.stages):
        raise UserError(
            f"model.adapt.frozen_stages={n_stages}: the network has {len(network.stages)} stages, the "
            "embeddings among them."
        )
    for stage in network.stages[:n_stages]:
        stage.requires_grad_(False)


class LowRank(nn.Module):
    """LoRA: a weight that is kept, plus a trained product of low rank (Hu 2021).

    weight [out, in] → weight + scale x up [out, rank] x down [rank, in]; up starts as 0.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.down = nn.Parameter(torch.randn_like(weight[:rank]) * weight.shape[1] ** -0.5)
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down)


def _add_low_rank(network: Network, rank: int, alpha: float) -> None:
    """Keep all weights, and train additions to those of attention; to all layers where there is none."""
    places = _places(network)
    if not places:
        raise UserError(f"model.adapt.lora_rank={rank}: the network has no layer to add to.")
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for module, name in places:
        weight = getattr(module, name)
        if rank > min(weight.shape):
            raise UserError(f"model.adapt.lora_rank={rank} is more than the width {min(weight.shape)}.")
        parametrize.register_parametrization(module, name, LowRank(weight, rank, alpha / rank))


def _places(network: Network) -> list[tuple[nn.Module, str]]:
    """The weights to which products are added: modules, and names of their parameters."""
    modules = [module for stage in network.stages for module in stage.modules()]
    attention = [module for module in modules if isinstance(module, Attention)]
    if not attention:
        return [(module, "weight") for module in modules if isinstance(module, nn.Linear)]
    pairs = ([(module, "in_proj_weight"), (module.out_proj, "weight")] for module in attention)
    return [place for pair in pairs for place in pair]


def _recompute(network: Network) -> None:
    """Keep only the inputs of stages, and compute the stages again in the backward pass.

    Not the last one: its backward pass comes first, when all that it has computed is still needed.
    """
    if not network.stages:
        raise UserError("model.adapt.recompute=true: the network has no stages. Leave it out.")
    network.can_compile = False
    for stage in network.stages[:-1]:
        # On the instance, as `partial`: parameters keep their names, and a deep copy calls its own stages.
        vars(stage)["forward"] = partial(_recomputed, network, stage)


def _recomputed(network: Network, stage: nn.Module, *inputs: Any) -> Any:
    forward = partial(type(stage).forward, stage)
    if not (network.training and torch.is_grad_enabled()):
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, stage))


def _contexts(stage: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The context of the forward pass, and that of its repetition in the backward pass."""
    return nullcontext(), _keeping_statistics(stage)


@contextmanager
def _keeping_statistics(stage: nn.Module) -> Iterator[None]:
    """Leave running means as they are: the first forward pass has updated them."""
    before = [buffer.clone() for buffer in stage.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(stage.buffers(), before, strict=True):
            buffer.data.copy_(value)
