"""Tiny models gain nothing from threads, and lose much where test workers share cores."""

import torch

torch.set_num_threads(1)
