"""Reads the tasks of a Label Studio export, JSON or JSON-MIN: the image and the results of each.

Source: labelstud.io/guide/export and /guide/task_format.
"""

from __future__ import annotations

import mmap
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.file_names import FileNames
from workers.datasets.formats.json_values import BadJsonFile, load_json, text_of
from workers.datasets.formats.reading import unusable

SHAPE_KEYS = ("rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels")
_MAX_BYTES = 256 * 2**20
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts it before the name of an uploaded file
_IMAGE_SUFFIX = re.compile(r".+\.\w{3,4}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudioTask:
    """One image of an export."""

    where: str
    image: str  # URL or path; empty if the task names no image
    results: Sequence[Mapping[str, Any]]  # `value`, and `original_width` and `original_height`
    annotations: int  # number of annotations; `results` are those of the first
    is_readable: bool = True


def is_export(file: ArchivedFile, keys: Sequence[str]) -> bool:
    """Returns True if `file` is a list of tasks with one of `keys`."""
    if not file.name.lower().endswith(".json") or not file.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return False
    with file.path.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
        is_studio = data.find(b'"annotat') >= 0 or data.find(b'"completions"') >= 0
        return is_studio and any(data.find(f'"{key}"'.encode()) >= 0 for key in keys)


def read_tasks(file: ArchivedFile) -> Iterator[StudioTask]:
    """Yields the tasks of an export. Raises UnusableDataset if it is not JSON."""
    try:
        content = load_json(file, max_bytes=_MAX_BYTES)
    except BadJsonFile as error:
        raise unusable(
            f"{file.name} cannot be read: {error}.",
            hint="If the file ends early, export it again.",
            code="broken_json",
            files=[file.name],
        ) from error
    for number, entry in enumerate(content if isinstance(content, list) else [None], start=1):
        where = f"{file.name}: task {number}"
        if isinstance(entry, dict):
            yield _task(entry, where)
        else:
            yield StudioTask(where=where, image="", results=(), annotations=0, is_readable=False)


def find_image(task: StudioTask, names: FileNames, *, near: str) -> ArchivedFile | None:
    """Finds the image of a task, with or without the prefix of an upload."""
    path = unquote(task.image.partition("?d=")[2] or task.image)
    folder, base = posixpath.split(path.replace("\\", "/"))
    return names.find(path, near=near) or names.find(
        posixpath.join(folder, _UPLOAD_PREFIX.sub("", base, count=1)), near=near
    )


def _task(entry: Mapping[str, Any], where: str) -> StudioTask:
    data = entry.get("data")
    annotations = entry.get("annotations", entry.get("completions"))
    if not isinstance(data, dict) or not isinstance(annotations, list):
        return StudioTask(where=where, image=_image(entry), results=_short_results(entry), annotations=1)
    valid = [each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")]
    results = valid[0].get("result") if valid else None
    is_readable = len(valid) == 0 or (isinstance(results, list) and all(isinstance(each, dict) for each in results))
    return StudioTask(
        where=where,
        image=_image(data),
        results=results if is_readable and isinstance(results, list) else (),
        annotations=len(valid),
        is_readable=is_readable,
    )


def _image(data: Mapping[str, Any]) -> str:
    """Returns the image of a task: `image`, `img` and others, else the first value that looks like a file."""
    values = [text_of(data.get(key)) for key in ("image", "img", "url")] + [text_of(each) for each in data.values()]
    return next((value for value in values if _IMAGE_SUFFIX.fullmatch(value)), "")


def _short_results(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the results of JSON-MIN, whose shapes are lists and whose choices are texts under `choice`."""
    results: list[Mapping[str, Any]] = []
    for key, value in entry.items():
        shapes = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
        results += [{**each, "value": each} for each in shapes if any(shape in each for shape in SHAPE_KEYS)]
        if key in ("choice", "choices"):
            choices = value.get("choices") if isinstance(value, dict) else value
            results.append({"value": {"choices": choices if isinstance(choices, list) else [choices]}})
    return results
