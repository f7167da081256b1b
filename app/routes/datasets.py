"""Datasets: upload an archive, show, preview, export and delete versions."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import Annotated, get_args
from zlib import ZLIB_RUNTIME_VERSION

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import Response, StreamingResponse

from app.dependencies import AfterQuery, DatasetsDep, IdempotencyDep, JobsDep, LimitQuery, ServicesDep
from app.http.documented_answers import file_part, form_body, json_answer, problems
from app.http.downloads import Download, download_headers, skip
from app.http.problems import errors_of
from app.http.refusals import BodyRule, takes_body
from app.http.uploads import Form
from app.routes.paging import page_of_names
from app.routes.uploading import Upload, answer_upload
from app.schemas.datasets import Dataset, DatasetPage, DatasetUpload
from app.services import Services
from app.version import fovea_version
from models.manifest import Task
from models.store.names import checked_name
from workers.datasets.archives.archive import ArchiveLimits
from workers.datasets.dataset import DatasetFormat, DatasetInfo
from workers.datasets.intake import ingest_archive
from workers.datasets.output.export import ExportFormat, export_zip
from workers.datasets.output.preview import preview_png
from workers.datasets.store import DatasetStore
from workers.errors import DamagedDataset, DatasetInUse, UnknownDataset

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/datasets", tags=["Datasets"])

_UPLOAD_SCHEMA = DatasetUpload.model_json_schema()["properties"]
# Swagger UI sends the first value of an `enum` by default, and null as text. Here an empty text means "detect it".
_UPLOAD_FIELDS = _UPLOAD_SCHEMA | {
    name: {
        "type": "string",
        "enum": ["", *get_args(choices)],
        "default": "",
        "description": _UPLOAD_SCHEMA[name]["description"],
    }
    for name, choices in (("task", Task), ("format", DatasetFormat))
}


@router.post(
    "",
    response_model=DatasetInfo,
    status_code=201,
    summary="Upload a dataset",
    openapi_extra=form_body(
        {
            "file": file_part(
                "A zip, tar or tar.gz: one folder per category, a CSV of `path,label`, COCO, Pascal VOC, YOLO, or "
                "images with masks of instances or categories."
            ),
            **_UPLOAD_FIELDS,
        },
        required=["file", "name"],
    ),
    responses=problems(400, 409, 413, 415, 422, 503, 507),
)
@takes_body(BodyRule(limit_bytes=lambda settings: settings.max_upload_bytes))
async def post_dataset(request: Request, services: ServicesDep, idempotency: IdempotencyDep) -> Response:
    """Unpacks the archive, detects its format, decodes every image, and publishes the next version of the dataset.

    The answer's `report` lists every finding: unreadable, duplicate and mislabelled images, boxes without area or
    outside their image, annotations without an image, a validation split that was made. If no usable image is left,
    the answer is 422 with the same list, and nothing is stored.
    """
    ingest = partial(_ingest, request.url.path)
    return await answer_upload(_ARCHIVE, ingest, request=request, services=services, idempotency=idempotency)


@router.get("", response_model=DatasetPage, summary="List datasets", responses=problems(422))
def list_datasets(datasets: DatasetsDep, limit: LimitQuery = 20, after: AfterQuery = None) -> DatasetPage:
    """Lists datasets by name, each with its newest version."""
    page = page_of_names(datasets.names(), limit=limit, after=after)
    return DatasetPage(data=_readable(datasets, page.names), has_more=page.has_more, next=page.next)


@router.get("/{name}", response_model=Dataset, summary="Show a dataset", responses=problems(404, 422))
def show_dataset(name: str, datasets: DatasetsDep) -> Dataset:
    """Shows the versions of a dataset and the details of the newest one."""
    return _dataset(datasets, name)


@router.get(
    "/{name}/{version}",
    response_model=DatasetInfo,
    summary="Show a version of a dataset",
    responses=problems(404, 422),
)
def show_dataset_version(name: str, version: int, datasets: DatasetsDep) -> DatasetInfo:
    """Shows format, categories, counts per split and category, sizes, fingerprint and report."""
    return datasets.get(name, version).info


@router.get(
    "/{name}/{version}/preview",
    response_class=Response,
    summary="Preview a dataset",
    responses={
        200: {"description": "A contact sheet", "content": {"image/png": {"schema": file_part("The image.")}}},
        **problems(404, 422),
    },
)
def preview_dataset(name: str, version: int, datasets: DatasetsDep, services: ServicesDep) -> Response:
    """Draws a contact sheet: images of all categories with labels, boxes and masks; always the same images."""
    found = datasets.get(name, version)
    return Response(preview_png(datasets, found, services.fonts), media_type="image/png")


@router.get(
    "/{name}/{version}/export",
    response_class=StreamingResponse,
    summary="Export a dataset",
    responses={
        200: {"description": "A zip", "content": {"application/zip": {"schema": file_part("The archive.")}}},
        **problems(404, 416, 422),
    },
)
def export_dataset(
    request: Request,
    name: str,
    version: int,
    datasets: DatasetsDep,
    format: Annotated[  # noqa: A002 -- the query parameter's name
        ExportFormat,
        Query(description="`coco` keeps masks as run lengths, `yolo` as outlines if every object has one."),
    ] = "coco",
) -> Response:
    """Exports the images, boxes and masks of a detection dataset, for other tools or for another upload.

    An interrupted download continues with a `Range` header, after the zip was packed once more to know its size.
    """
    found = datasets.get(name, version)
    pack = partial(export_zip, datasets, found, format)
    etag = f"{found.info.created_at.isoformat()}-{format}-{fovea_version()}-zlib-{ZLIB_RUNTIME_VERSION}"
    file_name = f"{name}-{version}-{format}.zip"
    if "range" not in request.headers:
        return StreamingResponse(pack(), headers=download_headers(etag, file_name), media_type="application/zip")
    return Download(
        request,
        lambda start: skip(start, pack()),
        size_bytes=sum(map(len, pack())),
        media_type="application/zip",
        etag=etag,
        file_name=file_name,
    )


@router.delete("/{name}", status_code=204, summary="Delete a dataset", responses=problems(404, 409, 422, 503))
def delete_dataset(name: str, datasets: DatasetsDep, jobs: JobsDep) -> None:
    """Deletes all versions of a dataset; 409 while a job needs one."""
    datasets.versions(name)
    _check_unused(jobs.jobs_using_dataset(name), name)
    datasets.delete(name)


@router.delete(
    "/{name}/{version}",
    status_code=204,
    summary="Delete a version of a dataset",
    responses=problems(404, 409, 422, 503),
)
def delete_dataset_version(name: str, version: int, datasets: DatasetsDep, jobs: JobsDep) -> None:
    """Deletes a version; 409 while a job needs it. Its number is not used again."""
    _check_unused(jobs.jobs_using_dataset(name, version), f"{name}/{version}")
    datasets.delete(name, version)


def _check_unused(job_ids: list[str], what: str) -> None:
    if job_ids:
        raise DatasetInUse(
            f"{what} is needed by {', '.join(job_ids[:5])}{', …' if len(job_ids) > 5 else ''}.",
            hint="Wait until these jobs have ended, or cancel them.",
        )


def _dataset(datasets: DatasetStore, name: str) -> Dataset:
    """The dataset with its newest readable version. Raises DamagedDataset if no version is readable."""
    versions = datasets.versions(name)
    for version in reversed(versions):
        try:
            return Dataset(name=name, versions=versions, latest=datasets.get(name, version).info)
        except DamagedDataset:
            if version == versions[0]:
                raise
    raise AssertionError


def _readable(datasets: DatasetStore, names: Iterable[str]) -> list[Dataset]:
    """The datasets with a readable version: one damaged file does not hide all the others."""
    found = []
    for name in names:
        try:
            found.append(_dataset(datasets, name))
        except (DamagedDataset, UnknownDataset) as error:
            log.warning("%s is left out of the list: %s", name, error)
    return found


def _check_field(name: str, value: str) -> None:
    """Refuses a bad name before the file arrives, if the client sends the name first."""
    if name == "name":
        checked_name(value, kind="dataset")


_ARCHIVE = Upload(
    what="A dataset", file_field="file", example="-F file=@photos.zip -F name=my-photos", check_field=_check_field
)


def _ingest(path: str, services: Services, form: Form) -> Response:
    file = form.one_file("file")
    try:
        # An empty form field counts as left out, except the name, which must not be empty.
        given = {name: value for name, value in form.fields.items() if value or name == "name"}
        wanted = DatasetUpload.model_validate(given)
    except ValidationError as error:
        raise errors_of(error, where="body") from error
    assert file.path is not None
    settings = services.settings
    limits = ArchiveLimits(
        max_files=settings.max_archive_files,
        max_bytes=settings.max_archive_bytes,
        max_ratio=settings.max_archive_ratio,
    )
    info = ingest_archive(
        file.path,
        name=wanted.name,
        store=services.datasets,
        limits=limits,
        task=wanted.task,
        format=wanted.format,
        validation_fraction=wanted.validation_fraction,
        seed=wanted.seed,
        group_by=wanted.group_by,
        now=services.now(),
        max_pixels=settings.max_image_pixels,
    ).info
    return json_answer(info, status=201, headers={"Location": f"{path}/{info.name}/{info.version}"})
