"""The user's world changes no result, or is refused in one line."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from luneta.config import ConfigError
from luneta.plan import make_plan
from luneta.surroundings import keras_problem, pin, pin_jobs, replacement_of_cache, shadows

SCRIPTS = Path(__file__).parents[1] / "scripts"
PREDICT = """
import hashlib
from luneta.config import Training
from luneta.models import devices, network as networks
import keras, numpy as np
devices.configure(2)
settings = Training(weights="none", backbone="MobileNet", width=0.25)
network = networks.build(settings, ["g", "r"], 40, "flux", 2, 7)
images = np.random.default_rng(0).normal(3, 20, (4, 2, 40, 40)).astype("float32")
logits = network.predict_on_batch(images)
values = [*network.get_weights(), logits]
print(keras.config.backend(), logits.dtype, network.get_layer("backbone").output.shape)
print(hashlib.sha256(b"".join(np.asarray(v).tobytes() for v in values)).hexdigest())
"""


def run(code, **environment):
    """Run Python in a world of its own; what it prints, line by line."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KERAS", "TF_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(SCRIPTS), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def keras_home(folder, **settings):
    (folder / ".keras").mkdir(parents=True)
    (folder / ".keras/keras.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.mark.slow
def test_networks_are_the_same_whatever_the_world_says_of_keras(tmp_path):
    plain = run(PREDICT, HOME=str(tmp_path))
    odd = keras_home(
        tmp_path / "odd", floatx="float16", image_data_format="channels_first", epsilon=0.5,
        backend="torch", nnx_enabled=True,
    )  # fmt: skip
    worlds = [
        {"HOME": odd},
        {"HOME": str(tmp_path / "none"), "KERAS_HOME": f"{odd}/.keras"},
        {"HOME": "/proc/nowhere", "KERAS_BACKEND": "", "OMP_NUM_THREADS": "abc"},
        {"HOME": odd, "LC_ALL": "C", "TZ": "Asia/Kathmandu", "MPLBACKEND": "TkAgg",
         "KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1", "PYTHONHASHSEED": "5"},
    ]  # fmt: skip
    for world in worlds:
        assert run(PREDICT, **world) == plain, world


def test_settings_of_keras_are_pinned(tmp_path):
    odd = keras_home(
        tmp_path, floatx="float64", image_data_format="channels_first", epsilon=0.5, backend="jax"
    )
    said = run(
        "import luneta.models, keras; c = keras.config; print(c.floatx(), c.epsilon(), "
        "c.image_data_format(), c.backend(), c.dtype_policy().name, c.max_epochs())",
        HOME=odd, KERAS_MAX_EPOCHS="2",
    )  # fmt: skip
    assert said == ["float32 1e-07 channels_last tensorflow float32 None"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"floatx": "bfloat16"}, "floatx = 'bfloat16' must be one of float16, float32, float64"),
        ({"image_data_format": ["x"]}, "image_data_format = ['x'] must be one of channels_last"),
        ({"epsilon": 1}, "epsilon = 1 must be a decimal number"),
        ([1], "must hold settings of Keras by name"),
    ],
)
def test_a_file_that_keras_cannot_take_is_refused_with_the_fix(tmp_path, settings, said):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    problem = keras_problem({"KERAS_HOME": str(tmp_path)})
    assert problem.startswith(f"{tmp_path}/keras.json: {said}")
    assert "correct or remove the file" in problem


@pytest.mark.parametrize("text", ["", "{", '{"floatx": "float16"}', "\xff"])
def test_a_file_that_keras_passes_over_or_takes_is_no_matter(tmp_path, text):
    (tmp_path / "keras.json").write_text(text, encoding="latin-1")
    assert keras_problem({"KERAS_HOME": str(tmp_path)}) is None


