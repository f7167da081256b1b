"""Small datasets as zip files."""

from __future__ import annotations

import zipfile
from io import BytesIO

from PIL import Image

from tests.app.pictures import encoded


def image_folder_zip(*, of_each: int = 10) -> bytes:
    """`dark` and `light` images, each a little different."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for label, level in (("dark", 20), ("light", 200)):
            for number in range(of_each):
                picture = Image.new("RGB", (32, 28), (level + number, level, level))
                archive.writestr(f"{label}/{number}.png", encoded(picture))
    return file.getvalue()
