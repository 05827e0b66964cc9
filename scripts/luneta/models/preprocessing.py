"""From raw cutouts to what a backbone expects: operations that are part of every saved network.

Made of operations and layers of Keras alone, so that a saved network needs no luneta to be read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from luneta.config.training import Preprocessing, Training

# Keeps the noise of the sky on both sides of zero: with the default stretch, -5 sky noise.
DARKEST = -0.25
# Of red, green, blue, for pixels of 0 to 1: Deng et al. 2009; the constants of torchvision
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SCATTER = (0.229, 0.224, 0.225)
# Of red, green, blue, for pixels of 0 to 255: Simonyan & Zisserman 2014, arXiv:1409.1556
CAFFE_MEAN = (123.68, 116.779, 103.939)
SCALINGS = ("none", "unit", "signed", "torch", "caffe")

# Median absolute deviation to standard deviation of a normal law
MAD_TO_SIGMA = 1.4826
FAR = 1e30  # stands for infinite pixels, and sorts bad pixels behind all others
SAMPLED_PIXELS = 1_000_000


@dataclass(frozen=True)
class Statistics:
    """What a network knows of its training images.

    Attributes
    ----------
    noise
        Robust scatter of each band's raw pixels (band,), float64, in their units.
    mean, scatter
        Mean and standard deviation of each band (band,), float64, after stretch and resizing.
    mean_image
        Mean image after stretch and resizing (y, x, band), float64; only for `image`
        normalisation.
    """

    noise: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray
    mean_image: np.ndarray | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give nested lists, which JSON can hold."""
        return {k: None if v is None else np.asarray(v).tolist() for k, v in asdict(self).items()}


def quantiles(x: Any, valid: Any, levels: Sequence[float]) -> list[Any]:
    """Give quantiles of the good pixels of each band of each cutout.

    Parameters
    ----------
    x
        Pixels (object, band, y, x), float32.
    valid
        Which of them count, bool (object, band, y, x).
    levels
        Each 0 to 1; linear between the nearest ranks, as `numpy.quantile` does.

    Returns
    -------
    list
        For each level (object, band, 1, 1), float32; 0 where no pixel counts.
    """
    bands, pixels = x.shape[1], x.shape[2] * x.shape[3]
    ordered = ops.sort(ops.reshape(ops.where(valid, x, FAR), (-1, bands, pixels)), axis=-1)
    count = ops.sum(ops.cast(ops.reshape(valid, (-1, bands, pixels)), "float32"), -1, keepdims=True)

    def at(level: float) -> Any:
        rank = level * ops.maximum(count - 1.0, 0.0)
        below = ops.floor(rank)
        low = ops.take_along_axis(ordered, ops.cast(below, "int32"), axis=-1)
        high = ops.take_along_axis(ordered, ops.cast(ops.ceil(rank), "int32"), axis=-1)
        found = ops.where(count > 0.0, low + (high - low) * (rank - below), 0.0)
        return ops.reshape(found, (-1, bands, 1, 1))

    return [at(level) for level in levels]


def cutout_noise(x: Any, valid: Any) -> Any:
    """Give 1.4826 median(|x - median(x)|) of each band's good pixels (object, band, 1, 1).

    1 where it is zero. Robust against the source, which covers less than half of a cutout
    (Rousseeuw & Croux 1993, JASA 88, 1273).
    """
    (middle,) = quantiles(x, valid, [0.5])
    (deviation,) = quantiles(ops.abs(x - middle), valid, [0.5])
    sigma = MAD_TO_SIGMA * deviation
    return ops.where(sigma > 0.0, sigma, 1.0)


def asinh(x: Any, settings: Preprocessing) -> Any:
    """Give arcsinh(x / softening) / arcsinh(maximum / softening), clipped to -0.25 to 1.

    Lupton et al. 1999, AJ 118, 1406.
    """
    white = float(np.arcsinh(settings.maximum / settings.softening))
    return ops.clip(ops.arcsinh(x / settings.softening) / white, DARKEST, 1.0)


