"""Built networks on disk. Each is complete or absent, and is found by everything that it depends on.

EXPORTS/<backend>-<precision>-<digest>/report.json   the result of the build: an `ExportReport`
EXPORTS/<backend>-<precision>-<digest>/*             the files that the backend loads; none if it was refused or failed
EXPORTS/.tmp-*                                       a build in progress

EXPORTS is in the directory of a registered version, or for a pretrained model in the directory of weights. Deleting any
of this is safe: Fovea builds it again, also what had failed.
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
    """The built networks of one set of weights. Several processes may read at once; one of them writes."""

    def __init__(self, root: Path) -> None:
        """root: made at the first write, if its parent directory exists."""
        self.root = root

    def reports(self) -> list[ExportReport]:
        """Lists the reports of all attempts, those for other machines too, the newest first.

        Leaves out reports that cannot be read, and backends of another version of Fovea.
        """
        paths = sorted(self.root.iterdir()) if self.root.is_dir() else []
        found = [self._read(path) for path in paths if path.name.partition("-")[0] in _BACKENDS]
        return sorted((report for report in found if report), key=lambda report: report.created_at, reverse=True)

    def find(self, identity: ExportIdentity) -> ExportReport | None:
        """Returns the report of building exactly this, or None if it was not tried."""
        report = self._read(self.directory(identity))
        return report if report and report.identity == identity else None

    def directory(self, identity: ExportIdentity) -> Path:
        """Returns its directory, which may not exist."""
        return self.root / identity.key

    def check_files(self, report: ExportReport) -> Path:
        """Returns its directory if the files equal those that were verified. Raises BackendUnavailable."""
        directory = self.directory(report.identity)
        for name, digest in report.files.items():
            try:
                is_same = sha256_of(directory / name) == digest
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                is_same = False
            except OSError as error:  # it may be unchanged: too many open files, or the disk does not answer
                hint = "Fovea tries again when it loads the model again."
                raise BackendUnavailable(f"{directory / name} cannot be read: {error.strerror}.", hint=hint) from error
            if not is_same:
                raise BackendUnavailable(
                    f"{directory / name} differs from the file that was verified.",
                    hint="Delete the directory; Fovea builds it again.",
                )
        return directory

    @contextmanager
    def new_directory(self) -> Iterator[Path]:
        """Yields an empty directory for a build. It is removed at the end unless `publish` has taken it.

        Raises FileNotFoundError if the version was deleted meanwhile.
        """
        self.root.mkdir(exist_ok=True)
        with temporary_directory(self.root) as temporary:
            directory = temporary / "export"
            directory.mkdir()
            yield directory

    def publish(self, directory: Path, report: ExportReport) -> ExportReport:
        """Moves `directory` to its final place and replaces an earlier attempt. One process at a time may call it."""
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
        """Stores the report of a failed build, so that it is not tried again."""
        with self.new_directory() as directory:
            self.publish(directory, report)

    def remove_leftovers(self) -> None:
        """Removes what killed builders left behind."""
        remove_abandoned_directories(self.root)

    def _read(self, directory: Path) -> ExportReport | None:
        try:
            return ExportReport.model_validate_json((directory / REPORT_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            log.warning("%s is left out: its report cannot be read: %s", directory, error)
            return None
