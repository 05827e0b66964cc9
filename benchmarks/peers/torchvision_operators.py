"""Lets torchvision of the package index start beside torch's CPU build; import it first.

Its compiled operators are linked against CUDA, which that build lacks, and without them it stops at
once, for want of some that no classifier of pictures uses.
"""

import importlib.util
from pathlib import Path

import torch


def declare_missing() -> None:
    """Declare the operators that torchvision insists on, where its own cannot be loaded."""
    folder = Path(importlib.util.find_spec("torchvision").origin).parent
    try:
        torch.ops.load_library(folder / "_C.so")
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        declared.append(library)


declared: list[torch.library.Library] = []  # forgotten, it would take its operators along
declare_missing()
