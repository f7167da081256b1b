"""The commands against a real server, from images in a directory to answers on the terminal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests import children
from tests.cli.pictures import write_pictures
from tests.cli.real_stack import RealStack, real_stack
from tests.cli.running import as_json, fovea
from tests.waiting import PATIENCE_S, wait_until

TRAINING = ["--model", "garment_classifier", "--weights", "none", "--data-workers", "0", "--augmentation", "none"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStack]:
    directory = tmp_path_factory.mktemp("stack")
    with real_stack(directory / "home", "--cancel-grace-s", "1", output=directory / "output") as stack:
        yield stack


@pytest.fixture(scope="module")
def server(stack: RealStack) -> str:
    return stack.wait_until_ready()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def trained(server: str, pictures: Path) -> dict[str, Any]:
    """The job that made the model `lights`, version 1."""
    quickly = ["--epochs", "6", "--batch-size", "4", "--learning-rate", "0.05"]
    arguments = ["train", str(pictures), *TRAINING, *quickly, "--name", "lights", "--watch", "--json"]
    result = fovea(server, *arguments)
    assert result.exit_code == 0, result.stderr
    job: dict[str, Any] = json.loads(result.stdout)
    return job


def test_banner_leads_to_the_api_and_its_documentation(server: str) -> None:
    assert httpx.get(f"{server}/readyz", timeout=PATIENCE_S).status_code == 200
    assert httpx.get(f"{server}/docs", timeout=PATIENCE_S).status_code == 200


def test_second_up_on_the_same_home_is_refused_with_where_the_first_is(stack: RealStack, server: str) -> None:
    command = [sys.executable, "-m", "app.cli", "up", "--home", str(stack.home), "--port", "0"]
    second = children.run(command, check=False)

    assert second.returncode == 1
    assert f"process {stack.process.pid}" in second.stderr
    assert server in second.stderr


def test_training_a_directory_publishes_and_promotes_a_model(server: str, trained: dict[str, Any]) -> None:
    assert trained["status"] == "succeeded"
    assert trained["result"]["model"] == "lights"

    (model,) = (model for model in as_json(server, "models", "list") if model["name"] == "lights")

    assert model["aliases"] == {"production": 1}


def test_pictures_are_classified_by_the_new_model(server: str, trained: dict[str, Any], pictures: Path) -> None:
    paths = [str(pictures / label / f"{number}.png") for label in ("bright", "dark") for number in range(10)]

    answer = as_json(server, "classify", *paths, "--model", "lights", "--top-k", "1")

    labels = [prediction["classes"][0]["label"] for prediction in answer["predictions"]]
    assert labels == ["bright"] * 10 + ["dark"] * 10


def test_file_that_is_no_picture_is_said_and_the_others_answered(
    server: str, trained: dict[str, Any], pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")

    result = fovea(server, "classify", str(pictures / "dark/0.png"), str(tmp_path / "notes.txt"), "--model", "lights")

    assert result.exit_code == 1
    assert "dark" in result.stdout
    assert "notes.txt" in result.stdout


def test_unknown_model_exits_with_1_and_says_what_there_is(
    server: str, trained: dict[str, Any], pictures: Path
) -> None:
    result = fovea(server, "classify", str(pictures / "dark/0.png"), "--model", "light")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "lights" in result.stderr


def test_dataset_is_shown_with_its_counts_and_its_report(server: str, trained: dict[str, Any]) -> None:
    result = fovea(server, "datasets", "show", "lights")

    assert result.exit_code == 0
    for words in ("lights/1", "bright", "dark", "REPORT"):
        assert words in result.stdout


def test_preview_is_written_to_a_file(server: str, trained: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"

    result = fovea(server, "datasets", "preview", "lights/1", "--out", str(target))

    assert result.exit_code == 0, result.stderr
    with Image.open(target) as sheet:
        assert sheet.format == "PNG"


def test_dataset_is_uploaded_listed_and_deleted(server: str, pictures: Path) -> None:
    made = as_json(server, "datasets", "upload", str(pictures), "--name", "short-lived")
    assert made["version"] == 1
    assert "short-lived" in fovea(server, "datasets", "list").stdout

    assert fovea(server, "datasets", "delete", "short-lived", "--yes").exit_code == 0

    assert fovea(server, "datasets", "show", "short-lived").exit_code == 1


def test_archive_without_pictures_is_refused_with_what_was_found(server: str, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/notes.txt").write_text("no picture")

    result = fovea(server, "datasets", "upload", str(tmp_path / "texts"))

    assert result.exit_code == 1
    assert "Hint:" in result.stderr


def test_job_is_listed_and_shown(server: str, trained: dict[str, Any]) -> None:
    listed = fovea(server, "jobs", "list").stdout
    assert listed.split("\n")[0].split()[:3] == ["JOB", "TYPE", "STATUS"]
    assert [trained["id"], "fine_tune", "succeeded", "100%"] in [line.split()[:4] for line in listed.split("\n")]
    shown = fovea(server, "jobs", "show", trained["id"])
    for words in ("succeeded", "lights/1", "garment_classifier", "batch_size"):
        assert words in shown.stdout


def test_metrics_and_log_of_a_job_are_printed(server: str, trained: dict[str, Any]) -> None:
    points = as_json(server, "jobs", "metrics", trained["id"])
    log = fovea(server, "jobs", "log", trained["id"])

    assert any("val/top1" in point["metrics"] for point in points)
    assert "epoch 6" in log.stdout


def test_watching_an_ended_job_tells_all_its_epochs(server: str, trained: dict[str, Any]) -> None:
    result = fovea(server, "jobs", "watch", trained["id"])

    assert result.exit_code == 0
    assert "epoch 6/6" in result.stderr
    assert result.stdout.startswith("lights/1")


def test_model_is_downloaded_uploaded_promoted_and_deleted(
    server: str, trained: dict[str, Any], tmp_path: Path
) -> None:
    target = tmp_path / "lights.safetensors"
    assert fovea(server, "models", "download", "lights/1", "--out", str(target)).exit_code == 0

    upload = ["models", "upload", "copied", str(target), "--architecture", "garment_classifier"]
    for _ in range(2):
        published = as_json(server, *upload, "--categories", "bright, dark")

    assert (published["name"], published["version"], published["categories"]) == ("copied", 2, ["bright", "dark"])
    assert fovea(server, "models", "promote", "copied/1").stdout == "copied@production is version 1\n"
    assert fovea(server, "models", "delete", "copied/1").exit_code == 1
    assert fovea(server, "models", "delete", "copied/2").exit_code == 0


def test_weights_of_another_architecture_are_refused_key_by_key(
    server: str, trained: dict[str, Any], tmp_path: Path
) -> None:
    target = tmp_path / "lights.safetensors"
    fovea(server, "models", "download", "lights/1", "--out", str(target))

    result = fovea(
        server, "models", "upload", "odd", str(target), "--architecture", "resnet18", "--categories", "bright,dark"
    )

    assert result.exit_code == 1
    assert "missing: bn1.weight" in result.stderr


def test_dry_run_shows_the_whole_configuration(server: str, trained: dict[str, Any]) -> None:
    result = fovea(server, "train", "--dataset", "lights", *TRAINING, "--dry-run")

    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["config"]["hyperparameters"]["learning_rate"] > 0


def test_cancelled_job_exits_with_5_for_who_watches(server: str, trained: dict[str, Any]) -> None:
    job_id = _start_long_job(server)

    assert fovea(server, "jobs", "cancel", job_id).exit_code == 0
    watched = fovea(server, "jobs", "watch", job_id)

    assert watched.exit_code == 5
    assert f"fovea jobs retry {job_id}" in watched.stderr
    assert fovea(server, "jobs", "delete", job_id).exit_code == 0


def test_job_that_fails_exits_with_4_and_says_why(server: str, trained: dict[str, Any]) -> None:
    flags = [*TRAINING, "--learning-rate", "10", "--momentum", "0.99", "--batch-size", "1", "--epochs", "50"]

    result = fovea(server, "train", "--dataset", "lights", *flags, "--watch")

    assert result.exit_code == 4
    assert "failed" in result.stderr


def test_ctrl_c_while_watching_leaves_the_job_running(server: str, trained: dict[str, Any]) -> None:
    job_id = _start_long_job(server)
    command = [sys.executable, "-m", "app.cli", "jobs", "watch", job_id, "--url", server]
    with children.child(command, stderr=subprocess.PIPE, text=True) as watcher:
        assert watcher.stderr is not None
        watcher.stderr.readline()
        watcher.send_signal(signal.SIGINT)
        _, said = watcher.communicate(timeout=PATIENCE_S)

    assert watcher.returncode == 130
    assert f"fovea jobs watch {job_id}" in said
    assert f"fovea jobs cancel {job_id}" in said
    assert as_json(server, "jobs", "show", job_id)["status"] in ("queued", "running")
    fovea(server, "jobs", "cancel", job_id)


def test_stopped_job_publishes_its_best_weights(server: str, trained: dict[str, Any]) -> None:
    job_id = _start_long_job(server, "--publish-as", "stopped-early")
    wait_until(lambda: as_json(server, "jobs", "show", job_id)["progress"]["epoch"] > 0, interval_s=0.5)

    assert fovea(server, "jobs", "stop", job_id).exit_code == 0
    watched = fovea(server, "jobs", "watch", job_id)

    assert watched.exit_code == 0
    assert watched.stdout.startswith("stopped-early/1")


def test_catalogue_is_listed_and_one_of_it_shown(server: str) -> None:
    assert "garment_classifier" in fovea(server, "architectures").stdout
    shown = fovea(server, "architectures", "resnet18")
    assert "layer1.0.conv1" in shown.stdout
    assert "IMAGENET1K_V1" in shown.stdout


def test_system_says_what_runs(server: str) -> None:
    assert "Python" in fovea(server, "system").stdout or "python" in fovea(server, "system").stdout


def _start_long_job(server: str, *flags: str) -> str:
    result = fovea(server, "train", "--dataset", "lights", *TRAINING, "--epochs", "10000", *flags)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()
