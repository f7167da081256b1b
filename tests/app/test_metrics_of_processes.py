"""Several API processes: whichever is asked tells of all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from app.metrics.shared_values import DIRECTORY_VARIABLE, forget_process
from models.registry import Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.exposed import Exposed
from tests.app.served_api import PROJECT_DIR, ServedApi, served_api, wait_for
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


def ok_predictions(api: ServedApi) -> float:
    return Exposed.of(api.http).value("fovea_predictions_total", model="compass", version="1", outcome="ok")


def loaded_models(api: ServedApi) -> float:
    return Exposed.of(api.http).value("fovea_loaded_models")


def knows_of_both(api: ServedApi) -> bool:
    return (ok_predictions(api), loaded_models(api)) == (5, 2)


def test_two_processes_tell_the_same_and_of_both(tmp_path: Path, redis_url: str) -> None:
    home, directory = tmp_path / "home", tmp_path / "metrics"
    home.mkdir()
    directory.mkdir()
    publish_compass(Registry(home / "registry"))
    shared = {DIRECTORY_VARIABLE: str(directory)}
    with served_api(home, redis_url, shared) as one, served_api(home, redis_url, shared) as two:
        wait_for(one, two)
        classify(one, 2)
        classify(two, 3)
        for api in (one, two):
            # what the other one says is a second old at most
            wait_until(partial(knows_of_both, api))
            told = Exposed.of(api.http)
            assert told.value("fovea_processes") == 2
            assert told.value("fovea_max_pending_images") == 512
            assert told.value("fovea_decode_seconds_count", model="compass") == 5
            assert told.value("fovea_build_info") == 1
            assert told.value("fovea_job_store_up") == 1

        two.process.kill()
        two.process.wait()
        forget_process(directory, two.process.pid)
        told = Exposed.of(one.http)
        assert told.value("fovea_processes") == 1, "its gauges are gone"
        assert loaded_models(one) == 1
        assert ok_predictions(one) == 5, "what it counted is not"
        forget_process(directory, two.process.pid)  # once more does no harm


def exposed_of(directory: Path) -> Exposed:
    answer = subprocess.run(
        [sys.executable, "-c", ASK, str(directory)], check=True, cwd=PROJECT_DIR, capture_output=True, text=True
    )
    return Exposed.read(answer.stdout)


def test_values_are_shared_although_the_library_was_imported_first(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != DIRECTORY_VARIABLE}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", LATE, str(tmp_path)], check=True, cwd=PROJECT_DIR, env=environment)
    (family,) = exposed_of(tmp_path).families
    assert [(sample.labels["route"], sample.value) for sample in family.samples] == [("/late", 4)]


def test_file_that_a_killed_process_left_empty_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "counter_1.db").touch()
    assert exposed_of(tmp_path).families == []
