"""Beside a CPU build of torch, PyPI's torchvision stops at operators that its library would have brought.

Nothing here calls them: it is enough that they are declared.
"""

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
