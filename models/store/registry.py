"""Names -> immutable versions -> movable aliases, on a directory. Needs no torch unless tensors are asked for.

ROOT/<model>/<version>/{state_dict.safetensors, manifest.json, report/}
ROOT/<model>/<version>/exports/  what was compiled from the weights: see models.backends.exports
ROOT/<model>/aliases/<alias>     a version number
ROOT/.locks/<model>              held by whoever changes the model; holds the highest number of a deleted version
ROOT/.tmp-*                      versions being written or deleted
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from models.errors import (
    CorruptVersion,
    InvalidName,
    UnknownAlias,
    UnknownModel,
    UnknownVersion,
    VersionInUse,
)
from models.manifest import Manifest, ManifestDraft
from models.store.locks import ModelLock, hold_model_lock
from models.store.names import checked_name
from models.store.safetensors_header import count_parameters
from models.store.storage import publish_directory, replace_file, sync_directory, version_numbers
from models.store.temporary_directories import remove_abandoned_directories, temporary_directory

if TYPE_CHECKING:
    from torch import Tensor

PRODUCTION = "production"
STATE_DICT_FILE = "state_dict.safetensors"
MANIFEST_FILE = "manifest.json"
_REFERENCE = re.compile(r"(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<version>[1-9][0-9]{0,8}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """A published version: its manifest, and where its files are."""

    path: Path
    manifest: Manifest

    @property
    def state_dict_path(self) -> Path:
        return self.path / STATE_DICT_FILE

    @property
    def report_dir(self) -> Path:
        """Directory of plots and tables; absent if the version has none."""
        return self.path / "report"

    @property
    def exports_dir(self) -> Path:
        """Directory of what was compiled from the weights, which may come and go; absent if nothing was."""
        return self.path / "exports"


class Registry:
    """The models under `root`. Any number of processes may use it at once.

    reserved_names: what no model may be called, also not as the part before a dot: the catalogue's architectures.
    """

    def __init__(self, root: Path, *, reserved_names: Collection[str] = ()) -> None:
        self._root = root
        self._reserved = frozenset(reserved_names)

    def names(self) -> list[str]:
        """Names of the models with at least one version, sorted."""
        if not self._root.is_dir():
            return []
        found = (entry.name for entry in self._root.iterdir() if not entry.name.startswith("."))
        return sorted(name for name in found if self._numbers(name))

    def versions(self, name: str) -> list[int]:
        """Version numbers, ascending.

        Raises InvalidName, UnknownModel.
        """
        numbers = self._numbers(checked_name(name, kind="model"))
        if not numbers:
            known = self.names()
            close = get_close_matches(name, known, n=5, cutoff=0.5) or known[:10]
            raise UnknownModel(
                f"There is no model {name!r}.",
                hint=f"There is {', '.join(close)}." if close else "None is registered yet: train or upload one.",
            )
        return numbers

    def get(self, name: str, version: int) -> ModelVersion:
        """That version.

        Raises InvalidName, UnknownModel, UnknownVersion, CorruptVersion.
        """
        return self._get(name, version, self.versions(name))

    def _get(self, name: str, version: int, numbers: Sequence[int]) -> ModelVersion:
        if version not in numbers:
            raise UnknownVersion(f"{name} has no version {version}.", hint=f"It has {_listed(numbers)}.")
        path = self._root / name / str(version)
        try:
            manifest = Manifest.model_validate_json((path / MANIFEST_FILE).read_bytes())
        except FileNotFoundError as error:
            raise UnknownVersion(f"{name} has no version {version} any more.") from error
        except ValidationError as error:
            raise _corrupt(f"The manifest of {name}/{version} is damaged.") from error
        if (manifest.name, manifest.version) != (name, version):
            raise _corrupt(f"{name}/{version} holds the manifest of {manifest.reference}.")
        return ModelVersion(path=path, manifest=manifest)

    def resolve(self, reference: str) -> ModelVersion:
        """What `name` (its production version, else the newest), `name@alias` or `name/3` means.

        Raises InvalidName, UnknownModel, UnknownVersion, UnknownAlias, CorruptVersion.
        """
        match = _REFERENCE.fullmatch(reference)
        if not match:
            raise InvalidName(
                f"{reference[:100]!r} is no model reference.", hint="Write NAME, NAME@ALIAS or NAME/VERSION."
            )
        name, alias, version = match["name"], match["alias"], match["version"]
        checked_name(name, kind="model")
        aliases = {} if version else self._aliases(name)
        numbers = self.versions(name)  # after the aliases: what they mean is there before they mean it
        if version:
            return self._get(name, int(version), numbers)
        if alias:
            return self._get(name, _pick(aliases, checked_name(alias, kind="alias"), name), numbers)
        return self._get(name, aliases.get(PRODUCTION, numbers[-1]), numbers)

    def aliases(self, name: str) -> dict[str, int]:
        """Version of every alias, sorted by alias.

        Raises InvalidName, UnknownModel, CorruptVersion.
        """
        self.versions(name)
        return self._aliases(name)

    def _aliases(self, name: str) -> dict[str, int]:
        directory = self._root / name / "aliases"
        found: dict[str, int] = {}
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            if path.name.startswith("."):
                continue  # one that is being written
            try:
                found[path.name] = int(path.read_text(encoding="ascii"))
            except FileNotFoundError:
                continue  # deleted meanwhile
            except ValueError as error:
                raise _corrupt(f"The alias {name}@{path.name} holds no version number.") from error
        return found

    def publish(
        self,
        name: str,
        state_dict: Mapping[str, Tensor],
        draft: ManifestDraft,
        *,
        now: datetime,
        report_dir: Path | None = None,
    ) -> ModelVersion:
        """Writes `state_dict` down as the next version of `name`.

        Wrappers' prefixes and auxiliary heads are left away. See `publish_file` for the rest.
        Raises InvalidName, UnknownArchitecture.
        """
        from models.architectures.catalog import get_architecture
        from models.store.state_dicts import for_publishing, save_state_dict

        self.check_new_name(name)
        kept = for_publishing(get_architecture(draft.architecture), state_dict)
        with self._new_version() as directory:
            save_state_dict(kept, directory / STATE_DICT_FILE)
            return self._publish(name, directory, draft, now=now, report_dir=report_dir)

    def publish_file(
        self, name: str, path: Path, draft: ManifestDraft, *, now: datetime, report_dir: Path | None = None
    ) -> ModelVersion:
        """Copies a safetensors file as the next version of `name`, with `report_dir` if there is one. Needs no torch.

        Idempotent: if a version of `name` has the draft's job id already, that is returned.
        Raises InvalidName, UnsafeWeights; OSError if the disk is full: then nothing is left behind.
        """
        self.check_new_name(name)
        with self._new_version() as directory:
            shutil.copyfile(path, directory / STATE_DICT_FILE)
            return self._publish(name, directory, draft, now=now, report_dir=report_dir)

    def check_new_name(self, name: str) -> str:
        """`name` itself, if a model can be published as it.

        Raises InvalidName.
        """
        checked_name(name, kind="model")
        family = name.partition(".")[0]
        if family in self._reserved:
            raise InvalidName(
                f"{name!r} cannot be a model name: {family} is an architecture.", hint=f"For instance 'my-{family}'."
            )
        return name

    def set_alias(self, name: str, alias: str, version: int) -> int | None:
        """Points `alias` at `version` and returns where it pointed before.

        Raises InvalidName, UnknownModel, UnknownVersion.
        """
        checked_name(alias, kind="alias")
        self.versions(name)
        with self._lock(name):
            self.get(name, version)
            previous = self.aliases(name).get(alias)
            directory = self._root / name / "aliases"
            directory.mkdir(exist_ok=True)
            replace_file(directory / alias, str(version).encode())
        return previous

    def delete_alias(self, name: str, alias: str) -> None:
        """Takes `alias` away; its version stays.

        Raises InvalidName, UnknownModel, UnknownAlias.
        """
        self.versions(name)
        with self._lock(name):
            _pick(self.aliases(name), checked_name(alias, kind="alias"), name)
            path = self._root / name / "aliases" / alias
            path.unlink()
            sync_directory(path.parent)

    def delete_version(self, name: str, version: int) -> None:
        """Frees the disk; the number is never given again. The last version takes the model with it.

        Raises InvalidName, UnknownModel, UnknownVersion; VersionInUse if an alias points at it.
        """
        self.versions(name)
        with temporary_directory(self._root) as trash, self._lock(name) as lock:
            numbers = self.versions(name)
            if version not in numbers:
                raise UnknownVersion(f"{name} has no version {version}.", hint=f"It has {_listed(numbers)}.")
            pointing = [f"{name}@{alias}" for alias, target in self.aliases(name).items() if target == version]
            if pointing:
                raise VersionInUse(
                    f"{', '.join(pointing)} points at {name}/{version}.", hint="Move or delete the alias first."
                )
            lock.note_deleted(version)
            model = self._root / name
            (model if numbers == [version] else model / str(version)).rename(trash / "deleted")
            sync_directory(self._root)

    def state_dict(self, version: ModelVersion, *, verify: bool = True) -> dict[str, Tensor]:
        """The tensors, on the CPU, backed by the file. verify: its sha256 is compared first.

        Raises CorruptVersion.
        """
        from models.errors import UnsafeWeights
        from models.store.state_dicts import read_state_dict

        manifest, path = version.manifest, version.state_dict_path
        try:
            _check_weights(manifest, path, verify=verify)
            return read_state_dict(path)
        except FileNotFoundError as error:
            raise _corrupt(f"The weights of {manifest.reference} are gone.") from error
        except UnsafeWeights as error:
            raise _corrupt(f"The weights of {manifest.reference} cannot be read: {error}") from error

    def remove_leftovers(self) -> int:
        """Removes what writers that died left behind, and nothing that is in use; returns how many directories."""
        return remove_abandoned_directories(self._root)

    def _numbers(self, name: str) -> list[int]:
        """Versions that are whole; what else lies there is left alone."""
        model = self._root / name
        return [number for number in version_numbers(model) if (model / str(number) / MANIFEST_FILE).is_file()]

    def _publish(
        self, name: str, directory: Path, draft: ManifestDraft, *, now: datetime, report_dir: Path | None
    ) -> ModelVersion:
        """Makes `directory`, which holds the state_dict, the next version of `name`."""
        state_dict = directory / STATE_DICT_FILE
        known = {
            "created_at": now,
            "parameters": count_parameters(state_dict),
            "size_bytes": state_dict.stat().st_size,
            "sha256": _sha256(state_dict),
        }
        if report_dir is not None and report_dir.is_dir():
            shutil.copytree(report_dir, directory / "report")

        def write_manifest(version: int) -> None:
            manifest = Manifest(**draft.model_dump(), **known, name=name, version=version)
            (directory / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")

        with self._lock(name) as lock:
            published = self._of_job(name, draft.job_id)
            if published is None:
                model = self._root / name
                model.mkdir(exist_ok=True)
                version = publish_directory(directory, model, above=lock.highest_deleted, prepare=write_manifest)
                published = self.get(name, version)
        return published

    def _of_job(self, name: str, job_id: str | None) -> ModelVersion | None:
        if job_id is None:
            return None
        for number in reversed(self._numbers(name)):
            with suppress(CorruptVersion):
                version = self.get(name, number)
                if version.manifest.job_id == job_id:
                    return version
        return None

    @contextmanager
    def _new_version(self) -> Iterator[Path]:
        """An empty directory on the registry's file system, to be published; removed if it was not."""
        with temporary_directory(self._root) as directory:
            version = directory / "version"
            version.mkdir()
            yield version

    def _lock(self, name: str) -> AbstractContextManager[ModelLock]:
        """Keeps others from changing the model, which must have a checked name."""
        return hold_model_lock(self._root / ".locks" / name)


def _pick(aliases: Mapping[str, int], alias: str, name: str) -> int:
    if alias not in aliases:
        known = ", ".join(f"{name}@{known}" for known in aliases)
        raise UnknownAlias(
            f"{name} has no alias {alias!r}.", hint=f"There is {known}." if known else "It has no aliases yet."
        )
    return aliases[alias]


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[-10:])
    return f"… {shown}" if len(numbers) > 10 else shown


def _check_weights(manifest: Manifest, path: Path, *, verify: bool) -> None:
    """Raises CorruptVersion, FileNotFoundError. verify: read them all for their digest, not only their size."""
    size_bytes = path.stat().st_size
    if size_bytes != manifest.size_bytes:
        differs = f"{size_bytes} bytes instead of {manifest.size_bytes}"
    elif verify and (digest := _sha256(path)) != manifest.sha256:
        differs = f"sha256 {digest} instead of {manifest.sha256}"
    else:
        return
    raise _corrupt(f"The weights of {manifest.reference} are not those that were published: {differs}.")


def _corrupt(message: str) -> CorruptVersion:
    return CorruptVersion(message, hint="Restore the files, or publish the model again and delete this version.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