def lupton(x: Any, settings: Preprocessing) -> Any:
    """Stretch all bands of a pixel by one factor, so that its colour stays.

    With I the mean over bands and f(I) = arcsinh(I / softening) / arcsinh(maximum / softening), a
    band becomes x f(I) / I; where the brightest band exceeds 1, all are divided by it (Lupton et
    al. 2004, PASP 116, 133). Clipped to -0.25 to 1.
    """
    white = float(np.arcsinh(settings.maximum / settings.softening))
    mean = ops.mean(x, axis=1, keepdims=True)
    dark = ops.abs(mean) < 1e-6 * settings.softening
    safe = ops.where(dark, 1.0, mean)
    factor = ops.where(
        dark, 1.0 / settings.softening, ops.arcsinh(safe / settings.softening) / safe
    )
    stretched = x * factor / white
    brightest = ops.maximum(ops.max(stretched, axis=1, keepdims=True), 1.0)
    return ops.clip(stretched / brightest, DARKEST, 1.0)


def square_root(x: Any, settings: Preprocessing) -> Any:
    """Give sign(x) sqrt(|x| / maximum), clipped to -0.25 to 1."""
    return ops.clip(ops.sign(x) * ops.sqrt(ops.abs(x) / settings.maximum), DARKEST, 1.0)


def percentile(x: Any, valid: Any, settings: Preprocessing) -> Any:
    """Bring each band of each cutout from its two percentiles to 0 and 1, clipped to that.

    A band without contrast becomes 0.
    """
    low, high = quantiles(x, valid, [level / 100 for level in settings.percentiles])
    contrast = high > low
    scaled = (x - low) / ops.where(contrast, high - low, 1.0)
    return ops.where(contrast, ops.clip(scaled, 0.0, 1.0), 0.0)


def stretch(x: Any, valid: Any, settings: Preprocessing) -> Any:
    """Apply the stretch of the settings to (object, band, y, x): sky to 0, white to 1."""
    if settings.stretch == "asinh":
        return asinh(x, settings)
    if settings.stretch == "lupton":
        return lupton(x, settings)
    if settings.stretch == "sqrt":
        return square_root(x, settings)
    if settings.stretch == "percentile":
        return percentile(x, valid, settings)
    if settings.stretch == "linear":
        return ops.clip(x / settings.maximum, DARKEST, 1.0)
    return x


def image(raw: Any, settings: Preprocessing, pixels: str, statistics: Statistics | None) -> Any:
    """Turn raw cutouts (object, band, y, x) into images (object, y, x, band).

    Bad pixels (NaN) become zero, and so the stretched sky. Display pixels are divided by 255 and
    neither scaled by noise, clipped nor stretched.
    """
    x = ops.nan_to_num(raw, nan=0.0, posinf=FAR, neginf=-FAR)
    if pixels == "display":
        return ops.transpose(x / 255.0, (0, 2, 3, 1))
    valid = ops.logical_not(ops.isnan(raw))
    if settings.noise_scaling == "cutout":
        x = x / cutout_noise(x, valid)
    elif settings.noise_scaling == "training":
        x = divide_by_noise(x, _measured(statistics, "noise_scaling: training").noise)
    if settings.clip:
        x = ops.clip(x, -settings.clip, settings.clip)
    return ops.transpose(stretch(x, valid, settings), (0, 2, 3, 1))


def divide_by_noise(x: Any, noise: np.ndarray) -> Any:
    """Divide the bands of (object, band, y, x) by their noise (band,).

    The noise is a weight of the layer, so that a network's digest covers it. A frozen batch norm
    of variance 1 multiplies each band by its weight and no more; the square of a noise in physical
    units, as `Normalization` keeps it, would leave the range of float32.
    """
    layer = layers.BatchNormalization(
        axis=1, epsilon=0.0, center=False, trainable=False, dtype="float32", name="noise_scaling"
    )
    layer.build(x.shape)
    layer.gamma.assign((1.0 / noise).astype("float32"))
    return layer(x)


def resize(x: Any, side: int) -> Any:
    """Resize images (object, y, x, band), bilinear, with antialiasing if they become smaller."""
    if x.shape[1] == side:
        return x
    return ops.image.resize(
        x,
        (side, side),
        interpolation="bilinear",
        antialias=side < x.shape[1],
        data_format="channels_last",
    )


