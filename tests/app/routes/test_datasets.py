"""Datasets over HTTP: upload, report, preview, delete; the spool leaves nothing behind."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from app.cli import cli
from app.client import Client
from app.client.errors import ProblemError
from app.http.spool import Spool
from tests.app.archives import image_folder_zip
from tests.app.conftest import StartApi
from tests.app.http.test_requests import problem_of, spooled_files
from tests.app.pictures import png
from tests.app.running_api import RunningApi
from tests.datasets.builders import voc_archive
from tests.datasets.builders import zip_of as archive_of
from tests.workers.jobs_builders import a_config, a_job
from workers.datasets.dataset import DatasetInfo


def zip_of(*entries: tuple[str, bytes]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def test_archive_becomes_a_version_with_its_report(api: RunningApi) -> None:
    answer = api.http.post(
        "/v1/datasets",
        data={"name": "shades", "validation_fraction": "0.3", "seed": "7"},
        files={"file": ("shades.zip", image_folder_zip(), "application/zip")},
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == "/v1/datasets/shades/1"
    info = DatasetInfo.model_validate_json(answer.content)
    assert (info.categories, info.format, info.seed) == (("dark", "light"), "image_folder", 7)
    assert (info.splits["train"].images, info.splits["val"].images) == (14, 6)
    assert "split_made" in {finding.code for finding in info.report}
    assert api.http.get(answer.headers["Location"]).json() == answer.json()
    assert spooled_files(api) == []


def test_fields_left_empty_in_a_form_are_left_out(api: RunningApi) -> None:
    fields = {"name": "shades", "task": "", "format": "", "seed": ""}
    answer = api.http.post("/v1/datasets", data=fields, files={"file": ("s.zip", image_folder_zip())})
    assert answer.status_code == 201, answer.text


def test_second_upload_is_the_next_version(shades: RunningApi) -> None:
    archive = image_folder_zip(of_each=12)
    again = shades.http.post("/v1/datasets", data={"name": "shades"}, files={"file": ("s.zip", archive)})
    assert again.json()["version"] == 2
    shown = shades.http.get("/v1/datasets/shades").json()
    assert (shown["versions"], shown["latest"]["version"]) == ([1, 2], 2)


def test_list_comes_in_pages(shades: RunningApi) -> None:
    for name in ("alpha", "zeta"):
        shades.http.post("/v1/datasets", data={"name": name}, files={"file": ("s.zip", image_folder_zip())})
    first = shades.http.get("/v1/datasets", params={"limit": 2}).json()
    assert ([row["name"] for row in first["data"]], first["has_more"], first["next"]) == (
        ["alpha", "shades"],
        True,
        "shades",
    )
    rest = shades.http.get("/v1/datasets", params={"limit": 2, "after": first["next"]}).json()
    assert ([row["name"] for row in rest["data"]], rest["has_more"], rest["next"]) == (["zeta"], False, None)


def test_preview_is_a_png(shades: RunningApi) -> None:
    answer = shades.http.get("/v1/datasets/shades/1/preview")
    assert answer.headers["Content-Type"] == "image/png"
    assert Image.open(BytesIO(answer.content)).width > 300


def test_deleted_version_frees_its_disk(shades: RunningApi) -> None:
    assert shades.http.delete("/v1/datasets/shades/1").status_code == 204
    assert problem_of(shades.http.get("/v1/datasets/shades/1")).code == "unknown_dataset"
    assert list(shades.services.settings.datasets_dir.rglob("*.png")) == []


def test_damaged_version_is_said_hides_no_other_and_can_be_deleted(shades: RunningApi) -> None:
    damaged = shades.services.datasets.resolve("shades").path / "dataset.json"
    damaged.write_text("{")
    assert problem_of(shades.http.get("/v1/datasets/shades/1")).code == "damaged_dataset"
    assert shades.http.get("/v1/datasets").json()["data"] == []
    shades.http.post("/v1/datasets", data={"name": "shades"}, files={"file": ("s.zip", image_folder_zip())})
    assert [data_set["latest"]["version"] for data_set in shades.http.get("/v1/datasets").json()["data"]] == [2]
    assert shades.http.delete("/v1/datasets/shades/1").status_code == 204
    assert shades.http.get("/v1/datasets/shades").json()["versions"] == [2]


@pytest.mark.parametrize("version", ["2", "0", "-1", "99999999999999"])
def test_version_that_does_not_exist_is_not_found(shades: RunningApi, version: str) -> None:
    assert problem_of(shades.http.get(f"/v1/datasets/shades/{version}")).code == "unknown_dataset_version"


@pytest.mark.parametrize("path", ["/v1/datasets/shades", "/v1/datasets/shades/1"])
def test_data_set_that_a_job_needs_is_kept(shades: RunningApi, path: str) -> None:
    info = shades.services.datasets.resolve("shades").info
    job = shades.services.jobs.create(a_job(config=a_config(dataset=info.reference)))
    problem = problem_of(shades.http.delete(path))
    assert (problem.status, problem.code) == (409, "dataset_in_use")
    assert job.id in problem.detail
    shades.services.jobs.request_cancel(job.id)
    assert shades.http.delete(path).status_code == 204


@pytest.mark.parametrize(
    ("archive", "status", "code"),
    [
        (b"no archive", 422, "broken_archive"),
        (image_folder_zip()[:-100], 422, "broken_archive"),
        (zip_of(("../evil/a.png", png())), 422, "unsafe_archive"),
        (zip_of(("/etc/a.png", png())), 422, "unsafe_archive"),
        (zip_of(("a/1.png", bytes(20_000_000))), 422, "unusable_dataset"),
        (zip_of(("a/1.txt", b"text"), ("b/2.txt", b"text")), 422, "unusable_dataset"),
        (zip_of(*((f"only/{number}.png", png()) for number in range(5))), 422, "unusable_dataset"),
        (zip_of(), 422, "unusable_dataset"),
    ],
    ids=["no archive", "truncated", "..", "absolute", "no images but zeros", "no images", "one category", "empty"],
)
def test_archive_that_cannot_be_used_leaves_nothing(
    compass: RunningApi, archive: bytes, status: int, code: str
) -> None:
    problem = problem_of(compass.http.post("/v1/datasets", data={"name": "bad"}, files={"file": ("a.zip", archive)}))
    assert (problem.status, problem.code) == (status, code)
    assert compass.services.datasets.names() == ["shades"]
    assert spooled_files(compass) == []
    assert list(compass.services.settings.datasets_dir.glob(".tmp-*")) == []


def test_bomb_is_refused_by_its_ratio(compass: RunningApi) -> None:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(50_000_000))
    problem = problem_of(
        compass.http.post("/v1/datasets", data={"name": "bomb"}, files={"file": ("a.zip", file.getvalue())})
    )
    assert (problem.status, problem.code) == (422, "unsafe_archive")


def test_unusable_data_set_lists_everything_that_was_found(compass: RunningApi) -> None:
    archive = zip_of(*((f"{label}/{number}.png", b"no image") for label in "ab" for number in range(3)))
    problem = problem_of(compass.http.post("/v1/datasets", data={"name": "bad"}, files={"file": ("a.zip", archive)}))
    assert problem.code == "unusable_dataset"
    assert problem.findings
    assert any(finding.count == 6 for finding in problem.findings)


@pytest.mark.parametrize("name", ["a/b", "..", "a\0b", "x" * 300, "категория", "", "-a", ".hidden"])
def test_impossible_name_is_refused(compass: RunningApi, name: str) -> None:
    answer = compass.http.post("/v1/datasets", data={"name": name}, files={"file": ("a.zip", image_folder_zip())})
    assert problem_of(answer).code == "invalid_name"
    assert compass.services.datasets.names() == ["shades"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "name"),
        ({"name": "a", "validation_fraction": "1.5"}, "validation_fraction"),
        ({"name": "a", "validation_fraction": "nan"}, "validation_fraction"),
        ({"name": "a", "seed": "-1"}, "seed"),
        ({"name": "a", "format": "tfrecord"}, "format"),
        ({"name": "a", "task": "tracking"}, "task"),
        ({"name": "a", "nmae": "b"}, "nmae"),
    ],
)
def test_field_out_of_range_is_named(compass: RunningApi, fields: dict[str, str], field: str) -> None:
    problem = problem_of(compass.http.post("/v1/datasets", data=fields, files={"file": ("a.zip", image_folder_zip())}))
    assert problem.status == 422
    assert problem.errors
    assert problem.errors[0].field == field


def test_form_without_a_file_is_refused(compass: RunningApi) -> None:
    problem = problem_of(compass.http.post("/v1/datasets", data={"name": "a"}, files={"archive": ("a.zip", b"")}))
    assert (problem.status, problem.code, problem.hint) == (422, "invalid_request", "Files go into 'file'.")
    assert [error.field for error in problem.errors or ()] == ["archive"]


def test_body_that_is_no_form_is_refused(compass: RunningApi) -> None:
    problem = problem_of(compass.http.post("/v1/datasets", content=image_folder_zip()))
    assert (problem.status, problem.code) == (415, "unsupported_body")


def test_upload_larger_than_the_disk_is_refused_before_it_comes(
    compass: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.http.spool.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    answer = compass.http.post("/v1/datasets", data={"name": "a"}, files={"file": ("a.zip", image_folder_zip())})
    assert (problem_of(answer).status, answer.json()["code"]) == (507, "disk_full")


def test_disk_that_fills_up_while_an_upload_comes_is_said(compass: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.http.uploads._FormReader._store", full)
    answer = compass.http.post("/v1/datasets", data={"name": "a"}, files={"file": ("a.zip", image_folder_zip())})
    assert (problem_of(answer).status, answer.json()["code"]) == (507, "disk_full")
    assert spooled_files(compass) == []


def test_names_of_paths_are_checked_too(compass: RunningApi) -> None:
    assert problem_of(compass.http.get("/v1/datasets/..%5c..")).code == "invalid_name"
    assert problem_of(compass.http.get("/v1/datasets/%2e%2e/1")).status in (404, 422)
    assert problem_of(compass.http.get("/v1/datasets/a%00b")).code == "invalid_name"
    assert problem_of(compass.http.get("/v1/datasets/nothing/0")).status in (404, 422)


def test_spool_of_a_dead_process_is_cleared_and_that_of_a_living_one_kept(tmp_path: Path) -> None:
    living = Spool.open(tmp_path)
    kept = living.new_path()
    kept.write_bytes(b"x")
    dead = tmp_path / "tmp" / "api-dead"
    dead.mkdir()
    (dead / "upload").write_bytes(b"x")
    Spool.open(tmp_path).close()
    assert kept.exists()
    assert not dead.exists()
    living.close()
    assert not kept.exists()


def test_upload_works_without_redis_when_no_key_asks_for_more(start_api: StartApi) -> None:
    api = start_api(redis_url="redis://127.0.0.1:1/0")
    answer = api.http.post("/v1/datasets", data={"name": "a"}, files={"file": ("a.zip", image_folder_zip())})
    assert answer.status_code == 201
    keyed = api.http.post(
        "/v1/datasets",
        data={"name": "a"},
        files={"file": ("a.zip", image_folder_zip())},
        headers={"Idempotency-Key": "k"},
    )
    assert (problem_of(keyed).status, keyed.json()["code"]) == (503, "redis_unavailable")
    assert api.http.get("/v1/datasets/a").json()["versions"] == [1]


def cells_zip(count: int = 10) -> bytes:
    """Pascal VOC, a box each."""
    return archive_of(voc_archive(count=count)).getvalue()


@pytest.fixture
def cells(api: RunningApi) -> RunningApi:
    """An API with a dataset of boxes, `cells`."""
    answer = api.http.post("/v1/datasets", data={"name": "cells"}, files={"file": ("c.zip", cells_zip())})
    assert answer.status_code == 201, answer.text
    return api


def test_boxes_are_found_by_themselves_and_drawn(cells: RunningApi) -> None:
    info = DatasetInfo.model_validate(cells.http.get("/v1/datasets/cells/1").json())
    assert (info.task, info.format, info.categories) == ("detection", "pascal_voc", ("cell",))
    answer = cells.http.get("/v1/datasets/cells/1/preview")
    assert answer.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("format_name", ["coco", "yolo"])
def test_export_is_a_zip_that_can_be_posted_again(cells: RunningApi, format_name: str) -> None:
    answer = cells.http.get("/v1/datasets/cells/1/export", params={"format": format_name})
    assert answer.headers["Content-Type"] == "application/zip"
    assert f"cells-1-{format_name}.zip" in answer.headers["Content-Disposition"]
    again = cells.http.post("/v1/datasets", data={"name": "again"}, files={"file": ("a.zip", answer.content)}).json()
    assert again["format"] == format_name
    assert again["fingerprint"] == cells.services.datasets.resolve("cells").info.fingerprint


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/datasets/shades/1/export", 422, "cannot_export"),
        ("/v1/datasets/shades/9/export", 404, "unknown_dataset_version"),
        ("/v1/datasets/nothing/1/export", 404, "unknown_dataset"),
        ("/v1/datasets/shades/1/export?format=voc", 422, "invalid_request"),
    ],
)
def test_export_of_what_cannot_be_is_refused(compass: RunningApi, path: str, status: int, code: str) -> None:
    problem = problem_of(compass.http.get(path))
    assert (problem.status, problem.code) == (status, code)
    assert problem.hint or problem.errors


def test_boxes_posted_for_classification_are_refused_with_what_fits(compass: RunningApi) -> None:
    fields = {"name": "bad", "task": "classification"}
    problem = problem_of(compass.http.post("/v1/datasets", data=fields, files={"file": ("c.zip", cells_zip())}))
    assert problem.code == "unusable_dataset"
    assert "This is a detection dataset" in problem.detail
    assert "task=detection" in str(problem.hint)


def test_client_and_command_line_export_to_a_file(cells: RunningApi, tmp_path: Path) -> None:
    url = str(cells.http.base_url)
    with Client(url) as client:
        target = tmp_path / "cells.zip"
        assert client.datasets.export("cells", 1, target, format="yolo") == target.stat().st_size
    result = CliRunner().invoke(
        cli, ["datasets", "export", "cells", "--format", "yolo", "--out", str(tmp_path / "again.zip"), "--url", url]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "again.zip").read_bytes() == target.read_bytes()
    shown = CliRunner().invoke(cli, ["datasets", "show", "cells", "--url", url])
    assert "TRAIN OBJECTS" in shown.output


def test_export_that_is_refused_leaves_no_file(shades: RunningApi, tmp_path: Path) -> None:
    target = tmp_path / "shades.zip"
    with Client(str(shades.http.base_url)) as client, pytest.raises(ProblemError, match="classification dataset"):
        client.datasets.export("shades", 1, target)
    assert list(tmp_path.glob("*.zip*")) == []
    assert list(tmp_path.glob(".*.part")) == []
