"""Logits of any samples, in any number of processes."""

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from oligo_ad.inputs.loader import Loader


@torch.no_grad()
def predict(
    model: nn.Module, loader: Loader, samples: np.ndarray, batch_size: int, accelerator: Accelerator
) -> np.ndarray:
    """One logit for each of the samples, in their order; the same in every process."""
    model.eval()
    index, logit = [], []
    for parts in loader.whole(samples, batch_size):
        index.append(parts[0].index)
        logit.append(model(*parts))
    # Predictions are gathered, never averages: processes hold different samples.
    every_index, every_logit = accelerator.gather((torch.cat(index), torch.cat(logit)))
    found = np.full(int(samples.max()) + 1, np.nan)
    found[every_index.cpu().numpy()] = every_logit.float().cpu().numpy()
    return found[samples]
