"""The file that `--out` writes: one line of JSON per image. Lines are only appended, so a run can be interrupted.

NAME.question.json beside it holds the question: the command, its options and the model version. It is written before
the first line, and a file never holds answers to two questions.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from app.cli.failure import Failure
from app.client.questions import Verb
from app.schemas.predict import ImagePrediction, UsedModel
from models.store.locks import lock_file

GO_ON: Final = "The same command continues this one."


class AskedQuestion(BaseModel):
    """The question that the lines of a file answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    verb: Verb
    model: str  # the reference as given
    used: UsedModel | None  # the version that answers; null before the first answer
    options: dict[str, JsonValue]  # the options that were given
    directory: str  # the base of relative paths


class ResultsFile:
    """An open file of results, locked by one process at a time."""

    def __init__(self, path: Path) -> None:
        """Creates the file, or reads an earlier run's lines and cuts off an unfinished last line. Raises Failure."""
        self.path = path
        self.done: set[str] = set()
        self.errors = 0  # among the lines done
        self._descriptor = _opened(path)
        self._size = 0
        try:
            self._lock()
            self._read()
            self.question = self._read_question()
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def question_path(self) -> Path:
        """The path of the question."""
        return self.path.with_name(f"{self.path.name}.question.json")

    def ask(self, question: AskedQuestion) -> None:
        """Writes the question before its first answer. Raises Failure."""
        partial = self.question_path.with_name(f".{self.question_path.name}.{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                file.write(question.model_dump_json(indent=2).encode())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.question_path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise self._unwritable(error) from error
        self.question = question

    def write(self, answers: Sequence[tuple[str, ImagePrediction]]) -> None:
        """Appends one line per path, all or none. Raises Failure."""
        lines = [_line(path, answer) for path, answer in answers]
        rest = memoryview("".join(lines).encode())
        size = self._size + len(rest)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise self._unwritable(error) from error
        self._size = size
        self.errors += sum(answer.error is not None for _, answer in answers)
        self.done.update(path for path, _ in answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _lock(self) -> None:
        try:
            lock_file(self._descriptor, wait=False)
        except BlockingIOError as error:
            raise Failure(f"Another command is writing to {self.path}.", hint="Wait for it, or stop it.") from error

    def _read(self) -> None:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):  # the last line of an interrupted run
                    os.ftruncate(self._descriptor, self._size)
                    break
                try:
                    entry = json.loads(line)
                    self.done.add(entry["path"])
                    self.errors += "error" in entry
                except (ValueError, TypeError, KeyError) as error:
                    raise Failure(
                        f"Line {number} of {self.path} is not a prediction for an image.",
                        hint="Give --out a file that this command wrote, or a new one.",
                    ) from error
                self._size += len(line)

    def _read_question(self) -> AskedQuestion | None:
        try:
            question = AskedQuestion.model_validate_json(self.question_path.read_bytes())
        except FileNotFoundError:
            question = None
        except (OSError, ValidationError) as error:
            raise Failure(
                f"{self.question_path} cannot be read. It holds the question that {self.path} answers.",
                hint="Restore it, or give --out another file.",
            ) from error
        if question is None and self.done:
            raise Failure(
                f"{self.path} has answers, but {self.question_path.name} with its question is missing.",
                hint="Restore it, or give --out another file.",
            )
        return question if self.done else None

    def _unwritable(self, error: OSError) -> Failure:
        return Failure(
            f"{self.path} cannot be written: {error.strerror or error}. It has {len(self.done)} answers.",
            hint=f"Free disk space or repair the disk. {GO_ON}",
        )


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise Failure(
            f"{path} cannot be written: {error.strerror or error}.", hint="Give --out another file."
        ) from error

    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Failure(f"{path} is not a regular file.", hint="Give --out another file.")
    return descriptor


def _line(path: str, answer: ImagePrediction) -> str:
    said: dict[str, Any] = answer.model_dump(mode="json", exclude={"image": {"name"}}, exclude_none=True)
    if answer.error is not None:
        del said["image"]  # an empty description
    # ASCII with escapes keeps file names that are not valid text.
    return json.dumps({"path": path, **said}) + "\n"
