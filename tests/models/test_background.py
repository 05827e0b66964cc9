import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from luneta.models.background import Behind, ahead


def threads(name):
    return [t for t in threading.enumerate() if t.name.startswith(name)]


def test_the_next_item_is_made_while_one_is_used_and_no_more():
    made = []

    def items():
        for i in range(5):
            made.append(i)
            yield i

    with closing(ahead(items())) as taken:
        assert next(taken) == 0
        deadline = time.monotonic() + 10
        while len(made) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert made == [0, 1]
        assert list(taken) == [1, 2, 3, 4]
    assert not threads("ahead")


def test_items_are_made_in_another_thread():
    names = list(ahead(threading.current_thread().name for _ in range(2)))
    assert all(name.startswith("ahead") for name in names)


def test_an_error_comes_out_where_its_item_would_have():
    def items():
        yield 1
        raise OSError("the disk is gone")

    taken = ahead(items())
    assert next(taken) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(taken)
    assert not threads("ahead")


def test_the_thread_ends_when_the_work_fails():
    with pytest.raises(ZeroDivisionError), closing(ahead(range(10**9))) as taken:
        for i in taken:
            1 / (i - 3)
    assert not threads("ahead")


def test_work_is_done_in_order_one_behind():
    done, running = [], threading.Event()

    def work(item):
        running.wait(10)
        done.append(item)

    with Behind(work) as behind:
        behind.put(1)
        assert done == []  # `put` does not wait for its own item
        running.set()
        for item in (2, 3):
            behind.put(item)
            assert done == list(range(1, item))  # but for the one before
    assert done == [1, 2, 3]
    assert not threads("behind")


def test_an_error_of_the_work_comes_out_of_the_next_put_or_the_end():
    def work(item):
        raise OSError(f"no room for {item}")

    with pytest.raises(OSError, match="no room for a"), Behind(work) as behind:
        behind.put("a")
        behind.put("b")
    with pytest.raises(OSError, match="no room for c"), Behind(work) as behind:
        behind.put("c")
    with pytest.raises(ZeroDivisionError), Behind(work) as behind:  # the first error is told
        behind.put("d")
        raise ZeroDivisionError
    assert not threads("behind")


# A process that a shell starts in the background ignores Ctrl-C, and so do those it starts
INTERRUPTED = """
import signal, time
from contextlib import closing
from luneta.models.background import Behind, ahead

signal.signal(signal.SIGINT, signal.default_int_handler)

def slow():
    i = 0
    while True:
        time.sleep(0.05)
        yield i
        i += 1

with closing(ahead(slow())) as items, Behind(lambda item: time.sleep(0.05)) as behind:
    for item in items:
        behind.put(item)
        if item == 1:
            print("at work", flush=True)
"""


def test_control_c_ends_the_process():
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "at work\n"
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
    assert said.strip().endswith("KeyboardInterrupt")
