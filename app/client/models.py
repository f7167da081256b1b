"""The client's methods for registered models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from app.client.pages import PAGE_LIMIT, items, segment
from app.client.transport import Call, Transport
from app.client.upload import Progress, open_counted
from app.schemas.models import Alias, Model, ModelPage, ModelVersion, UploadedManifest
from app.schemas.page import Page
from models.manifest import Manifest

_UPLOAD_TIMEOUT_S = 3600.0


class Models:
    """`client.models`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Model]:
        """All models by name, fetched page by page."""
        return items(lambda after: self.page(after=after))

    def page(self, *, limit: int = PAGE_LIMIT, after: str | None = None) -> Page[Model]:
        """One page of models."""
        call = Call(method="GET", path="/v1/models", params={"limit": limit, "after": after})
        return self._transport.answer(call, ModelPage)

    def get(self, name: str) -> Model:
        """A model with its versions and aliases."""
        return self._transport.answer(Call(method="GET", path=_path(name)), Model)

    def version(self, name: str, version: int) -> ModelVersion:
        """One version: its manifest and the files of its report."""
        return self._transport.answer(Call(method="GET", path=f"{_path(name)}/versions/{version}"), ModelVersion)

    def set_alias(self, name: str, alias: str, version: int) -> Alias:
        """Points an alias at a version, at once. `production` is what the model's bare name means."""
        call = Call(method="PUT", path=f"{_path(name)}/aliases/{segment(alias)}", json={"version": version})
        return self._transport.answer(call, Alias)

    def promote(self, name: str, version: int) -> Alias:
        """Points `production` at a version."""
        return self.set_alias(name, "production", version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Deletes an alias; its version stays."""
        self._transport.send(Call(method="DELETE", path=f"{_path(name)}/aliases/{segment(alias)}"))

    def delete(self, name: str, version: int) -> None:
        """Deletes a version that no alias points at."""
        self._transport.send(Call(method="DELETE", path=f"{_path(name)}/versions/{version}"))

    def download(
        self,
        name: str,
        version: int,
        target: Path,
        *,
        format: Literal["safetensors", "pth"] = "safetensors",  # noqa: A002 (the API's word)
        progress: Progress | None = None,
    ) -> int:
        """Writes the version's state_dict to `target`, completely or not at all. Returns its size in bytes.

        Raises ClientError, OSError.
        """
        path = f"{_path(name)}/versions/{version}/state_dict"
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            call = Call(method="GET", path=path, params={"format": format})
            with self._transport.stream(call) as response, partial.open("wb") as file:
                size_bytes = int(response.headers.get("Content-Length", 0))
                for piece in response.iter_bytes(1 << 20):
                    file.write(piece)
                    if progress:
                        progress(file.tell(), size_bytes)
                written_bytes = file.tell()
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return written_bytes

    def upload(
        self, name: str, state_dict: Path, manifest: UploadedManifest, *, progress: Progress | None = None
    ) -> Manifest:
        """Publishes weights that were trained elsewhere as the next version. The server checks keys and shapes.

        Raises ClientError, OSError.
        """
        with open_counted(state_dict, progress) as file:
            call = Call(
                method="POST",
                path=f"{_path(name)}/versions",
                form={"manifest": manifest.model_dump_json(exclude_unset=True)},
                files=[("state_dict", (state_dict.name, file, "application/octet-stream"))],
                creates=True,
                timeout_s=_UPLOAD_TIMEOUT_S,
            )
            return self._transport.answer(call, Manifest)


def _path(name: str) -> str:
    return f"/v1/models/{segment(name)}"
