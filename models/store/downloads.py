"""Downloads a file over HTTP, completely or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from models.errors import WeightsUnavailable
from models.store.storage import sync_directory

_CHUNK_BYTES = 1 << 20


def download(url: str, path: Path, *, sha256_prefix: str, timeout_s: float = 30.0) -> None:
    """Downloads `url` to `path`. The file appears only when it is complete and its digest is right.

    timeout_s: longest silence of the server.
    Raises WeightsUnavailable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        digest = _fetch(url, temporary, timeout_s)
        if not digest.startswith(sha256_prefix):
            raise WeightsUnavailable(
                f"{url} sent another file: its sha256 begins with {digest[:12]}, not {sha256_prefix}.",
                hint=f"Put the right {path.name} at {path}.",
            )
        temporary.replace(path)
    except (URLError, http.client.HTTPException, OSError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise WeightsUnavailable(
            f"{path.name} could not be downloaded from {url}: {reason}.", hint=f"Put it at {path} by hand."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _fetch(url: str, path: Path, timeout_s: float) -> str:
    """Writes the response body to `path` and returns its sha256."""
    digest = hashlib.sha256()
    with urlopen(url, timeout=timeout_s) as answer, path.open("wb") as file:  # noqa: S310 - from torchvision's table
        expected = answer.length
        while chunk := answer.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
        if expected is not None and file.tell() != expected:
            raise http.client.IncompleteRead(b"", expected - file.tell())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
