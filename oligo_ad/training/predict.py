"""Logits of any nuclei, in any number of processes, and the attention kernel that computed them."""

import copy

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.profiler import ProfilerActivity, profile

from oligo_ad.inputs.batch import Batch
from oligo_ad.inputs.loader import Loader


@torch.no_grad()
def predict(
    model: nn.Module, loader: Loader, rows: np.ndarray, batch_size: int, accelerator: Accelerator
) -> np.ndarray:
    """One logit for each of the rows, in their order; the same in every process."""
    model.eval()
    index, logit = [], []
    for batch in loader.by_donor(rows, batch_size):
        index.append(batch.index)
        logit.append(model(batch))
    # Predictions are gathered, never averages: processes hold different cells.
    every_index, every_logit = accelerator.gather((torch.cat(index), torch.cat(logit)))
    found = np.full(int(rows.max()) + 1, np.nan)
    found[every_index.cpu().numpy()] = every_logit.float().cpu().numpy()
    return found[rows]


def attention_kernels(model: nn.Module, batch: Batch) -> list[str]:
    """Which scaled-dot-product kernels run in a training step, as the profiler saw them.

    Empty for a network without attention. The model itself is left alone.
    """
    trial = copy.deepcopy(model).train()
    with torch.random.fork_rng(), profile(activities=[ProfilerActivity.CPU]) as seen:
        trial(batch)
    prefix = "aten::_scaled_dot_product_"
    names = {event.key for event in seen.key_averages() if event.key.startswith(prefix)}
    return sorted(name.removeprefix(prefix) for name in names)
