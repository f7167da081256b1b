"""The client's methods for datasets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from app.client.pages import PAGE_LIMIT, items, segment
from app.client.transport import Call, Transport
from app.client.upload import Progress, open_counted
from app.schemas.datasets import Dataset, DatasetPage
from app.schemas.page import Page
from models.manifest import Task
from workers.datasets.dataset import DatasetFormat, DatasetInfo
from workers.datasets.validation.splits import GroupBy

# The server sends nothing while it unpacks and decodes 100,000 images.
_VALIDATION_TIMEOUT_S = 4 * 3600.0


class Datasets:
    """`client.datasets`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        archive: Path,
        name: str,
        *,
        task: Task | None = None,
        format: DatasetFormat | None = None,  # noqa: A002 (the API's word)
        validation_fraction: float | None = None,
        seed: int | None = None,
        group_by: GroupBy | None = None,
        progress: Progress | None = None,
    ) -> DatasetInfo:
        """Uploads a zip or tar archive and returns the new version with its report.

        progress: called with the bytes sent and the total after every piece. Raises ClientError, OSError.
        """
        form = {
            "name": name,
            "task": task,
            "format": format,
            "validation_fraction": validation_fraction,
            "seed": seed,
            "group_by": group_by,
        }
        with open_counted(archive, progress) as file:
            call = Call(
                method="POST",
                path="/v1/datasets",
                form={key: str(value) for key, value in form.items() if value is not None},
                files=[("file", (archive.name, file, "application/octet-stream"))],
                creates=True,
                timeout_s=_VALIDATION_TIMEOUT_S,
            )
            return self._transport.answer(call, DatasetInfo)

    def list(self) -> Iterator[Dataset]:
        """All datasets by name, fetched page by page."""
        return items(lambda after: self.page(after=after))

    def page(self, *, limit: int = PAGE_LIMIT, after: str | None = None) -> Page[Dataset]:
        """One page of datasets."""
        call = Call(method="GET", path="/v1/datasets", params={"limit": limit, "after": after})
        return self._transport.answer(call, DatasetPage)

    def get(self, name: str) -> Dataset:
        """A dataset and its newest version."""
        return self._transport.answer(Call(method="GET", path=f"/v1/datasets/{segment(name)}"), Dataset)

    def version(self, name: str, version: int) -> DatasetInfo:
        """One version of a dataset."""
        path = f"/v1/datasets/{segment(name)}/{version}"
        return self._transport.answer(Call(method="GET", path=path), DatasetInfo)

    def preview(self, name: str, version: int) -> bytes:
        """A contact sheet as PNG: images with labels, boxes and masks."""
        path = f"/v1/datasets/{segment(name)}/{version}/preview"
        return self._transport.send(Call(method="GET", path=path, timeout_s=300)).content

    def export(
        self,
        name: str,
        version: int,
        target: Path,
        *,
        format: Literal["coco", "yolo"] = "coco",  # noqa: A002 (the API's word)
    ) -> int:
        """Writes the version as a COCO or YOLO zip to `target`, completely or not at all. Returns its size in bytes.

        Raises ClientError, OSError.
        """
        path = f"/v1/datasets/{segment(name)}/{version}/export"
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            call = Call(method="GET", path=path, params={"format": format}, timeout_s=300)
            with self._transport.stream(call) as response, partial.open("wb") as file:
                for piece in response.iter_bytes(1 << 20):
                    file.write(piece)
                written_bytes = file.tell()
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return written_bytes

    def delete(self, name: str, version: int | None = None) -> None:
        """Deletes a version, or all versions."""
        path = f"/v1/datasets/{segment(name)}"
        self._transport.send(Call(method="DELETE", path=path if version is None else f"{path}/{version}"))
