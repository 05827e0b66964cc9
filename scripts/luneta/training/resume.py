"""The state of an interrupted training, kept beside its outputs until it has succeeded."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from luneta.files import atomic_path

logger = logging.getLogger(__name__)

FILE = "state.npz"


def folder_of(model: Path | str) -> Path:
    """Name the hidden folder of a model's state, beside the model."""
    path = Path(model)
    return path.with_name(f".{path.stem}_state")


class Saved:
    """Where a training keeps its state, and whose state it is.

    Parameters
    ----------
    folder
        Made when first needed; its one file is replaced whole after every epoch.
    digest
        Of all that decides the training; a state with another one is not used.
    """

    def __init__(self, folder: Path, digest: str):
        self.folder, self.digest = folder, digest

    def write(self, content: dict[str, Any], **arrays: list[np.ndarray]) -> None:
        """Write JSON content and lists of arrays."""
        numbered = {f"{name}:{i}": x for name, part in arrays.items() for i, x in enumerate(part)}
        text = json.dumps({"digest": self.digest, "content": content})
        if self.folder.is_symlink():
            self.folder.unlink()
        with atomic_path(self.folder / FILE) as temporary, temporary.open("wb") as file:
            np.savez(file, text=np.frombuffer(text.encode(), "uint8"), **numbered)

    def read(self) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]] | None:
        """Give what was written, if it is there, whole, and of this training."""
        path = self.folder / FILE
        if self.folder.is_symlink() or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                head = json.loads(file["text"].tobytes())
                if head["digest"] != self.digest:
                    logger.info("%s is of other settings, data or code: training anew", path)
                    return None
                found = {name: file[name] for name in file.files if name != "text"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s cannot be read (%s): training anew", path, error)
            return None
        arrays: dict[str, list[np.ndarray]] = {}
        for name in sorted(found, key=lambda name: int(name.partition(":")[2])):
            arrays.setdefault(name.partition(":")[0], []).append(found[name])
        return head["content"], arrays

    def remove(self) -> None:
        """Forget the state, once the outputs are written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def values(variables: list[keras.Variable]) -> list[np.ndarray]:
    """Copy variables to NumPy arrays."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: list[keras.Variable], arrays: list[np.ndarray]) -> None:
    """Give variables the values of arrays."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