@pytest.mark.parametrize("backend", ["theano", "openvino", "numpy", "Tensorflow", "torch"])
def test_a_backend_that_is_not_there_is_refused_when_planning(tmp_path, monkeypatch, backend):
    if backend == "torch" and keras_problem({"KERAS_BACKEND": "torch"}) is None:
        pytest.skip("torch is installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    rows = [f"{n},{n}.jpg,{'yes' if n % 2 else 'no'}" for n in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["object_id,image,label", *rows]) + "\n")
    task = {"kind": "binary", "classes": ["no", "yes"], "labels": ["t.csv"]}
    stamps = {"kind": "stamps", "table": "t.csv", "bands": ["g"]}
    config = {"survey": "s", "input": stamps, "tasks": {"t": task}}
    with pytest.raises(ConfigError, match=f"KERAS_BACKEND = '{backend}'.* unset it for tensorflow"):
        make_plan(config)
    assert make_plan({"survey": "s", "input": stamps}).shards == ["stamps_00000"]


def test_variables_that_end_or_bend_a_run_are_pinned():
    world = {
        "KERAS_BACKEND": "", "KERAS_MAX_EPOCHS": "1", "KERAS_NNX_ENABLED": "1",
        "OMP_NUM_THREADS": "abc", "NUMBA_NUM_THREADS": "0", "MKL_NUM_THREADS": "4,2",
        "PYTHONWARNINGS": "error", "MPLBACKEND": "TkAgg",
    }  # fmt: skip
    pin(world)
    pin_jobs(world)
    assert world == {
        "KERAS_BACKEND": "tensorflow", "KERAS_NNX_ENABLED": "false", "MKL_NUM_THREADS": "4,2",
        "MPLBACKEND": "agg", "PYTHONUTF8": "1",
    }  # fmt: skip
    world = {"KERAS_BACKEND": "jax", "PYTHONWARNINGS": "ignore"}
    pin(world)
    pin_jobs(world)
    assert (world["KERAS_BACKEND"], world["PYTHONWARNINGS"]) == ("jax", "ignore")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("token.py", "token"),
        ("numpy.py", "numpy"),
        ("sklearn/__init__.py", "sklearn"),
        ("luneta/__init__.py", "luneta"),
        ("site-packages/numpy.py", "numpy"),
        ("dist-packages/keras/__init__.py", "keras"),
        ("my_helpers.py", None),
        ("test/__init__.py", None),
        ("tests/__init__.py", None),
        ("this.py", None),
        ("idlelib/__init__.py", None),
        ("numpy/data.txt", None),
    ],
)
def test_modules_that_stand_before_others_are_named(tmp_path, path, name, monkeypatch):
    (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / path).touch()
    given = tmp_path / path.partition("/")[0] if "-packages" in path else tmp_path
    monkeypatch.syspath_prepend(given)
    lines = list(shadows(os.pathsep.join(["", str(given), str(SCRIPTS), "/no/such/folder"])))
    wanted = f"PYTHONPATH has {given}, whose module {name} stands before the {name} that"
    assert [line.startswith(wanted) for line in lines] == ([True] if name else [])


def test_figures_do_not_depend_on_the_users_style(tmp_path):
    code = (
        "import hashlib, sys; from pathlib import Path; import matplotlib as mpl\n"
        "from matplotlib.figure import Figure; from luneta.reporting.style import STYLE\n"
        "with mpl.rc_context(STYLE):\n"
        "    figure = Figure(); axes = figure.subplots(); axes.plot([1, 2], label='a')\n"
        "    axes.legend(); figure.savefig('f.png', metadata={'Software': None})\n"
        "print(hashlib.sha256(Path('f.png').read_bytes()).hexdigest())"
    )
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.family: serif\n")
    code = f"import os; os.chdir({str(tmp_path)!r})\n{code}"
    with_file = run(code)
    (tmp_path / "matplotlibrc").unlink()
    assert run(code) == with_file


def test_a_cache_that_cannot_be_written_to_is_replaced(tmp_path):
    assert replacement_of_cache({"XDG_CACHE_HOME": str(tmp_path / "new")}) is None
    folder = replacement_of_cache({"XDG_CACHE_HOME": "/proc/nowhere"})
    assert Path(folder).is_dir()
    assert Path(folder).stat().st_mode & 0o077 == 0
    Path(folder).rmdir()


def test_without_a_home_no_folder_named_after_it_is_made_in_the_working_folder(
    tmp_path, monkeypatch
):
    def getpwuid(number):
        raise KeyError(number)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    folder = Path(replacement_of_cache({}))
    assert list(tmp_path.iterdir()) == []
    assert folder.is_absolute()
    folder.rmdir()


def test_the_folder_of_installed_packages_itself_may_be_in_the_path():
    assert list(shadows(str(Path(pytest.__file__).parents[1]))) == []
