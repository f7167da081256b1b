"""Messages to the workers."""

from __future__ import annotations

import pytest

from workers.queue import enqueue, make_celery

NOBODY = "redis://127.0.0.1:1/0"  # no Redis listens on a reserved port


def test_job_that_cannot_be_sent_is_logged_and_left_to_the_sweep(caplog: pytest.LogCaptureFixture) -> None:
    celery = make_celery(NOBODY, visibility_timeout_s=1)

    enqueue(celery, "job-1", "request-1")

    assert "cannot send job job-1 to the workers now" in caplog.text
