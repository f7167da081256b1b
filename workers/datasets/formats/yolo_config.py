"""What a YOLO set says of itself: the names of its categories and the folders of its splits."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import finding
from workers.datasets.formats.file_names import split_of_path
from workers.datasets.formats.reading import split_of, unusable
from workers.errors import UnusableDataset

_MAX_BYTES = 2**20
_NAMES_KEY = re.compile(rb"^[\"']?names[\"']?\s*:", re.MULTILINE)
_NAME_LISTS = ("classes.txt", "obj.names", "labels.txt", "predefined_classes.txt")
_HINT = (
    "data.yaml has `names:`, a list of the categories or their numbers with their names, and if you like `train:` and "
    "`val:`, the folders of the splits."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class YoloConfig:
    """Names and splits."""

    labels: Mapping[int, str]
    files: set[str]  # the archive's files it was read from
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # split -> folders, as written
    listed: Mapping[str, str] = field(default_factory=dict)  # base name of a picture -> split
    has_keypoints: bool = False

    def split_of(self, name: str) -> str | None:
        """The split of the picture `name`: as data.yaml says, else by its folders."""
        listed = self.listed.get(posixpath.basename(name))
        if listed is not None:
            return listed
        inside = f"/{posixpath.dirname(name)}/"
        said = {split for split, folders in self.folders.items() if any(f"/{folder}/" in inside for folder in folders)}
        if len(said) == 1:
            return said.pop()
        return split_of_path(name)

    def findings(self) -> list[Finding]:
        """What is said of the categories' numbers."""
        numbers = sorted(self.labels)
        if numbers == list(range(len(numbers))):
            return []
        text = (
            f"The category numbers have gaps ({numbers[0]} to {numbers[-1]} for {len(numbers)}): here the index of a "
            "category is its place in the list."
        )
        return [finding("info", "category_ids_with_gaps", text, count=len(numbers))]


def is_config(file: ArchivedFile) -> bool:
    """Whether `file` can name the categories."""
    base = posixpath.basename(file.name).lower()
    if base in _NAME_LISTS or base.endswith(".names"):
        return file.size_bytes <= _MAX_BYTES
    if not base.endswith((".yaml", ".yml")) or file.size_bytes > _MAX_BYTES:
        return False
    return _NAMES_KEY.search(file.path.read_bytes()) is not None


def read_config(files: Sequence[ArchivedFile]) -> YoloConfig:
    """The set's own description. Raises UnusableDataset if there is none, or a broken one."""
    configs = [file for file in files if is_config(file)]
    yamls = [file for file in configs if file.name.lower().endswith((".yaml", ".yml"))]
    chosen = min(yamls or configs, key=lambda file: (file.name.count("/"), file.name), default=None)
    if chosen is None:
        raise unusable("Nothing names the categories: there is no data.yaml.", hint=_HINT, code="no_category_names")
    used = {file.name for file in configs}
    if not yamls:
        names = [line.strip() for line in chosen.path.read_text(encoding="utf-8", errors="replace").splitlines()]
        return YoloConfig(labels={number: _plain(name) for number, name in enumerate(names) if name}, files=used)
    content = _loaded(chosen)
    folders, lists = _splits(content)
    return YoloConfig(
        labels=_labels(content.get("names"), chosen),
        files=used | {file.name for file in files if posixpath.basename(file.name) in lists},
        folders=folders,
        listed=_listed(files, lists),
        has_keypoints="kpt_shape" in content,
    )


def _loaded(file: ArchivedFile) -> Mapping[str, object]:
    """The document; every scalar in it is text, so `no` and `1` are names too."""
    try:
        content = yaml.load(file.path.read_bytes(), Loader=yaml.BaseLoader)  # noqa: S506 - makes text, lists and dicts only
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _broken(file, error.problem or "broken", mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:
        raise _broken(file, str(error).splitlines()[0], 1) from error
    except RecursionError as error:
        raise _broken(file, "lists are nested too deep", 1) from error
    if not isinstance(content, dict):
        raise _broken(file, "it is no list of keys and values", 1)
    return content


def _labels(names: object, file: ArchivedFile) -> dict[int, str]:
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    labels: dict[int, str] = {}
    for number, name in pairs:
        if not isinstance(name, str) or not name.strip() or not re.fullmatch(r"\d{1,9}", str(number), re.ASCII):
            labels = {}
            break
        labels[int(number)] = _plain(name)
    if not labels:
        raise unusable(
            f"`names` in {file.name} is neither a list of names nor numbers with names.",
            hint=_HINT,
            code="no_category_names",
            files=[file.name],
        )
    return labels


def _splits(content: Mapping[str, object]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The folders of every split, without what leads to them from outside; and base name of a list -> its split."""
    folders: dict[str, tuple[str, ...]] = {}
    lists: dict[str, str] = {}
    for key, value in content.items():
        split = split_of(key)
        written = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        if split is None:
            continue
        paths = [posixpath.normpath(each.replace("\\", "/")) for each in written if isinstance(each, str) and each]
        lists |= {posixpath.basename(path): split for path in paths if path.endswith(".txt")}
        inside = ("/".join(part for part in path.split("/") if part not in ("", ".", "..")) for path in paths)
        folders[split] = tuple(path for path in inside if path and not path.endswith(".txt"))
    return folders, lists


def _listed(files: Sequence[ArchivedFile], lists: Mapping[str, str]) -> dict[str, str]:
    listed: dict[str, str] = {}
    for file in files:
        split = lists.get(posixpath.basename(file.name))
        if split is not None:
            for line in file.path.read_text(encoding="utf-8", errors="replace").splitlines():
                listed.setdefault(posixpath.basename(line.strip().replace("\\", "/")), split)
    return listed


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", " ".join(name.split()))


def _broken(file: ArchivedFile, reason: str, line: int) -> UnusableDataset:
    where = f"{file.name}:{line}"
    return unusable(
        f"{where}: the YAML is broken: {reason}.",
        hint="Open the file in an editor at this line.",
        code="broken_yaml",
        files=[where],
    )
