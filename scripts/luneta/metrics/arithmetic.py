"""Arithmetic that the scores share: what cannot be computed is NaN, without a warning."""

from __future__ import annotations

import warnings

import numpy as np


def ratio(numerator, denominator) -> np.ndarray:
    """Divide; NaN where the denominator is zero."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, float), np.asarray(denominator, float)
    )
    return np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0
    )[()]


def nan_mean(values, axis: int | None = None):
    """Mean without the NaNs; NaN, and no warning, where nothing else is there."""
    values = np.asarray(values, float)
    return ratio(np.nansum(values, axis=axis), np.sum(~np.isnan(values), axis=axis))


def nan_std(values, axis: int = 0):
    """Sample standard deviation (N - 1) without the NaNs; NaN for fewer than two values."""
    values = np.asarray(values, float)
    mean = np.expand_dims(nan_mean(values, axis), axis)
    count = np.sum(~np.isnan(values), axis=axis)
    squares = np.nansum((values - mean) ** 2, axis=axis)
    return np.sqrt(ratio(squares, np.maximum(count - 1, 0)))


def nan_quantile(values, fractions, axis: int = 0):
    """Quantiles without the NaNs, linear between values; NaN where nothing else is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanquantile(np.asarray(values, float), fractions, axis=axis)


def once_each(objects: int, weights=None) -> np.ndarray:
    """Give the weights as float64; one for each object where there are none."""
    return np.ones(objects) if weights is None else np.asarray(weights, float)


def weighted_mean(values: np.ndarray, weights: np.ndarray):
    """Mean of `values`, shape (objects,), with each row of `weights`, shape (..., objects)."""
    return ratio(weights @ np.asarray(values, float), weights.sum(axis=-1))
