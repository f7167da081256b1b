"""Models in numbered versions, and aliases that move between versions. Needs torch only to read or write tensors.

ROOT/<model>/<version>/{state_dict.safetensors, manifest.json, report/}
ROOT/<model>/<version>/exports/  networks compiled from the weights: see models.backends.exports
ROOT/<model>/aliases/<alias>     a version number

`models.store.versions` has the rest of the layout, and the rules for names, numbers and locks.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from models.errors import CorruptVersion, InvalidName, UnknownAlias, UnknownModel, UnknownVersion, VersionInUse
from models.manifest import Manifest, ManifestDraft
from models.store.names import checked_name
from models.store.safetensors_header import count_parameters
from models.store.storage import replace_file, sha256_of, sync_directory
from models.store.versions import StoredKind, VersionedStore, split_reference

if TYPE_CHECKING:
    from torch import Tensor

PRODUCTION = "production"
STATE_DICT_FILE = "state_dict.safetensors"
MANIFEST_FILE = "manifest.json"
_MODEL = StoredKind(
    noun="model",
    description_file=MANIFEST_FILE,
    unknown_name=UnknownModel,
    unknown_version=UnknownVersion,
    when_empty="There are no models yet: train or upload one.",
    reference_forms="NAME, NAME@ALIAS or NAME/VERSION",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """A published version: its manifest and the directory of its files."""

    path: Path
    manifest: Manifest

    @property
    def state_dict_path(self) -> Path:
        return self.path / STATE_DICT_FILE

    @property
    def report_dir(self) -> Path:
        """Directory of plots and tables. It is missing if the version has none."""
        return self.path / "report"

    @property
    def exports_dir(self) -> Path:
        """Directory of networks compiled from the weights. It is missing if there are none, and may be deleted."""
        return self.path / "exports"


class Registry(VersionedStore[ModelVersion]):
    """The models under `root`. Several processes may use it at once.

    Raises UnknownModel, UnknownVersion and CorruptVersion for names and versions that are missing or damaged.
    reserved_names: names that no model may have, alone or before a dot: the catalogue's architectures.
    """

    def __init__(self, root: Path, *, reserved_names: Collection[str] = ()) -> None:
        super().__init__(root, _MODEL)
        self._reserved = frozenset(reserved_names)

    def resolve(self, reference: str) -> ModelVersion:
        """The version that `name` (its production version, else the newest), `name@alias` or `name/3` means.

        Raises InvalidName, UnknownModel, UnknownVersion, UnknownAlias, CorruptVersion.
        """
        stem, at, alias = reference.partition("@")
        name, version = split_reference(stem, self._kind)
        if at and version:
            raise InvalidName(f"{reference[:100]!r} has both a version and an alias.", hint="Leave one of them out.")
        aliases = {} if version else self._aliases(name)
        numbers = self.versions(name)  # read after the aliases: a version exists before an alias points at it
        if at:
            version = _pick(aliases, checked_name(alias, kind="alias"), name)
        return self._get(name, version or aliases.get(PRODUCTION, numbers[-1]), numbers)

    def aliases(self, name: str) -> dict[str, int]:
        """The version of every alias, sorted by alias.

        Raises InvalidName, UnknownModel, CorruptVersion.
        """
        self.versions(name)
        return self._aliases(name)

    def _aliases(self, name: str) -> dict[str, int]:
        directory = self.root / name / "aliases"
        found: dict[str, int] = {}
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            if path.name.startswith("."):
                continue  # a file that is being written
            try:
                found[path.name] = int(path.read_text(encoding="ascii"))
            except FileNotFoundError:
                continue  # deleted meanwhile
            except ValueError as error:
                raise _corrupt(f"The alias {name}@{path.name} does not contain a version number.") from error
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
        """Publishes `state_dict` as the next version of `name`.

        Leaves out prefixes of wrappers and auxiliary heads. See `publish_file` for the rest.
        Raises InvalidName, UnknownArchitecture.
        """
        from models.architectures.catalog import get_architecture
        from models.store.state_dicts import for_publishing, save_state_dict

        self.check_new_name(name)
        kept = for_publishing(get_architecture(draft.architecture), state_dict)
        with self._new_directory() as directory:
            save_state_dict(kept, directory / STATE_DICT_FILE)
            return self._publish_draft(name, directory, draft, now=now, report_dir=report_dir)

    def publish_file(
        self, name: str, path: Path, draft: ManifestDraft, *, now: datetime, report_dir: Path | None = None
    ) -> ModelVersion:
        """Publishes a copy of a safetensors file, and of `report_dir`, as the next version of `name`. Needs no torch.

        Idempotent: if a version of `name` already has the draft's job id, that version is returned.
        Raises InvalidName, UnsafeWeights; OSError if the disk is full, and then leaves nothing behind.
        """
        self.check_new_name(name)
        with self._new_directory() as directory:
            shutil.copyfile(path, directory / STATE_DICT_FILE)
            return self._publish_draft(name, directory, draft, now=now, report_dir=report_dir)

    def check_new_name(self, name: str) -> str:
        """Returns `name` if a model can be published under it.

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
        with self._locked(name):
            self.get(name, version)
            previous = self.aliases(name).get(alias)
            directory = self.root / name / "aliases"
            directory.mkdir(exist_ok=True)
            replace_file(directory / alias, str(version).encode())
        return previous

    def delete_alias(self, name: str, alias: str) -> None:
        """Deletes `alias`. Its version stays.

        Raises InvalidName, UnknownModel, UnknownAlias.
        """
        self.versions(name)
        with self._locked(name):
            _pick(self.aliases(name), checked_name(alias, kind="alias"), name)
            path = self.root / name / "aliases" / alias
            path.unlink()
            sync_directory(path.parent)

    def state_dict(self, version: ModelVersion, *, verify: bool = True) -> dict[str, Tensor]:
        """The tensors, on the CPU, backed by the file. verify: compares the file's sha256 first.

        Raises CorruptVersion.
        """
        from models.errors import UnsafeWeights
        from models.store.state_dicts import read_state_dict

        manifest, path = version.manifest, version.state_dict_path
        try:
            _check_weights(manifest, path, verify=verify)
            return read_state_dict(path)
        except FileNotFoundError as error:
            raise _corrupt(f"The weights of {manifest.reference} are missing.") from error
        except UnsafeWeights as error:
            raise _corrupt(f"The weights of {manifest.reference} cannot be read: {error}") from error

    def _read(self, name: str, version: int, path: Path) -> ModelVersion:
        try:
            manifest = Manifest.model_validate_json((path / MANIFEST_FILE).read_bytes())
        except ValidationError as error:
            raise _corrupt(f"The manifest of {name}/{version} is damaged.") from error
        if (manifest.name, manifest.version) != (name, version):
            raise _corrupt(f"{name}/{version} contains the manifest of {manifest.reference}.")
        return ModelVersion(path=path, manifest=manifest)

    def _check_unused(self, name: str, versions: Sequence[int]) -> None:
        """Raises VersionInUse if an alias points at one of these versions."""
        pointing = [
            f"{name}@{alias} points at {name}/{version}"
            for alias, version in self._aliases(name).items()
            if version in versions
        ]
        if pointing:
            raise VersionInUse(f"{', '.join(pointing)}.", hint="Move or delete the alias first.")

    def _publish_draft(
        self, name: str, directory: Path, draft: ManifestDraft, *, now: datetime, report_dir: Path | None
    ) -> ModelVersion:
        """Turns `directory`, which contains the state_dict, into the next version of `name`."""
        state_dict = directory / STATE_DICT_FILE
        known = {
            "created_at": now,
            "parameters": count_parameters(state_dict),
            "size_bytes": state_dict.stat().st_size,
            "sha256": sha256_of(state_dict),
        }
        if report_dir is not None and report_dir.is_dir():
            shutil.copytree(report_dir, directory / "report")

        def describe(version: int) -> Manifest:
            return Manifest(**draft.model_dump(), **known, name=name, version=version)

        with self._locked(name) as lock:
            return self._of_job(name, draft.job_id) or self._publish(lock, directory, describe)

    @contextmanager
    def _new_directory(self) -> Iterator[Path]:
        """An empty directory to publish. It is removed at the end if it was not published."""
        with self.temporary() as temporary:
            directory = temporary / "version"
            directory.mkdir()
            yield directory

    def _of_job(self, name: str, job_id: str | None) -> ModelVersion | None:
        if job_id is None:
            return None
        for number in reversed(self._numbers(name)):
            with suppress(CorruptVersion):
                version = self.get(name, number)
                if version.manifest.job_id == job_id:
                    return version
        return None


def _pick(aliases: Mapping[str, int], alias: str, name: str) -> int:
    if alias not in aliases:
        known = ", ".join(f"{name}@{known}" for known in aliases)
        raise UnknownAlias(
            f"{name} has no alias {alias!r}.", hint=f"Available: {known}." if known else "It has no aliases yet."
        )
    return aliases[alias]


def _check_weights(manifest: Manifest, path: Path, *, verify: bool) -> None:
    """Raises CorruptVersion, FileNotFoundError. verify: compares the digest, not only the size."""
    size_bytes = path.stat().st_size
    if size_bytes != manifest.size_bytes:
        differs = f"{size_bytes} bytes instead of {manifest.size_bytes}"
    elif verify and (digest := sha256_of(path)) != manifest.sha256:
        differs = f"sha256 {digest} instead of {manifest.sha256}"
    else:
        return
    raise _corrupt(f"The weights of {manifest.reference} have changed since they were published: {differs}.")


def _corrupt(message: str) -> CorruptVersion:
    return CorruptVersion(message, hint="Restore the files, or publish the model again and delete this version.")
