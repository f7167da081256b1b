"""What large images took goes back to the system."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from models.store.registry import Registry
from tests.app.compass import publish_compass
from tests.app.served_api import served_api
from tests.waiting import wait_until

SIDE = 8_000
MIB = 1024**2


@pytest.mark.skipif(sys.platform != "linux", reason="other allocators are not told")
def test_server_is_no_larger_after_large_pictures(tmp_path: Path) -> None:
    publish_compass(Registry(tmp_path / "registry"))
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "red").save(file, "PNG", compress_level=1)

    def classify(picture: bytes) -> None:
        answer = served.http.post("/v1/classify?model=compass", content=picture, headers={"Content-Type": "image/png"})
        assert answer.status_code == 200, answer.text

    small = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(small, "PNG")
    with served_api(
        tmp_path, "redis://127.0.0.1:9/0", "--backend", "eager", "--max-image-pixels", "100000000"
    ) as served:
        wait_until(served.answers)
        classify(small.getvalue())
        process = psutil.Process(served.process.pid)
        before = process.memory_info().rss
        for _ in range(3):
            classify(file.getvalue())
        largest = SIDE * SIDE * 3  # bytes of one: more than that stayed for each thread that decoded
        wait_until(lambda: process.memory_info().rss < before + largest // 2)
