"""Make the arrays that tests/models/test_timm.py compares luneta's networks with.

Runs where torch and timm are installed, which luneta's own environment does not need:

    python scripts/timm_references.py tests/models/timm_references

Weights and images follow a rule of their name and shape that both sides know, so that a reference
holds timm's features and the names and shapes of its weights only.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path

import numpy as np

# Variance of kernels times their number of inputs, with which features come to about 1
VARIANCES = {
    "resnet18": 1.0,
    "resnet50": 1.0,
    "efficientnet_b0": 2.5,
    "convnext_pico": 2.0,
    "convnext_nano": 2.0,
    "convnext_tiny": 2.0,
    "convnext_small": 2.0,
    "convnext_base": 2.0,
}
# A second picture, whose sides are odd and differ, shows wrong padding and swapped axes
IMAGES = {"square": (2, 3, 64, 64), "odd": (1, 3, 67, 75)}


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Draw numbers that depend on a name alone, the same with every version of numpy.

    Of numpy's streams only the raw bits are promised to stay as they are. Float32.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    bits = np.random.PCG64(seed).random_raw(math.prod(shape)) >> np.uint64(40)
    return (low + (high - low) * (bits.astype("float32") / 2**24)).reshape(shape).astype("float32")


def weight(architecture: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Give the entry of a state dict that has this name and shape, float32.

    Factors, means, variances and the scales of ConvNeXt are far from where a network starts, so
    that mixing them up shows.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, "float32")
    if len(shape) > 1:
        edge = math.sqrt(3 * VARIANCES[architecture] / math.prod(shape[1:]))
        return uniform(name, shape, -edge, edge)
    if name.endswith(("running_mean", "bias")):
        return uniform(name, shape, -0.3, 0.3)
    low, high = (0.05, 0.5) if name.endswith("gamma") else (0.3, 1.2)
    return uniform(name, shape, low, high)


def images() -> dict[str, np.ndarray]:
    """Give the pictures by name, (object, band, y, x), float32."""
    return {name: uniform(name, shape, -1.7, 1.7) for name, shape in IMAGES.items()}


def reference(architecture: str) -> dict[str, np.ndarray]:
    """Run timm: `features_NAME` (object, feature) for each picture, and `names` and `shapes`."""
    import timm
    import torch

    network = timm.create_model(architecture, pretrained=False, num_classes=0).eval()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(
        {name: torch.from_numpy(weight(architecture, name, s)) for name, s in shapes.items()}
    )
    with torch.no_grad():
        features = {
            f"features_{name}": network(torch.from_numpy(values)).numpy()
            for name, values in images().items()
        }
    texts = [" ".join(str(side) for side in shape) for shape in shapes.values()]
    return {**features, "names": np.array(list(shapes)), "shapes": np.array(texts)}


def main() -> None:
    """Write one .npz an architecture to the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the .npz files go")
    parser.add_argument("--only", nargs="+", choices=VARIANCES, default=VARIANCES)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for architecture in arguments.only:
        np.savez_compressed(arguments.folder / f"{architecture}.npz", **reference(architecture))


if __name__ == "__main__":
    main()