def normalise(x: Any, kind: str, statistics: Statistics | None) -> Any:
    """Subtract the training images' mean (of each band, or image) and divide by their scatter.

    The constants are weights of the layer, so that a network's digest covers them.
    """
    if kind == "none":
        return x
    known = _measured(statistics, f"normalisation: {kind}")
    mean, axis = known.mean, -1
    if kind == "image":
        if known.mean_image is None or known.mean_image.shape != x.shape[1:]:
            found = None if known.mean_image is None else known.mean_image.shape
            raise ValueError(
                f"normalisation: image needs a mean image of shape {x.shape[1:]}, the statistics "
                f"have {found}: measure them with the same training section"
            )
        mean, axis = known.mean_image, (1, 2, 3)
    layer = layers.Normalization(axis=axis, dtype="float32", name="normalisation")
    layer.build(x.shape)
    variance = np.broadcast_to(known.scatter**2, mean.shape)
    layer.set_weights([mean.astype("float32"), variance.astype("float32"), np.array(0, "int32")])
    layer.finalize_state()
    return layer(x)


def _measured(statistics: Statistics | None, setting: str) -> Statistics:
    """Give the statistics, or tell how to get them."""
    if statistics is None:
        raise ValueError(
            f"preprocessing.{setting} needs statistics of the training images: give "
            "preprocessing.measure(images, training, pixels)"
        )
    return statistics


def input_constants(
    scaling: str, channels: list[int | None], normalised: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Give the factor and offset of each band from an image to the input of a backbone.

    Parameters
    ----------
    scaling
        One of `SCALINGS`, for an image u of 0 to 1: `none` and `unit` u, `signed` 2 u - 1,
        `torch` (u - mean) / scatter, `caffe` 255 u - mean.
    channels
        What each band stands for: 0 red, 1 green, 2 blue, None grey, which has the mean of their
        constants.
    normalised
        Whether the image has mean 0 and scatter 1. It then gets the mean and scatter of ImageNet,
        u = scatter z + mean, as that is what the backbone was trained on; `torch` thus leaves it
        as it is. `none` does so too.

    Returns
    -------
    tuple
        Two arrays (band,), float64.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"there is no input scaling {scaling!r}: it is one of {SCALINGS}")

    def constants(values: tuple[float, ...]) -> np.ndarray:
        return np.array([np.mean(values) if c is None else values[c] for c in channels])

    mean, scatter = constants(IMAGENET_MEAN), constants(IMAGENET_SCATTER)
    ones = np.ones(len(channels))
    factor, offset = {
        "none": (ones, 0 * ones),
        "unit": (ones, 0 * ones),
        "signed": (2 * ones, -ones),
        "torch": (1 / scatter, -mean / scatter),
        "caffe": (255 * ones, -constants(CAFFE_MEAN)),
    }[scaling]
    if normalised and scaling != "none":
        return factor * scatter, factor * mean + offset
    return factor, offset


def scale_input(x: Any, scaling: str, channels: list[int | None], normalised: bool) -> Any:
    """Order three bands as red, green, blue (`caffe`: reversed) and scale all for a backbone.

    More or fewer bands than three keep their order: the stem of the backbone is widened to them.
    """
    if len(channels) == 3:
        order = [channels.index(c) for c in ((2, 1, 0) if scaling == "caffe" else (0, 1, 2))]
        channels = [channels[i] for i in order]
        if order != [0, 1, 2]:
            x = ops.take(x, order, axis=-1)
    factor, offset = input_constants(scaling, channels, normalised)
    return layers.Rescaling(
        factor.tolist(), offset.tolist(), dtype="float32", name=f"input_scaling_{scaling}"
    )(x)


