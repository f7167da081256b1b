"""Which formats there are, and which of them an archive is in."""

from __future__ import annotations

from collections.abc import Sequence

from workers.datasets.archive import ArchivedFile
from workers.datasets.dataset import DatasetFormat
from workers.datasets.findings import counted
from workers.datasets.formats.csv_list import CSV_LIST
from workers.datasets.formats.image_folder import IMAGE_FOLDER
from workers.datasets.formats.reading import (
    Format,
    Reading,
    leftover_findings,
    sort_files,
    unusable,
    without_images,
)

# The first that fits is taken, so the more specific come first: images listed by a CSV file lie in folders too.
FORMATS: tuple[Format, ...] = (CSV_LIST, IMAGE_FOLDER)


def read_files(files: Sequence[ArchivedFile], *, format: DatasetFormat | None = None) -> Reading:  # noqa: A002
    """The archive as `format` reads it, or as the first format that fits.

    Raises UnusableDataset.
    """
    for each in FORMATS:
        if each.name == format or (format is None and each.fits(files)):
            return each.read(files)
    sorted_files = sort_files(files)
    hint = f"Expected is one of: {'; or '.join(each.expected for each in FORMATS)}."
    if not sorted_files.images:
        raise without_images(sorted_files, hint=hint)
    raise unusable(
        f"The archive holds {counted(len(sorted_files.images), 'image')} but nothing that names their categories: "
        "no folders and no list.",
        hint=hint,
        code="no_categories",
        findings=leftover_findings(sorted_files),
    )
