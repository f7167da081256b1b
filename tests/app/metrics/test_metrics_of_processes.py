"""The replicas of a port: each of them answers for all."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import httpx

from app.metrics.shared_values import DIRECTORY_VARIABLE
from models.store.registry import Registry
from tests import children
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.engine_processes import processes_below
from tests.app.exposed import Exposed
from tests.app.served_api import ServedApi, served_api
from tests.waiting import wait_until

# what a process that counts nothing itself tells of a directory
ASK = """
from pathlib import Path
import sys
from prometheus_client import CollectorRegistry, generate_latest
from app.metrics.shared_values import share_values
registry = CollectorRegistry()
registry.register(share_values(Path(sys.argv[1])))
print(generate_latest(registry).decode(), end="")
"""
# what a process does that imports the library before it is told where its values go
LATE = """
import os, sys
import prometheus_client
from app.metrics.http_requests import HttpRequests
from app.metrics.shared_values import share_values, shared_directory
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
for _ in range(2):
    shared = share_values(shared_directory())
    HttpRequests(None).count("GET", "/late", 200)
    shared.write_out()
"""


def classify(api: ServedApi, times: int) -> None:
    for _ in range(times):
        answer = api.http.post(
            "/v1/classify?model=compass", content=pictures.png(), headers={"Content-Type": "image/png"}
        )
        assert answer.status_code == 200


def test_whichever_process_is_asked_tells_of_all(tmp_path: Path, redis_url: str) -> None:
    publish_compass(Registry(tmp_path / "registry"))
    with served_api(tmp_path, redis_url, "--processes", "2") as api:
        wait_until(api.answers)

        def told(name: str, **labels: str) -> float:
            return Exposed.of(api.http).value(name, **labels)

        wait_until(lambda: told("fovea_processes") == 2)
        classify(api, 16)
        # what another process counted is known a second later at most
        wait_until(lambda: told("fovea_predictions_total", model="compass", version="1", outcome="ok") == 16)
        wait_until(lambda: told("fovea_loaded_models") == 2)
        assert told("fovea_decode_seconds_count", model="compass") == 16
        assert told("fovea_max_pending_images") == 512
        assert told("fovea_build_info") == 1

        servers = processes_below(api.process.pid, b"app.cli")  # builders of backends run below them
        assert len(servers) == 2
        os.kill(servers[0], signal.SIGKILL)
        wait_until(lambda: is_one_left(api))  # the parent takes the gauges of the dead one away
        assert told("fovea_loaded_models") == 1
        assert told("fovea_predictions_total", model="compass", outcome="ok") == 16, "what it counted stays"


def is_one_left(api: ServedApi) -> bool:
    try:
        return Exposed.of(api.http).value("fovea_processes") == 1
    except httpx.TransportError:  # a connection that the killed one had taken
        return False


def exposed_of(directory: Path) -> Exposed:
    answer = children.run([sys.executable, "-c", ASK, str(directory)])
    return Exposed.read(answer.stdout)


def test_values_are_shared_although_the_library_was_imported_first(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != DIRECTORY_VARIABLE}
    for _ in range(2):
        children.run([sys.executable, "-c", LATE, str(tmp_path)], env=environment)
    (family,) = exposed_of(tmp_path).families
    assert [(sample.labels["route"], sample.value) for sample in family.samples] == [("/late", 4)]


def test_file_that_a_killed_process_left_empty_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "counter_1.db").touch()
    assert exposed_of(tmp_path).families == []
