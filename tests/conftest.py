import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def server():
    """A web server on this machine, whose answers a test sets."""
    from web_server import WebServer

    served = WebServer()
    served.start()
    yield served
    served.stop()


def pytest_runtest_setup(item):
    """Leave tests in bfloat16 to `models/test_any_processor.py` where TensorFlow would fail.

    It hands bfloat16 to oneDNN by what the processor can, not by what oneDNN is held to.
    """
    is_held = os.environ.get("ONEDNN_MAX_CPU_ISA") in ("SSE41", "AVX", "AVX2")
    uses_onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"
    if item.get_closest_marker("bfloat16") and is_held and uses_onednn:
        pytest.skip("run without oneDNN by tests/models/test_any_processor.py")
