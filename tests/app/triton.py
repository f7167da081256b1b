"""What tests send with the unmodified `tritonclient[http]`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from tritonclient import http

from tests.app.running_api import RunningApi


@contextmanager
def client_of(api: RunningApi) -> Iterator[Any]:
    with http.InferenceServerClient(f"127.0.0.1:{api.port}") as client:
        yield client


def files_input(*files: bytes, binary: bool = True) -> Any:
    tensor = http.InferInput("image", [len(files), 1], "BYTES")
    elements = np.array([[file] for file in files], object)
    return tensor.set_data_from_numpy(elements, binary_data=binary)
