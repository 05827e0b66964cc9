"""A training that is interrupted goes on from its last epoch and ends with the same weights."""

import json
import logging
import signal
import subprocess
import sys

import numpy as np
import pytest

from luneta.training import finetune, folds, resume

TRAINING = {
    "backbone": "LeNet5",
    "folds": 2,
    "head_epochs": 1,
    "fine_tune_epochs": 3,
    "batch_size": 16,
    "fine_tune_learning_rate": 2e-3,
    "dropout": 0.3,
    "mixup": 0.2,
    "gradient_clip": 5.0,
    "schedule": "plateau",
    "patience": 2,
    "augmentation": {"shift": 2, "noise": 1},
}
OUTPUTS = {
    "model": "fold0.keras",
    "sidecar": "fold0.json",
    "history": "fold0_history.csv",
    "gradients": "fold0_gradients.csv",
}
KILLED = """
import json, os, signal, sys
from luneta.training import finetune, resume

write = resume.Saved.write
def write_and_die(self, content, **arrays):
    write(self, content, **arrays)
    if len(content["records"]) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
resume.Saved.write = write_and_die
finetune.run(**json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, survey, small_training, small_network):
    """What `run` needs, without the outputs, of a task that starts from a weights file."""
    folder = tmp_path_factory.mktemp("resume")
    start = folder / "start.weights.h5"
    small_network(small_training()).get_layer("backbone").save_weights(start)
    task = {"kind": "binary", "classes": ["bar", "spot"]}
    task["training"] = {**TRAINING, "weights": str(start)}
    settings = {"task": task, "task_name": "shape", "shards": ["a", "b"], "seed": 1}
    quality = [survey / "a.parquet", survey / "b.parquet"]
    folds.run([survey / "labels.csv"], quality, folder / "split.parquet", settings)
    return {
        "split": str(folder / "split.parquet"),
        "cutouts": [str(survey / f"{shard}.arrow") for shard in "ab"],
        "settings": settings,
        "fold": 0,
        "weights": str(start),
        "threads": 2,
    }


def in_folder(folder):
    return {key: str(folder / name) for key, name in OUTPUTS.items()}


def contents(folder):
    return {name: (folder / name).read_bytes() for name in OUTPUTS.values()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, arguments):
    """The files of a training without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    finetune.run(**arguments, **in_folder(folder))
    assert len((folder / OUTPUTS["history"]).read_text().splitlines()) == 1 + 4
    assert sorted(path.name for path in folder.iterdir()) == sorted(OUTPUTS.values())
    return contents(folder)


def interrupted_after(monkeypatch, epochs):
    """Let Ctrl-C come when so many epochs are written."""
    write = resume.Saved.write

    def write_and_stop(self, content, **arrays):
        write(self, content, **arrays)
        if len(content["records"]) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume.Saved, "write", write_and_stop)


# The fourth epoch is the last: only the outputs are missing then
@pytest.mark.parametrize("epochs", [1, 2, 3, 4], ids=["head", "first", "second", "last"])
def test_interrupted_training_ends_with_the_same_files(
    tmp_path, monkeypatch, arguments, whole, caplog, epochs
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_after(patch, epochs)
        finetune.run(**arguments, **in_folder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [".fold0_state"]
    with caplog.at_level(logging.INFO):
        finetune.run(**arguments, **in_folder(tmp_path))
    assert f"resumed after epoch {epochs}" in caplog.text
    assert f"epoch {epochs} " not in caplog.text.partition("resumed after epoch")[2][3:]
    assert contents(tmp_path) == whole
    assert not (tmp_path / ".fold0_state").exists()


def test_killed_training_ends_with_the_same_files(tmp_path, arguments, whole, caplog):
    call = json.dumps({**arguments, **in_folder(tmp_path)})
    done = subprocess.run([sys.executable, "-c", KILLED, call], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    with caplog.at_level(logging.INFO):
        finetune.run(**arguments, **in_folder(tmp_path))
    assert "resumed after epoch 2" in caplog.text
    assert contents(tmp_path) == whole


def test_state_of_other_settings_is_not_used(tmp_path, monkeypatch, arguments, whole, caplog):
    other = json.loads(json.dumps(arguments))
    other["settings"]["task"]["training"]["mixup"] = 0.3
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_after(patch, 2)
        finetune.run(**other, **in_folder(tmp_path))
    with caplog.at_level(logging.INFO):
        finetune.run(**arguments, **in_folder(tmp_path))
    assert "of other settings, data or code: training anew" in caplog.text
    assert contents(tmp_path) == whole


def saved(tmp_path, digest="a"):
    return resume.Saved(tmp_path / ".fold0_state", digest)


def test_state_is_read_as_it_was_written(tmp_path):
    arrays = [np.arange(3.0), np.array(7), np.zeros((2, 0))]
    saved(tmp_path).write({"records": [{"epoch": 1}]}, network=arrays, best=[])
    content, found = saved(tmp_path).read()
    assert content == {"records": [{"epoch": 1}]}
    for a, b in zip(found["network"], arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    saved(tmp_path).remove()
    assert saved(tmp_path).read() is None


def test_more_arrays_than_ten_keep_their_order(tmp_path):
    saved(tmp_path).write({}, network=[np.array(i) for i in range(25)])
    _, found = saved(tmp_path).read()
    assert [int(x) for x in found["network"]] == list(range(25))


@pytest.mark.parametrize("damage", ["cut", "garbage", "flipped", "empty"])
def test_damaged_state_is_ignored(tmp_path, damage, caplog):
    saved(tmp_path).write({"records": []}, network=[np.arange(1000.0)])
    path = tmp_path / ".fold0_state" / resume.FILE
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[4000] ^= 0xFF
    path.write_bytes(
        {"cut": whole[:3000], "garbage": b"x" * 500, "flipped": bytes(flipped), "empty": b""}[
            damage
        ]
    )
    assert saved(tmp_path).read() is None
    assert "cannot be read" in caplog.text


def test_state_of_another_digest_is_ignored(tmp_path, caplog):
    saved(tmp_path, "a").write({"records": []}, network=[])
    with caplog.at_level(logging.INFO):
        assert saved(tmp_path, "b").read() is None
    assert "of other settings, data or code" in caplog.text


def test_state_of_another_backend_or_number_of_devices_is_another(monkeypatch, small_network,
                                                                  small_training):  # fmt: skip
    job = finetune.Job({}, 0, *[None] * 7)
    network = small_network(small_training())
    digests = [finetune.digest_of(job, "data", network, "float32")]
    with monkeypatch.context() as patch:
        patch.setattr(finetune.devices, "sharing", lambda: 2)
        digests.append(finetune.digest_of(job, "data", network, "float32"))
    with monkeypatch.context() as patch:
        patch.setattr(finetune.keras.backend, "backend", lambda: "jax")
        digests.append(finetune.digest_of(job, "data", network, "float32"))
    digests.append(finetune.digest_of(job, "data", network, "float32"))
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]


def test_state_lies_hidden_beside_the_model(tmp_path):
    assert resume.folder_of(tmp_path / "fold3.keras") == tmp_path / ".fold3_state"
