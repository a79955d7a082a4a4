"""The thread that computes outlives what goes wrong in it."""

from __future__ import annotations

import threading

from iir_sdk.web.project.worker import Worker


def test_a_step_that_fails_does_not_end_the_worker(caplog):
    failed = threading.Event()

    def step() -> bool:
        failed.set()
        raise RuntimeError("out of memory")

    worker = Worker(step)
    worker.start()
    assert failed.wait(5)
    assert worker.submit(lambda: 7).result(5) == 7
    worker.wake()
    assert worker.submit(lambda: 8).result(5) == 8
    worker.stop()
    assert "background work failed" in caplog.text
