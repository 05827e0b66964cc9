"""The file predictions/{task}/{shard}.parquet: its columns, writing and checking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luneta.parquet import parquet_schema
from luneta.wording import few


class PredictionsError(ValueError):
    """Files that do not belong together: predictions, networks, cutouts or their quality."""


def schema(task: str, classes: Sequence[str]) -> pa.Schema:
    """Give the columns of predictions/{task}/{shard}.parquet."""
    numbers = [f"{task}_{name}_{kind}" for name in classes for kind in ("probability", "std")]
    return pa.schema(
        [
            ("object_id", pa.string()),
            *((name, pa.float32()) for name in numbers),
            (f"{task}_class", pa.string()),
            (f"{task}_entropy", pa.float32()),
            (f"{task}_mutual_information", pa.float32()),
            (f"{task}_outlier_score", pa.float32()),
            (f"{task}_outlier", pa.bool_()),
            (f"{task}_model_id", pa.string()),
            (f"{task}_run_id", pa.string()),
        ]
    )


def check_schema(path: Path | str, task: str, classes: Sequence[str] | None = None) -> None:
    """Insist that a predictions file has the columns of today.

    Parameters
    ----------
    path
        predictions/{task}/{shard}.parquet.
    task, classes
        Of the config; the classes are those of the file's own columns if not given.

    Raises
    ------
    PredictionsError
        If a column is missing, too many or of another type; it names them.
    """
    found = {field.name: _plain(field.type) for field in parquet_schema(path)}
    if classes is None:
        classes = [
            name[len(task) + 1 : -len("_probability")]
            for name in found
            if name.startswith(f"{task}_") and name.endswith("_probability")
        ]
    wanted = {field.name: field.type for field in schema(task, classes)}
    if list(found.items()) == list(wanted.items()):
        return
    missing = [f"{k} ({v})" for k, v in wanted.items() if found.get(k) != v]
    extra = [f"{k} ({v})" for k, v in found.items() if wanted.get(k) != v]
    told = [f"lacks {few(missing)}"] if missing else []
    told += [f"has {few(extra)}"] if extra else []
    raise PredictionsError(
        f"{path} {' and '.join(told) or 'has its columns in another order'}: it was written by "
        "another version of luneta or for other classes; remove it and run again, so that it is "
        "made anew"
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@dataclass(frozen=True)
class Answers:
    """What is known of usable objects, in their order.

    Attributes
    ----------
    probability, std
        float (object, class).
    entropy, mutual_information, outlier_score
        float (object,).
    outlier
        bool (object,).
    """

    probability: np.ndarray
    std: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray
    outlier_score: np.ndarray
    outlier: np.ndarray

    def __len__(self) -> int:
        return len(self.probability)

    def __getitem__(self, rows: slice) -> Answers:
        return Answers(*(values[rows] for values in vars(self).values()))

    @property
    def known(self) -> np.ndarray:
        """Whether the networks say something finite, bool (object,)."""
        return np.isfinite(self.probability).all(axis=1) & np.isfinite(self.outlier_score)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Join answers in their order."""
        each = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(values) for values in each))


@dataclass(frozen=True)
class Origin:
    """What is the same for all rows of a file: task, classes, model and run."""

    task: str
    classes: tuple[str, ...]
    model_id: str
    run_id: str


def row_group(part: pa.RecordBatch, answers: Answers, origin: Origin) -> pa.Table:
    """Spread the answers about usable objects over all rows; null for the others.

    So are those of which the networks say nothing finite.

    Parameters
    ----------
    part
        `object_id` and `usable` of the rows.
    answers
        Of the usable ones.
    origin
        Of all.
    """
    usable = part["usable"].to_numpy(zero_copy_only=False)
    known = usable.copy()
    known[usable] = answers.known
    columns = schema(origin.task, origin.classes)
    place = pa.array(np.where(known, np.cumsum(usable) - 1, 0), pa.int64(), mask=~known)
    names = pa.array(origin.classes, pa.string())
    chosen = names.take(pa.array(answers.probability.argmax(axis=-1), pa.int64()))
    pairs = zip(answers.probability.T, answers.std.T, strict=True)
    values = [
        *(x.astype("float32") for pair in pairs for x in pair),
        chosen,
        answers.entropy.astype("float32"),
        answers.mutual_information.astype("float32"),
        answers.outlier_score.astype("float32"),
        answers.outlier,
        *(pa.repeat(text, len(answers)) for text in (origin.model_id, origin.run_id)),
    ]
    kinds = columns.types[1:]
    arrays = [pa.array(one, kind).take(place) for one, kind in zip(values, kinds, strict=True)]
    return pa.Table.from_arrays([part["object_id"], *arrays], schema=columns)


class PredictionsWriter:
    """Writes a row group as soon as all its usable objects have answers.

    Parameters
    ----------
    writer
        Of a file with the columns of `schema`.
    parts
        `object_id` and `usable` of the rows of each row group.
    origin
        Of all rows.
    """

    def __init__(self, writer: pq.ParquetWriter, parts: Iterator[pa.RecordBatch], origin: Origin):
        self._writer, self._parts, self._origin = writer, parts, origin
        self._waiting: list[Answers] = []
        self._count = 0
        self.rows = self.objects = self.unknown = 0
        self._next()

    def _next(self) -> None:
        self._part = next(self._parts, None)
        self._needed = 0 if self._part is None else self._part["usable"].true_count

    def add(self, answers: Answers) -> None:
        """Take the answers about the next usable objects."""
        self._waiting.append(answers)
        self._count += len(answers)
        self.objects += len(answers)
        self.unknown += int((~answers.known).sum())
        while self._part is not None and self._needed <= self._count:
            here = Answers.joined(self._waiting)
            group = row_group(self._part, here[: self._needed], self._origin)
            self._writer.write_table(group, row_group_size=len(group) or None)
            self.rows += len(group)
            self._waiting = [here[self._needed :]]
            self._count -= self._needed
            self._next()

    def finish(self, nothing: Answers) -> None:
        """Write what has no usable objects, and insist that nothing is left over or missing."""
        self.add(nothing)
        if self._part is not None or self._count:
            raise PredictionsError(
                f"there are cutouts of {self.objects} objects, and another number of usable rows: "
                "cutouts and quality are not of the same run; run cutouts again"
            )
