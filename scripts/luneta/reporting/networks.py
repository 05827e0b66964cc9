"""What the sidecars tell of the networks of a survey, for figures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from luneta.config import HUB, Training
from luneta.training.course_recipe import applied

BUILT_IN = {"none": "random", "imagenet": "ImageNet", "pretrain": "pretrained in the workflow"}
ENDINGS = (".h5", ".weights", ".keras", ".safetensors")


@dataclass(frozen=True)
class Network:
    """The network of a task, and how it was trained; `labels` are those that fold 0 learned from.

    `epochs` counts those with the backbone frozen and those with it free, as asked for.
    """

    backbone: str
    weights: str
    parameters: int
    image_size: int
    precision: str
    epochs: tuple[int, int]
    label_fraction: float
    labels: int


def weights_name(weights: str) -> str:
    """Name the weights that training starts from: in words, or by their file."""
    if weights in BUILT_IN:
        return BUILT_IN[weights]
    name = PurePosixPath(weights.replace("\\", "/").removeprefix(HUB)).name
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return name


def _backbone_name(training: Training) -> str:
    width = f" (width {training.width:g})" if training.width != 1 else ""
    return training.backbone + width + (" (course recipe)" if training.course_recipe else "")


def described(sidecar: Mapping[str, Any]) -> Network:
    """Describe a network by its sidecar, the content of `models/{task}/fold0.json`."""
    training = applied(Training.model_validate(sidecar["training"]))
    return Network(
        _backbone_name(training),
        weights_name(training.weights),
        sidecar["parameters"],
        training.image_size or sidecar["cutout_size"],
        sidecar["precision"],
        (training.head_epochs, training.fine_tune_epochs),
        training.label_fraction,
        sidecar["objects"]["training"],
    )


def label_efficiency(networks: Mapping[str, Network]) -> dict[str, list[str]]:
    """Find tasks that differ in nothing shown but the number of their labels.

    Parameters
    ----------
    networks : mapping
        By task.

    Returns
    -------
    dict
        By backbone and weights in words, the tasks in the order of their labels; only of those
        with at least two fractions of the labels.
    """
    lines: dict[str, list[str]] = {}
    for task, network in sorted(networks.items(), key=lambda item: item[1].labels):
        lines.setdefault(f"{network.backbone}, {network.weights}", []).append(task)
    return {
        name: tasks
        for name, tasks in lines.items()
        if len({networks[task].label_fraction for task in tasks}) > 1
    }


def short_names(lines: Mapping[str, list[str]], networks: Mapping[str, Network]) -> list[str]:
    """Name lines of `label_efficiency` in a word each, random or pretrained, if that tells them."""
    starts = ["random" if networks[tasks[0]].weights == BUILT_IN["none"] else "pretrained"
              for tasks in lines.values()]  # fmt: skip
    return starts if len(set(starts)) == len(starts) else list(lines)
