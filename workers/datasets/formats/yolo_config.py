"""Reads the configuration of a YOLO dataset: the names of its categories and the folders of its splits."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import finding
from workers.datasets.formats.annotation import clean_label
from workers.datasets.formats.file_names import FileNames, split_in_path
from workers.datasets.formats.reading import split_from_word, unusable
from workers.errors import UnusableDataset

_MAX_BYTES = 2**20
_NAMES_KEY = re.compile(rb"^[\"']?names[\"']?\s*:", re.MULTILINE)
_NAME_LISTS = ("classes.txt", "obj.names", "labels.txt", "predefined_classes.txt", "_darknet.labels")
_HINT = (
    "data.yaml needs `names:`, a list of the category names or a mapping of numbers to names. Optionally it has "
    "`train:` and `val:`, the folders of the splits."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class YoloConfig:
    """The names of the categories, and the splits."""

    labels: Mapping[int, str]
    files: set[str]  # names of the files that it was read from
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # split -> folders
    lists: Mapping[str, str] = field(default_factory=dict)  # base name of a list of images -> split
    has_keypoints: bool = False  # in the label files, points follow the box

    def split_for(self, name: str) -> str | None:
        """Returns the split of the image `name`: from the folders in data.yaml, else from the names of its folders."""
        inside = f"/{posixpath.dirname(name)}/"
        found = {split for split, folders in self.folders.items() if any(f"/{folder}/" in inside for folder in folders)}
        return found.pop() if len(found) == 1 else split_in_path(name)

    def listed_splits(self, files: Sequence[ArchivedFile], images: Sequence[ArchivedFile]) -> dict[str, str]:
        """Returns the split of each image that a list of data.yaml names. An image in several is not trained on."""
        names = FileNames(images)
        listed: dict[str, str] = {}
        for file in files:
            split = self.lists.get(posixpath.basename(file.name))
            if split is None:
                continue
            for line in file.path.read_text(encoding="utf-8", errors="replace").splitlines():
                image = names.find(line, near=posixpath.dirname(file.name), split=split) if line.strip() else None
                if image is not None and listed.get(image.name) in (None, "train"):
                    listed[image.name] = split
        return listed

    def findings(self) -> list[Finding]:
        """Findings about the numbers of the categories."""
        numbers = sorted(self.labels)
        if numbers == list(range(len(numbers))):
            return []
        text = (
            f"The category numbers have gaps: {numbers[0]} to {numbers[-1]} for {len(numbers)} categories. In Fovea "
            "the index of a category is its place in the list."
        )
        return [finding("info", "category_ids_with_gaps", text, count=len(numbers))]


def is_config(file: ArchivedFile) -> bool:
    """Returns True if `file` names the categories."""
    base = posixpath.basename(file.name).lower()
    if base in _NAME_LISTS or base.endswith(".names"):
        return file.size_bytes <= _MAX_BYTES
    if not base.endswith((".yaml", ".yml")) or file.size_bytes > _MAX_BYTES:
        return False
    return _NAMES_KEY.search(file.path.read_bytes()) is not None


def read_config(files: Sequence[ArchivedFile]) -> YoloConfig:
    """Reads the configuration of the dataset. Raises UnusableDataset if it is missing or broken."""
    configs = [file for file in files if is_config(file)]
    yamls = [file for file in configs if file.name.lower().endswith((".yaml", ".yml"))]
    chosen = min(yamls or configs, key=lambda file: (file.name.count("/"), file.name), default=None)
    if chosen is None:
        raise unusable(
            "Nothing names the categories: the archive has no data.yaml.", hint=_HINT, code="no_category_names"
        )
    used = {file.name for file in configs}
    if not yamls:
        names = [line.strip() for line in chosen.path.read_text(encoding="utf-8", errors="replace").splitlines()]
        return YoloConfig(labels={number: clean_label(name) for number, name in enumerate(names) if name}, files=used)
    content = _parsed(chosen)
    folders, lists = _splits(content)
    return YoloConfig(
        labels=_labels(content.get("names"), chosen),
        files=used | {file.name for file in files if posixpath.basename(file.name) in lists},
        folders=folders,
        lists=lists,
        has_keypoints="kpt_shape" in content,
    )


def _parsed(file: ArchivedFile) -> Mapping[str, object]:
    """Parses the YAML document. Every scalar stays text, so `no` and `1` are names, too."""
    try:
        content = yaml.load(file.path.read_bytes(), Loader=yaml.BaseLoader)  # noqa: S506 - creates only text, lists, dicts
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _broken(file, error.problem or "broken", mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:
        raise _broken(file, str(error).splitlines()[0], 1) from error
    except RecursionError as error:
        raise _broken(file, "lists are nested too deep", 1) from error
    if not isinstance(content, dict):
        raise _broken(file, "it has no keys and values", 1)
    return content


def _labels(names: object, file: ArchivedFile) -> dict[int, str]:
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    labels: dict[int, str] = {}
    for number, name in pairs:
        if not isinstance(name, str) or not name.strip() or not re.fullmatch(r"\d{1,9}", str(number), re.ASCII):
            labels = {}
            break
        labels[int(number)] = clean_label(name)
    if not labels:
        raise unusable(
            f"`names` in {file.name} is neither a list of names nor a mapping of numbers to names.",
            hint=_HINT,
            code="no_category_names",
            files=[file.name],
        )
    return labels


def _splits(content: Mapping[str, object]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Returns the folders of each split as paths inside the archive, and the split of each list by its base name."""
    folders: dict[str, tuple[str, ...]] = {}
    lists: dict[str, str] = {}
    for key, value in content.items():
        split = split_from_word(key)
        written = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        if split is None:
            continue
        paths = [posixpath.normpath(each.replace("\\", "/")) for each in written if isinstance(each, str) and each]
        lists |= {posixpath.basename(path): split for path in paths if path.endswith(".txt")}
        inside = ("/".join(part for part in path.split("/") if part not in ("", ".", "..")) for path in paths)
        folders[split] = tuple(path for path in inside if path and not path.endswith(".txt"))
    return folders, lists


def _broken(file: ArchivedFile, reason: str, line: int) -> UnusableDataset:
    where = f"{file.name}:{line}"
    return unusable(
        f"{where}: the YAML is broken: {reason}.",
        hint="Open the file in an editor at this line.",
        code="broken_yaml",
        files=[where],
    )
