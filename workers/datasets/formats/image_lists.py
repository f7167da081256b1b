"""Pascal VOC's lists of the splits: `ImageSets/Main/train.txt`, with the stem of one image per line."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.archives.signatures import suffix_kind
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.file_names import stem_of
from workers.datasets.formats.reading import split_from_word

_MAX_BYTES = 64 * 2**20


class ImageLists:
    """The lists in `ImageSets/<task_folder>/`. `trainval.txt` and the lists of single categories are not read."""

    def __init__(self, files: Sequence[ArchivedFile], *, task_folder: str) -> None:
        self.names: set[str] = set()  # names of all lists, read or not
        self._splits: defaultdict[str, dict[str, str]] = defaultdict(dict)  # stem -> folder of the lists -> split
        for file in files:
            folders = file.name.split("/")[:-1]
            if "ImageSets" not in folders or not file.name.endswith(".txt"):
                continue
            self.names.add(file.name)
            split = split_from_word(stem_of(file.name))
            if split is not None and folders[-1] in (task_folder, "ImageSets") and file.size_bytes <= _MAX_BYTES:
                for line in file.path.read_text(encoding="utf-8", errors="replace").splitlines():
                    if words := line.split():
                        self._add(words[0], file.name.partition("ImageSets/")[0], split)

    def split_for(self, image: str, otherwise: str | None) -> str | None:
        """Returns the split whose list contains the name of an image, or `otherwise` if the archive has no lists.

        Of several lists, those nearest to the image count: VOC2007 and VOC2012 have their own.
        """
        if not self._splits:
            return otherwise
        by_root = self._splits.get(stem_of(image)) or {}
        inside = [root for root in by_root if image.startswith(root)]
        return by_root[max(inside, key=len)] if inside else next(iter(by_root.values()), None)

    def _add(self, written: str, root: str, split: str) -> None:
        """Adds an image to a split. One that is in several lists is never trained on."""
        base = posixpath.basename(written.replace("\\", "/"))
        stem = stem_of(base) if suffix_kind(base) is not None else base
        if self._splits[stem].setdefault(root, split) == "train":
            self._splits[stem][root] = split

    def findings(self, images: Collection[str]) -> list[Finding]:
        """Findings about listed images that are not in `images`."""
        stems = {stem_of(name) for name in images}
        missing = [stem for stem in self._splits if stem not in stems]
        if not missing:
            return []
        text = (
            f"{counted(len(missing), 'image')} listed in ImageSets left out: the image or its annotation is not in the "
            "archive."
        )
        return [finding("warning", "listed_images_missing", text, missing)]
