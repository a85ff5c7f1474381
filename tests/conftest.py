"""One thread: several on a busy machine wait for each other, and change the last bits of sums."""

import torch

torch.set_num_threads(1)
