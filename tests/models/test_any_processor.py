"""Numerical tests once more, in the arithmetic of processors without AVX-512."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SOME = ["models/test_folding.py", "models/test_predicting.py"]
ALL = [*SOME, "models/test_network.py", "models/test_weights.py", "models/test_timm.py"]
BFLOAT16 = ["models/test_network.py", "models/test_precision.py", "inference/test_infer.py"]
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
EMULATED = {"TF_ENABLE_ONEDNN_OPTS": "0"}  # bfloat16 of TensorFlow without AVX-512


@pytest.mark.parametrize(
    ("variables", "files", "marks"),
    [
        pytest.param(AVX2, SOME, "not slow and not bfloat16", id="float32"),
        pytest.param(EMULATED, BFLOAT16, "not slow and bfloat16", id="bfloat16"),
        pytest.param(AVX2, ALL, "not bfloat16", id="more", marks=pytest.mark.slow),
    ],
)
def test_networks_compute_the_same_without_avx_512(variables, files, marks):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", marks, *(str(TESTS / file) for file in files)],
        cwd=TESTS.parent,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
    assert "failed" not in done.stdout.splitlines()[-1]
