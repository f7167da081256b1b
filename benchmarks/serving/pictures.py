"""The JPEGs that all servers get: photos out of an archive, of the size that people post."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

from PIL.JpegImagePlugin import JpegImageFile

LONGER_PX, SHORTER_PX = 500, range(320, 401)  # about 500 x 375
PICTURES = 128


def read_pictures(archive: Path, *, count: int = PICTURES) -> list[bytes]:
    """The first `count` JPEGs of about that size, by name; fewer if there are fewer. Raises LookupError without any."""
    found: list[bytes] = []
    with zipfile.ZipFile(archive) as file:
        for name in sorted(file.namelist()):
            if len(found) == count:
                break
            if name.lower().endswith((".jpg", ".jpeg")):
                data = file.read(name)
                if _is_fitting(data):
                    found.append(data)
    if not found:
        msg = f"{archive} holds no JPEG with sides of {LONGER_PX} and {SHORTER_PX[0]} to {SHORTER_PX[-1]} px."
        raise LookupError(msg)
    return found


def _is_fitting(data: bytes) -> bool:
    try:
        image = JpegImageFile(BytesIO(data))
    except (OSError, SyntaxError, ValueError):  # Pillow raises SyntaxError for what is no JPEG
        return False
    return max(image.size) == LONGER_PX and min(image.size) in SHORTER_PX and image.mode == "RGB"
