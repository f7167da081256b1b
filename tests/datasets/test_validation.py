"""The rules of validation, on files that do not exist on the disk."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.datasets.builders import codes, facts, labelled, the_finding
from workers.datasets.formats.reading import LabelledFile, Reading
from workers.datasets.validation.categories import validate_categories
from workers.datasets.validation.inspection import ImageFacts, ImageProblem
from workers.datasets.validation.sample_filter import ValidDataset
from workers.datasets.validation.splits import SplitRule
from workers.errors import UnusableDataset

BROKEN = ImageProblem(code="unreadable_image", reason="It ends early.")


def some(label: str, count: int, split: str | None = None) -> list[LabelledFile]:
    prefix = f"{split}/" if split else ""
    return [labelled(f"{prefix}{label}/{n}.jpg", label, split) for n in range(count)]  # type: ignore[arg-type]


def validated(
    files: Sequence[LabelledFile], inspected: Sequence[ImageFacts | ImageProblem] | None = None, *, seed: int = 0
) -> ValidDataset:
    reading = Reading(format="image_folder", files=tuple(files), findings=())
    outcomes = inspected if inspected is not None else [facts()] * len(files)
    return validate_categories(reading, outcomes, SplitRule(seed=seed))


def refused(
    files: Sequence[LabelledFile], inspected: Sequence[ImageFacts | ImageProblem] | None = None
) -> UnusableDataset:
    with pytest.raises(UnusableDataset) as caught:
        validated(files, inspected)
    assert caught.value.hint is not None
    assert caught.value.problems[0]["message"] == str(caught.value)
    return caught.value


def sizes(valid: ValidDataset) -> tuple[int, int]:
    return len(valid.splits["train"]), len(valid.splits["val"])


GOOD = [
    *some("ants", 20, "train"),
    *some("bees", 20, "train"),
    *some("ants", 5, "val"),
    *some("bees", 5, "val"),
]


def test_good_dataset_has_nothing_to_report() -> None:
    valid = validated(GOOD)

    assert valid.categories == ("ants", "bees")
    assert sizes(valid) == (40, 10)
    assert valid.findings == ()
    assert not valid.has_generated_split


def test_missing_split_is_generated_and_reported() -> None:
    valid = validated([*some("ants", 20), *some("bees", 20)])

    assert sizes(valid) == (32, 8)
    assert valid.has_generated_split
    assert the_finding(valid.findings, "split_made").count == 8


def test_archive_with_only_train_gets_a_val_split() -> None:
    assert sizes(validated([*some("ants", 20, "train"), *some("bees", 20, "train")])) == (32, 8)


def test_val_split_without_usable_images_is_generated() -> None:
    outcomes = [BROKEN if file.split == "val" else facts() for file in GOOD]

    assert sizes(validated(GOOD, outcomes)) == (32, 8)


def test_generated_split_depends_on_the_seed() -> None:
    files = [*some("ants", 20), *some("bees", 20)]
    names = [{sample.name for sample in validated(files, seed=seed).splits["val"]} for seed in (0, 0, 1)]

    assert names[0] == names[1]
    assert names[0] != names[2]


def test_problem_files_are_left_out_and_the_first_reason_is_reported() -> None:
    valid = validated(GOOD, [BROKEN, BROKEN, *[facts()] * (len(GOOD) - 2)])
    finding = the_finding(valid.findings, "unreadable_image")

    assert sizes(valid) == (38, 10)
    assert (finding.severity, finding.count) == ("error", 2)
    assert finding.message == "2 files left out: damaged. The first: It ends early."
    assert finding.files == ("train/ants/0.jpg", "train/ants/1.jpg")


def test_finding_names_at_most_twenty_files() -> None:
    files = [*some("ants", 50), *some("bees", 50)]
    finding = the_finding(validated(files, [*[BROKEN] * 30, *[facts()] * 70]).findings, "unreadable_image")

    assert (finding.count, len(finding.files)) == (30, 20)


def test_dataset_without_usable_images_is_refused_with_every_reason() -> None:
    empty = ImageProblem(code="empty_file", reason="The data is empty.")
    error = refused([*some("ants", 2), *some("bees", 1)], [BROKEN, BROKEN, empty])

    assert [problem["code"] for problem in error.problems] == ["no_usable_images", "empty_file", "unreadable_image"]


def test_one_category_is_refused() -> None:
    assert str(refused(some("ants", 9))) == "Only one category has usable images: 'ants'."


def test_one_category_left_after_problems_is_refused_with_the_problems() -> None:
    error = refused([*some("ants", 9), *some("bees", 1)], [*[facts()] * 9, BROKEN])

    assert {problem["code"] for problem in error.problems} == {
        "too_few_categories",
        "unreadable_image",
        "empty_categories",
    }


def test_category_without_a_usable_image_is_left_out_and_reported() -> None:
    valid = validated([*GOOD, labelled("train/wasps/1.jpg", "wasps", "train")], [*[facts()] * len(GOOD), BROKEN])

    assert valid.categories == ("ants", "bees")
    assert "'wasps'" in the_finding(valid.findings, "empty_categories").message


def test_val_category_missing_in_train_is_refused() -> None:
    error = refused([*GOOD, *some("Ants", 3, "val")])

    assert "'Ants'" in str(error)
    assert error.problems[0]["code"] == "val_categories_not_in_train"
    assert error.problems[0]["count"] == 3


def test_no_train_split_is_refused() -> None:
    assert "`train` split has no usable image" in str(refused([*some("ants", 3, "val"), *some("bees", 3, "val")]))


def test_one_image_per_category_is_refused() -> None:
    assert refused([*some("ants", 1), *some("bees", 1)]).problems[0]["code"] == "too_few_images"


def test_same_image_in_two_categories_is_left_out_everywhere() -> None:
    files = [
        *GOOD,
        labelled("train/ants/x.jpg", "ants", "train", content="x"),
        labelled("val/bees/x.jpg", "bees", "val", content="x"),
    ]
    valid = validated(files)

    assert sizes(valid) == (40, 10)
    assert the_finding(valid.findings, "conflicting_labels").count == 2


def test_copies_in_a_split_are_kept_and_reported() -> None:
    files = [*GOOD, *(labelled(f"train/ants/x{n}.jpg", "ants", "train", content="x") for n in range(3))]
    valid = validated(files)

    assert sizes(valid) == (43, 10)
    assert the_finding(valid.findings, "duplicate_images").files == ("train/ants/x1.jpg", "train/ants/x2.jpg")


def test_image_in_both_splits_is_kept_with_a_warning() -> None:
    files = [
        *GOOD,
        labelled("train/ants/x.jpg", "ants", "train", content="x"),
        labelled("val/ants/x.jpg", "ants", "val", content="x"),
    ]
    finding = the_finding(validated(files).findings, "cross_split_duplicates")

    assert (finding.severity, finding.files) == ("warning", ("val/ants/x.jpg",))


def test_copies_stay_in_one_split_when_it_is_generated() -> None:
    copies = [labelled(f"ants/x{n}.jpg", "ants", content=f"x{n // 2}") for n in range(40)]

    assert "cross_split_duplicates" not in codes(validated([*copies, *some("bees", 20)]).findings)


def test_ten_times_as_many_images_give_a_warning() -> None:
    files = [*some("ants", 100, "train"), *some("bees", 10, "train"), *some("ants", 3, "val"), *some("bees", 3, "val")]

    assert (
        "100 images of 'ants', 10 of 'bees'" in the_finding(validated(files).findings, "imbalanced_categories").message
    )


def test_nine_times_as_many_images_give_no_warning() -> None:
    files = [*some("ants", 90, "train"), *some("bees", 10, "train"), *some("ants", 3, "val"), *some("bees", 3, "val")]

    assert "imbalanced_categories" not in codes(validated(files).findings)


def test_category_with_few_images_gives_a_warning() -> None:
    files = [*GOOD, *some("wasps", 9, "train"), *some("wasps", 1, "val")]

    assert "'wasps'" in the_finding(validated(files).findings, "few_images").message


def test_category_missing_in_val_gives_a_warning() -> None:
    assert (
        "'wasps'"
        in the_finding(validated([*GOOD, *some("wasps", 10, "train")]).findings, "categories_not_validated").message
    )


def test_categories_that_differ_only_in_spelling_give_a_warning() -> None:
    files = [*some("Red ants", 20), *some("red_ants", 20), *some("bees", 20)]

    assert the_finding(validated(files).findings, "similar_categories").count == 2


def test_finding_lists_at_most_ten_categories() -> None:
    files = [file for number in range(15) for file in some(f"c{number:02}", 2)]

    assert "'c09' and 5 more" in the_finding(validated(files).findings, "few_images").message


def test_blank_animated_and_renamed_images_are_reported() -> None:
    odd = [facts(is_blank=True), facts(is_animated=True), facts(kind="PNG")]
    findings = validated(GOOD, [*odd, *[facts()] * (len(GOOD) - 3)]).findings

    assert the_finding(findings, "blank_images").files == ("train/ants/0.jpg",)
    assert the_finding(findings, "animated_images").files == ("train/ants/1.jpg",)
    assert the_finding(findings, "wrong_suffix").files == ("train/ants/2.jpg",)


def test_single_gif_among_jpegs_gives_a_warning() -> None:
    files = [*some("ants", 70), *some("bees", 70)]
    finding = the_finding(validated(files, [facts(kind="GIF"), *[facts()] * 139]).findings, "odd_format")

    assert (finding.severity, finding.files) == ("warning", ("ants/0.jpg",))
    assert finding.message.startswith("1 image in an unusual format (GIF): nearly all others are JPEG.")


def test_mixed_formats_are_not_odd() -> None:
    files = [*some("ants", 70), *some("bees", 70)]
    kinds = [facts(kind=("GIF" if n == 0 else "PNG" if n % 2 else "JPEG")) for n in range(140)]

    assert "odd_format" not in codes(validated(files, kinds).findings)


def test_findings_are_sorted_by_severity() -> None:
    files = [*some("ants", 200), *some("bees", 2)]
    findings = validated(files, [BROKEN, *[facts()] * 201]).findings

    assert [finding.severity for finding in findings] == ["error", "warning", "warning", "info"]
