"""Networks built for machines, on disk: whole or absent, and found by all that they depend on.

EXPORTS/<backend>-<precision>-<digest>/report.json   what came of building it: an `ExportReport`
EXPORTS/<backend>-<precision>-<digest>/*             what the backend loads; nothing if it was refused or failed
EXPORTS/.tmp-*                                       one that is being built

A registered version's are in its directory, a pretrained model's under the directory of weights. Deleting any of them
is safe: it is built again, one that had failed too.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from models.backends.names import BackendName
from models.backends.report import ExportIdentity, ExportReport
from models.errors import BackendUnavailable
from models.store.storage import sha256_of, sync_directory, sync_tree
from models.store.temporary_directories import remove_abandoned_directories, temporary_directory

log = logging.getLogger(__name__)

REPORT_FILE = "report.json"
_BACKENDS = get_args(BackendName)


class Exports:
    """The built networks of one set of weights. Any number of processes may use it at once; one of them writes."""

    def __init__(self, root: Path) -> None:
        """root: is made when something is written, if the directory it lies in is there."""
        self.root = root

    def reports(self) -> list[ExportReport]:
        """All attempts, those for other machines too, the newest first.

        Leaves out reports that cannot be read, and backends that another version of Fovea had.
        """
        paths = sorted(self.root.iterdir()) if self.root.is_dir() else []
        found = [self._read(path) for path in paths if path.name.partition("-")[0] in _BACKENDS]
        return sorted((report for report in found if report), key=lambda report: report.created_at, reverse=True)

    def find(self, identity: ExportIdentity) -> ExportReport | None:
        """What came of building exactly this; None if it was not tried."""
        report = self._read(self.directory(identity))
        return report if report and report.identity == identity else None

    def directory(self, identity: ExportIdentity) -> Path:
        """Where it is or belongs."""
        return self.root / identity.key

    def check_files(self, report: ExportReport) -> Path:
        """Its directory, if the files are those that were verified. Raises BackendUnavailable."""
        directory = self.directory(report.identity)
        for name, digest in report.files.items():
            try:
                is_same = sha256_of(directory / name) == digest
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                is_same = False
            except OSError as error:  # too many open files, or a disk that does not answer: nobody changed it
                hint = "It is tried again when the model is loaded again."
                raise BackendUnavailable(f"{directory / name} cannot be read: {error.strerror}.", hint=hint) from error
            if not is_same:
                raise BackendUnavailable(
                    f"{directory / name} is not what was verified.", hint="Delete the directory: it is built again."
                )
        return directory

    @contextmanager
    def new_directory(self) -> Iterator[Path]:
        """An empty directory to build in, which `publish` may take. Removed at the end if it did not.

        Raises FileNotFoundError if the version was deleted meanwhile.
        """
        self.root.mkdir(exist_ok=True)
        with temporary_directory(self.root) as temporary:
            directory = temporary / "export"
            directory.mkdir()
            yield directory

    def publish(self, directory: Path, report: ExportReport) -> ExportReport:
        """Puts what was built into `directory` in its place, over an earlier attempt. One process at a time."""
        files = [path for path in directory.iterdir() if path.is_file()]
        complete = report.model_copy(
            update={
                "files": {path.name: sha256_of(path) for path in sorted(files)},
                "size_bytes": sum(path.stat().st_size for path in files),
            }
        )
        (directory / REPORT_FILE).write_text(complete.model_dump_json(indent=2), encoding="utf-8")
        sync_tree(directory)
        place = self.directory(report.identity)
        if place.exists():
            shutil.rmtree(place)
        directory.rename(place)
        sync_directory(self.root)
        return complete

    def note_failure(self, report: ExportReport) -> None:
        """Writes down that building came to nothing, so that it is not tried again."""
        with self.new_directory() as directory:
            self.publish(directory, report)

    def remove_leftovers(self) -> None:
        """Removes what builders that died left behind."""
        remove_abandoned_directories(self.root)

    def _read(self, directory: Path) -> ExportReport | None:
        try:
            return ExportReport.model_validate_json((directory / REPORT_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            log.warning("%s is left out: its report cannot be read: %s", directory, error)
            return None
