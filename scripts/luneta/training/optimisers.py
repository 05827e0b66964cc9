"""Optimisers with a learning rate for each block, and what they note about the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from luneta.config import Training
from luneta.models import devices
from luneta.training.schedules import Schedule


@dataclass(frozen=True)
class Group:
    """The trained variables of one layer.

    Attributes
    ----------
    block, layer
        Names; the block is `head` or `block{n}`, counted from the input.
    depth
        Blocks between this one and the output: 0 for the head.
    """

    block: str
    layer: str
    depth: int
    variables: list[keras.Variable]


def layer_groups(
    network: keras.Model, blocks: Sequence[Sequence[keras.layers.Layer]]
) -> list[Group]:
    """Group what is trained of a network by layer, from input to output.

    Parameters
    ----------
    network
        As luneta.models.network.build makes it.
    blocks
        Layers of its backbone by block, from input to output; layers of the backbone in none of
        them count to the first.
    """
    count, places = len(blocks), {}
    for number, members in enumerate(blocks):
        places.update({id(layer): number for layer in members})
    groups = []
    for outer in network.layers:
        is_backbone = outer.name == "backbone"
        for layer in outer.layers if is_backbone else [outer]:
            if not layer.trainable_variables:
                continue
            number = places.get(id(layer), 0)
            block, depth = (f"block{number + 1}", count - number) if is_backbone else ("head", 0)
            groups.append(Group(block, layer.name, depth, layer.trainable_variables))
    return groups


def _decays(path: str) -> bool:
    """Tell whether the variable of a path is a kernel that weight decay may shrink."""
    return path.endswith("kernel") and not path.endswith("_scale/kernel")


class _Layerwise:
    """What is common to the optimisers: rates by block, weight decay, clipping, gradient norms.

    Parameters
    ----------
    groups
        What is trained.
    layer_decay
        Factor on the learning rate from each block to the one before it.
    decay
        Decoupled weight decay, of kernels alone (Loshchilov & Hutter 2019, arXiv:1711.05101), those
        of ConvNeXt's layer scale left out: they are a factor per feature, and start near zero.
    clip
        Largest norm of the gradient of all variables; None does not clip.

    Notes
    -----
    Scaling gradients would not scale Adam's steps: it is the step that is scaled. `build` gives
    `norm_sums`, (group,) float32, the sum over the steps of the norm of each layer's gradient
    before clipping; `first_bad`, the first step whose gradient was not finite, or -1; `factor`,
    on all rates, for what falls between epochs. All stay on the device.
    """

    def __init__(
        self,
        learning_rate: Any,
        *,
        groups: Sequence[Group],
        layer_decay: float = 1.0,
        decay: float = 0.0,
        clip: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.groups, self.decay, self.clip = tuple(groups), decay, clip
        self.layer_decay = layer_decay

    def build(self, variables: list[keras.Variable]) -> None:
        """Make the slots of the variables."""
        if self.built:
            return
        super().build(variables)
        # Paths may repeat: a layer of the head may be named like one of the backbone
        number = {id(v): i for i, group in enumerate(self.groups) for v in group.variables}
        member = [number[id(variable)] for variable in variables]
        self._rate = [self.layer_decay ** self.groups[i].depth for i in member]
        self._decay = [self.decay * _decays(v.path) for v in variables]
        self._members = np.eye(len(self.groups), dtype="float32")[:, member]
        first = {"aggregation": "only_first_replica"}
        self.norm_sums = self.add_variable((len(self.groups),), name="norm_sums", **first)
        self.first_bad = self.add_variable(
            (), keras.initializers.Constant(-1), "int32", name="first_bad", **first
        )
        self.factor = self.add_variable((), "ones", name="factor", **first)

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        """Note the gradient's norms, clip it, take a step."""
        grads = devices.sum_over_replicas(list(grads))
        squares = ops.stack([ops.sum(ops.square(g)) for g in grads])
        layers = ops.matmul(self._members, squares[:, None])[:, 0]
        self.norm_sums.assign_add(ops.sqrt(layers))
        norm = ops.sqrt(ops.sum(squares))
        noted = ops.convert_to_tensor(self.first_bad)
        bad = ops.logical_and(noted < 0, ops.logical_not(ops.isfinite(norm)))
        self.first_bad.assign(ops.where(bad, ops.cast(self.iterations, "int32"), noted))
        if self.clip is not None:
            scale = self.clip / ops.maximum(norm, self.clip)
            grads = [g * scale for g in grads]
        super().apply(grads, trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """Leave out the sum over replicas of TensorFlow: `apply` makes it, before clipping."""
        return grads_and_vars

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change one variable by its block's rate."""
        index = self._get_variable_index(variable)
        factor = ops.convert_to_tensor(self.factor) * self._rate[index]
        rate = ops.cast(learning_rate, "float32") * factor
        if self._decay[index]:
            self.assign_sub(variable, ops.multiply(variable, rate * self._decay[index]))
        super().update_step(gradient, variable, rate)


class LayerwiseAdam(_Layerwise, keras.optimizers.Adam):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with a learning rate for each block."""


class LayerwiseSGD(_Layerwise, keras.optimizers.SGD):
    """Gradient descent, with Nesterov's momentum if asked for, with a rate for each block."""


def make(training: Training, rate: Schedule, groups: Sequence[Group]) -> keras.optimizers.Optimizer:
    """Make the optimiser that a config asks for."""
    common = {
        "groups": groups,
        "layer_decay": training.layer_decay,
        "decay": training.weight_decay,
        "clip": training.gradient_clip,
    }
    if training.optimizer == "adamw":
        return LayerwiseAdam(rate, **common)
    momentum = training.momentum
    return LayerwiseSGD(rate, momentum=momentum, nesterov=momentum > 0, **common)
