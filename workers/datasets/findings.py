"""Builds findings: counts, shortened lists of files, and their order in a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from workers.datasets.dataset import Finding, Severity

CodeT = TypeVar("CodeT", bound=str)

_FILES_SHOWN = 20
_NAME_LENGTH = 300
_SEVERITY_ORDER: tuple[Severity, ...] = ("error", "warning", "info")


def finding(severity: Severity, code: str, message: str, files: Collection[str] = (), *, count: int = -1) -> Finding:
    """Returns a finding about `files`; it names the first 20 of them.

    count: the number of things that the finding concerns, if that is not the number of `files`.
    """
    shown = tuple(
        name if len(name) <= _NAME_LENGTH else name[:_NAME_LENGTH] + "…" for name in islice(files, _FILES_SHOWN)
    )
    return Finding(severity=severity, code=code, message=message, count=len(files) if count < 0 else count, files=shown)


def entries_finding(
    code: str,
    problems: Sequence[tuple[str, str]],
    *,
    noun: tuple[str, str] = ("entry", "entries"),
    of: str = "",
    why: str = "",
) -> Finding:
    """Returns an error about entries of annotation files that were left out; it counts entries, not lines.

    problems: place and reason of each entry. of: words after the count, for example ` of a.json`.
    why: the general reason.
    """
    where, reason = problems[0]
    text = f"{counted(len(problems), *noun)}{of} left out{f': {why}' if why else ''}. The first, {where}: {reason}."
    return finding("error", code, text, dict.fromkeys(place for place, _ in problems), count=len(problems))


def left_out_findings(
    problems: Iterable[tuple[str, CodeT, str]], meanings: Mapping[CodeT, str], *, noun: str
) -> list[Finding]:
    """Returns one finding per code of `problems`; each states the reason of its first file.

    problems: name of a file, code, reason. meanings: what each code means, in the order of the findings.
    """
    by_code: defaultdict[CodeT, list[tuple[str, str]]] = defaultdict(list)
    for name, code, reason in problems:
        by_code[code].append((name, reason))
    return [
        finding(
            "error",
            code,
            f"{counted(len(by_code[code]), noun)} left out: {meaning}. The first: {by_code[code][0][1]}",
            [name for name, _ in by_code[code]],
        )
        for code, meaning in meanings.items()
        if code in by_code
    ]


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Formats a count with its noun: `1 image`, `1,200 images`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def by_severity(findings: Collection[Finding]) -> tuple[Finding, ...]:
    """Sorts findings: errors, then warnings, then information. The order is otherwise unchanged."""
    return tuple(sorted(findings, key=lambda each: _SEVERITY_ORDER.index(each.severity)))
