"""Label Studio with one choice per image, for classification."""

from __future__ import annotations

from collections.abc import Sequence

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.findings import counted, entries_finding, finding
from workers.datasets.formats.annotation import clean_label
from workers.datasets.formats.file_names import FileNames, split_in_path
from workers.datasets.formats.json_values import text_of
from workers.datasets.formats.label_studio_tasks import SHAPE_KEYS, StudioTask, find_image, is_export, read_tasks
from workers.datasets.formats.reading import Format, Reading, leftover_findings, resolve_splits, sort_files, unusable

_EXPECTED = "images and the JSON export of Label Studio with one choice per image"


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_has_choices(file) for file in files)


def _has_choices(file: ArchivedFile) -> bool:
    return is_export(file, ("choices", "choice")) and not is_export(file, SHAPE_KEYS)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    names = FileNames(sorted_files.images)
    lists = [file for file in files if _has_choices(file)]
    by_image: dict[str, tuple[ArchivedFile, str]] = {}
    bad: list[tuple[str, str]] = []
    conflicting: set[str] = set()
    for file in lists:
        for task in read_tasks(file):
            image = find_image(task, names, near=file.name.rpartition("/")[0]) if task.image else None
            label = _choice(task)
            if image is None or not label:
                bad.append(
                    (task.where, "its image is not in the archive" if image is None else "it has not one choice")
                )
            elif by_image.setdefault(image.name, (image, label))[1] != label:
                conflicting.add(image.name)
    findings = [entries_finding("bad_entries", bad)] if bad else []
    if conflicting:
        text = f"{counted(len(conflicting), 'image')} left out: listed with several labels."
        findings.append(finding("error", "conflicting_rows", text, sorted(conflicting)))
    unlisted = [image.name for image in sorted_files.images if image.name not in by_image]
    if unlisted:
        text = f"{counted(len(unlisted), 'image')} left out: no task has one choice for it."
        findings.append(finding("warning", "unlisted_images", text, unlisted))
    findings += leftover_findings(sorted_files, used={file.name for file in lists})
    listed = [
        (image, label, split_in_path(name))
        for name, (image, label) in sorted(by_image.items())
        if name not in conflicting
    ]
    if not listed:
        raise unusable(
            "No task of Label Studio has one choice for an image of the archive.",
            hint=f"Expected: {_EXPECTED}.",
            code="no_annotations",
            findings=findings,
        )
    resolved, split_findings = resolve_splits(listed)
    return Reading(format="label_studio_choices", files=tuple(resolved), findings=(*split_findings, *findings))


def _choice(task: StudioTask) -> str:
    """Returns the one choice of a task, or an empty text if it has none or several."""
    values = [value for result in task.results if isinstance(value := result.get("value"), dict)]
    lists = [value["choices"] for value in values if isinstance(value.get("choices"), list)]
    choices = [clean_label(text_of(choice)) for each in lists for choice in each]
    return choices[0] if len(choices) == 1 else ""


LABEL_STUDIO_CHOICES = Format(
    name="label_studio_choices", task="classification", expected=_EXPECTED, fits=_fits, read=_read
)
