"""Interrupted downloads go on: every download answers the byte ranges of HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.http.downloads import skip
from tests import children
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.http.test_requests import problem_of
from tests.app.routes.test_datasets import cells_zip
from tests.app.routes.test_jobs import make_job
from tests.app.running_api import RunningApi

STATE_DICT = "/v1/models/needle/versions/1/state_dict"


@pytest.fixture
def paths(shades: RunningApi, tmp_path: Path) -> dict[str, str]:
    """A path of every kind of download, with something behind it."""
    report = tmp_path / "report"
    report.mkdir()
    (report / "curves.png").write_bytes(pictures.png())
    publish_compass(shades.services.registry, "needle", report_dir=report)
    answer = shades.http.post("/v1/datasets", data={"name": "cells"}, files={"file": ("c.zip", cells_zip())})
    assert answer.status_code == 201
    job = make_job(shades)
    run = shades.services.jobs.run(job.id)
    run.report.mkdir(parents=True)
    (run.report / "report.json").write_text('{"top1": 0.5}')
    run.log.write_text("epoch 1\nepoch 2\n")
    return {
        "safetensors": STATE_DICT,
        "pth": f"{STATE_DICT}?format=pth",
        "version's report": "/v1/models/needle/versions/1/report/curves.png",
        "job's report": f"/v1/jobs/{job.id}/report/report.json",
        "log": f"/v1/jobs/{job.id}/log",
        "coco": "/v1/datasets/cells/1/export?format=coco",
        "yolo": "/v1/datasets/cells/1/export?format=yolo",
    }


def test_every_download_goes_on_where_it_was_interrupted(shades: RunningApi, paths: dict[str, str]) -> None:
    for kind, path in paths.items():
        whole = shades.http.get(path)
        content, size = whole.content, len(whole.content)
        assert (whole.status_code, whole.headers["Accept-Ranges"]) == (200, "bytes"), kind
        for asked, start, end in (
            ("bytes=5-", 5, size),
            ("bytes=0-0", 0, 1),
            (f"bytes=3-{size + 10}", 3, size),
            ("bytes=-5", size - 5, size),
            (f"Bytes = 2 - {size - 2}", 2, size - 1),
        ):
            part = shades.http.get(path, headers={"Range": asked})
            assert (part.status_code, part.content) == (206, content[start:end]), (kind, asked)
            assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}", (kind, asked)
            assert part.headers["Content-Type"] == whole.headers["Content-Type"], (kind, asked)
            assert part.headers.get("ETag") == whole.headers.get("ETag"), (kind, asked)


def test_range_behind_the_end_is_a_problem_that_says_the_size(shades: RunningApi, paths: dict[str, str]) -> None:
    for kind, path in paths.items():
        size = len(shades.http.get(path).content)
        for asked in (f"bytes={size}-", "bytes=99999999999-", "bytes=-0"):
            answer = shades.http.get(path, headers={"Range": asked})
            assert (problem_of(answer).code, answer.headers["Content-Range"]) == (
                "range_not_satisfiable",
                f"bytes */{size}",
            ), (kind, asked)


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=-", "bytes=a-", "bytes=0-1,5-6", "lines=1-2", "bytes 1-2", "", f"bytes={'9' * 5000}-"]
)
def test_range_that_is_not_read_gives_the_whole(compass: RunningApi, asked: str) -> None:
    path = "/v1/models/compass/versions/1/state_dict"
    answer = compass.http.get(path, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, compass.http.get(path).content)


def test_range_of_another_version_of_the_content_gives_the_whole(shades: RunningApi, paths: dict[str, str]) -> None:
    for kind, path in paths.items():
        etag = shades.http.get(path).headers.get("ETag")
        for condition, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200), ('"None"', 200)):
            if condition is not None:
                answer = shades.http.get(path, headers={"Range": "bytes=5-", "If-Range": condition})
                assert answer.status_code == status, (kind, condition)


def test_entity_tags_are_strong_and_different(shades: RunningApi, paths: dict[str, str]) -> None:
    tags = {kind: shades.http.get(path).headers.get("ETag") for kind, path in paths.items()}
    assert tags.pop("log") is None  # it grows
    assert all(tag and tag.startswith('"') for tag in tags.values())
    assert len(set(tags.values())) == len(tags)
    assert shades.services.registry.get("needle", 1).manifest.sha256 in str(tags["safetensors"])


def test_log_that_grew_is_read_on(shades: RunningApi, paths: dict[str, str]) -> None:
    read = shades.http.get(paths["log"]).content
    log = shades.services.jobs.run(paths["log"].split("/")[3]).log
    with log.open("a") as file:
        file.write("epoch 3\n")
    more = shades.http.get(paths["log"], headers={"Range": f"bytes={len(read)}-"})
    assert (more.status_code, more.content) == (206, b"epoch 3\n")


def test_head_ignores_a_range(compass: RunningApi) -> None:
    path = "/v1/models/compass/versions/1/state_dict"
    head = compass.http.head(path, headers={"Range": "bytes=5-"})
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(compass.http.get(path).content)))


@pytest.mark.parametrize("program", ["curl", "wget"])
def test_curl_and_wget_continue_every_download(
    shades: RunningApi, paths: dict[str, str], tmp_path: Path, program: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    for kind, path in paths.items():
        content = shades.http.get(path).content
        file = tmp_path / f"{program}-{kind}"
        file.write_bytes(content[:7])
        url = f"http://127.0.0.1:{shades.port}{path}"
        options = ("-sC", "-", "-o") if program == "curl" else ("-qc", "-O")
        for _ in range(2):  # the second time nothing is missing
            result = children.run([program, *options, str(file), url], check=False)
            assert result.returncode == 0, kind
            assert file.read_bytes() == content, kind


def test_skipped_bytes_may_end_within_a_piece() -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b"abc", b"", b"def", b"ghi")

    for count in range(11):
        assert b"".join(skip(count, pieces())) == b"abcdefghi"[count:]
