"""How all figures look."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from luneta.files import atomic_path

# Okabe & Ito (2008): told apart with every common kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
BLUE, ORANGE, GREEN = COLOURS[:3]
GREY = "#777777"
DOTS_PER_INCH = 140
CAPITALS = {
    **{name: name.upper() for name in ("f1", "roc", "auc", "ece", "mcc", "fpr", "tpr0", "tpr10")},
    "brier": "Brier",
    "delong": "(DeLong)",
}

# What a user's matplotlibrc says is no matter: a figure is the same for everybody.
_OF_THE_MACHINE = ("backend", "backend_fallback", "interactive", "toolbar", "webagg.port")
_PLAIN = {
    key: mpl.rcParamsDefault[key] for key in mpl.rcParamsDefault if key not in _OF_THE_MACHINE
}

STYLE = {
    **_PLAIN,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the house style."""

    @wraps(draw)
    def inner(*arguments, **options):
        with mpl.rc_context(STYLE):
            return draw(*arguments, **options)

    return inner


def line_of(number: int) -> dict[str, str]:
    """Give the colour and the dashes of the line of that number."""
    dashes = LINES[number // len(COLOURS) % len(LINES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dashes}


def words(name: str) -> str:
    """Turn a name of the config into words."""
    return name.replace("_", " ")


def score_name(name: str) -> str:
    """Write the name of a score in words, abbreviations in capitals."""
    return " ".join(CAPITALS.get(word, word) for word in name.split("_"))


def panels(count: int, width: float, height: float, **options) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels side by side, in the house style.

    Parameters
    ----------
    count : int
        Number of panels.
    width, height : float
        Of the whole figure, inch.
    options
        For `Figure.subplots`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, count, squeeze=False, **options)[0]
    return figure, list(axes)


def say(axes: Axes, text: str) -> None:
    """Put words where a plot has no data."""
    axes.set_axis_off()
    place = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.5, text, **place, wrap=True, color=GREY, fontsize=11)


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, with the same bytes each time."""
    with mpl.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata={"Software": None})