def build(
    settings: Preprocessing,
    bands: int,
    cutout_size: int,
    side: int,
    pixels: str,
    scaling: str = "none",
    channels: list[int | None] | None = None,
    statistics: Statistics | None = None,
) -> keras.Model:
    """Build the preprocessing of a network.

    Parameters
    ----------
    settings
        Noise scaling, clipping, stretch, normalisation.
    bands, cutout_size
        Shape of a cutout: (band, y, x) with y = x = `cutout_size` pixels.
    side
        Side of the image that the backbone takes, in pixels.
    pixels
        `flux` or `display` (0 to 255).
    scaling, channels
        See `input_constants`; without `channels` every band is grey, three bands are red, green,
        blue.
    statistics
        Of the training images; needed for `noise_scaling: training` and for any normalisation.

    Returns
    -------
    keras.Model
        Named `preprocessing`; input (object, band, y, x), NaN allowed, output (object, y, x,
        band), float32 whatever the precision of the backbone.
    """
    if channels is None:
        channels = [0, 1, 2] if bands == 3 else [None] * bands
    raw = keras.Input((bands, cutout_size, cutout_size), dtype="float32", name="raw_cutouts")
    x = resize(image(raw, settings, pixels, statistics), side)
    x = normalise(x, settings.normalisation, statistics)
    x = scale_input(x, scaling, channels, settings.normalisation != "none")
    model = keras.Model(raw, x, name="preprocessing")
    _number_operations(model)
    return model


def _number_operations(model: keras.Model) -> None:
    """Name operations by their place, not by how many this process made before."""
    seen: Counter[str] = Counter()
    for operation in model.operations:
        if isinstance(operation, layers.Layer):
            continue
        stem = re.sub(r"_\d+$", "", operation.name)
        operation.name = f"{stem}_{seen[stem]}"
        seen[stem] += 1


def _batches(images: np.ndarray, size: int = 256) -> Iterator[np.ndarray]:
    for start in range(0, len(images), size):
        yield np.asarray(images[start : start + size], dtype="float32")


def band_noise(images: np.ndarray) -> np.ndarray:
    """Give 1.4826 median(|x - median(x)|) of each band over all cutouts.

    Parameters
    ----------
    images
        (object, band, y, x), NaN where bad. Of many cutouts, about a million pixels a band are
        drawn, always the same.

    Returns
    -------
    numpy.ndarray
        (band,), float64; 1 where a band has no good pixel or no scatter.
    """
    bands, pixels = images.shape[1], images.shape[2] * images.shape[3]
    wanted = min(pixels, max(1, SAMPLED_PIXELS // len(images)))
    random = np.random.default_rng(0)
    parts = []
    for batch in _batches(images):
        places = np.sort(random.choice(pixels, wanted, replace=False))
        parts.append(batch.reshape(len(batch), bands, pixels)[:, :, places])
    sampled = np.concatenate(parts).swapaxes(0, 1).reshape(bands, -1).astype("float64")
    noise = np.ones(bands)
    for band, values in enumerate(sampled):
        good = values[np.isfinite(values)]
        if len(good):
            noise[band] = MAD_TO_SIGMA * np.median(np.abs(good - np.median(good)))
    return np.where(noise > 0, noise, 1.0)


def measure(images: np.ndarray, training: Training, pixels: str) -> Statistics:
    """Measure what a network must know of its training images.

    Parameters
    ----------
    images
        Training images only, raw (object, band, y, x), NaN where bad; read a batch at a time.
    training
        Image size and preprocessing.
    pixels
        `flux` or `display`.

    Returns
    -------
    Statistics
        `mean` and `scatter` over all pixels of all images, as they are before normalisation.

    Raises
    ------
    ValueError
        If there are no images.
    """
    if not len(images):
        raise ValueError("no training images: the statistics of none cannot be measured")
    settings, bands, size = training.preprocessing, images.shape[1], images.shape[-1]
    noise = band_noise(images)
    before = settings.model_copy(update={"normalisation": "none"})
    side = training.image_size or size
    known = Statistics(noise, np.zeros(bands), np.ones(bands))
    model = build(before, bands, size, side, pixels, statistics=known)
    total, squares = np.zeros((side, side, bands)), np.zeros(bands)
    for batch in _batches(images):
        values = model.predict_on_batch(batch).astype("float64")
        total += values.sum(axis=0)
        squares += (values**2).sum(axis=(0, 1, 2))
    count = len(images) * side**2
    mean = total.sum(axis=(0, 1)) / count
    variance = np.maximum(squares / count - mean**2, 0)
    scatter = np.sqrt(np.where(variance > 0, variance, 1.0))
    mean_image = total / len(images) if settings.normalisation == "image" else None
    return Statistics(noise, mean, scatter, mean_image)
