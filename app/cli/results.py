"""The file that `--out` writes: a line of JSON an image, only ever appended to, so that a run can be interrupted.

Beside it, in NAME.question.json, lies what was asked, of which version of which model: a file never holds answers to
two questions. It is written before the first line.
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

GO_ON: Final = "The same command goes on where this one stopped."


class AskedQuestion(BaseModel):
    """What the lines of a file are answers to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    verb: Verb
    model: str  # as it was given
    used: UsedModel | None  # as it was understood; null until an image was answered
    options: dict[str, JsonValue]  # those that were given
    directory: str  # what paths are relative to


class ResultsFile:
    """An open file of results. One process has it at a time."""

    def __init__(self, path: Path) -> None:
        """Makes it, or reads what an earlier run wrote and cuts off a line that was not finished. Raises Failure."""
        self.path = path
        self.done: set[str] = set()
        self.errors = 0  # of those done
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
        """Where the question lies."""
        return self.path.with_name(f"{self.path.name}.question.json")

    def ask(self, question: AskedQuestion) -> None:
        """Writes the question, before its first answer. Raises Failure."""
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
        """Adds a line for each path. Raises Failure; then none of them is there."""
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
            raise Failure(f"Another command writes to {self.path} now.", hint="Wait for it, or end it.") from error

    def _read(self) -> None:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):  # the last one, cut off by whatever ended the run
                    os.ftruncate(self._descriptor, self._size)
                    break
                try:
                    entry = json.loads(line)
                    self.done.add(entry["path"])
                    self.errors += "error" in entry
                except (ValueError, TypeError, KeyError) as error:
                    raise Failure(
                        f"Line {number} of {self.path} is no answer about a picture.",
                        hint="Give --out a file of this command's, or one that is not there yet.",
                    ) from error
                self._size += len(line)

    def _read_question(self) -> AskedQuestion | None:
        try:
            question = AskedQuestion.model_validate_json(self.question_path.read_bytes())
        except FileNotFoundError:
            question = None
        except (OSError, ValidationError) as error:
            raise Failure(
                f"{self.question_path} cannot be read: it says what the answers in {self.path} are answers to.",
                hint="Bring it back, or give --out another file.",
            ) from error
        if question is None and self.done:
            raise Failure(
                f"{self.path} has answers, but {self.question_path.name} beside it is missing: nobody knows to what.",
                hint="Bring it back, or give --out another file.",
            )
        return question if self.done else None

    def _unwritable(self, error: OSError) -> Failure:
        return Failure(
            f"{self.path} cannot be written: {error.strerror or error}. It has {len(self.done)} answers.",
            hint=f"Make room, or mend it. {GO_ON}",
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
        raise Failure(f"{path} is no file that could be read again.", hint="Give --out another file.")
    return descriptor


def _line(path: str, answer: ImagePrediction) -> str:
    said: dict[str, Any] = answer.model_dump(mode="json", exclude={"image": {"name"}}, exclude_none=True)
    if answer.error is not None:
        del said["image"]  # nothing is known of it
    # ASCII: a file's name need not be text, and JSON's escapes keep even those that are none.
    return json.dumps({"path": path, **said}) + "\n"
