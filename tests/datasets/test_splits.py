"""Choosing the images of the validation split."""

from __future__ import annotations

import pytest

from workers.datasets.validation.splits import SplitImage, choose_validation


def image(label: str, content: object, group: str | None = None) -> SplitImage:
    return SplitImage(label=label, sha256=str(content), group=group or str(content))


IMAGES = [image(label, f"{label}{number:03}") for label in ("ants", "bees", "wasps") for number in range(50)]


def chosen_of(label: str, chosen: frozenset[str]) -> set[str]:
    return {group for group in chosen if group.startswith(label)}


def test_every_category_gives_its_fraction() -> None:
    chosen = choose_validation(IMAGES, fraction=0.2, seed=0)

    assert [len(chosen_of(label, chosen)) for label in ("ants", "bees", "wasps")] == [10, 10, 10]


def test_same_seed_gives_the_same_split_in_any_order() -> None:
    assert choose_validation(IMAGES, fraction=0.2, seed=3) == choose_validation(IMAGES[::-1], fraction=0.2, seed=3)


def test_another_seed_gives_another_split() -> None:
    assert choose_validation(IMAGES, fraction=0.2, seed=0) != choose_validation(IMAGES, fraction=0.2, seed=1)


def test_split_of_a_seed_never_changes() -> None:
    images = [image("ants", number) for number in range(10)]

    assert sorted(choose_validation(images, fraction=0.3, seed=0)) == ["4", "7", "9"]


def test_adding_images_keeps_the_split_of_most_others() -> None:
    before = choose_validation(IMAGES, fraction=0.2, seed=0)
    after = choose_validation([*IMAGES, image("ants", "new1"), image("ants", "new2")], fraction=0.2, seed=0)

    assert len(before & after) >= len(before) - 2


@pytest.mark.parametrize(
    ("images", "fraction", "expected"), [(9, 0.01, 1), (2, 0.01, 1), (2, 0.99, 1), (3, 0.5, 2), (1, 0.5, 0)]
)
def test_small_category_keeps_one_image_on_either_side(images: int, fraction: float, expected: int) -> None:
    chosen = choose_validation([image("ants", number) for number in range(images)], fraction=fraction, seed=0)

    assert len(chosen) == expected


def test_copies_count_as_one_image() -> None:
    assert choose_validation([image("ants", "same")] * 10, fraction=0.2, seed=0) == frozenset()


def test_group_is_chosen_as_a_whole_and_does_not_exceed_the_fraction() -> None:
    images = [image("ants", number, group=f"nest{number // 4}") for number in range(40)]

    for seed in range(20):
        assert len(choose_validation(images, fraction=0.2, seed=seed)) == 2  # of ten nests with four ants each


def test_smallest_group_is_chosen_if_all_are_larger_than_the_fraction() -> None:
    sizes = {"a": 6, "b": 5, "c": 9}
    images = [image("ants", f"{group}{number}", group=group) for group, size in sizes.items() for number in range(size)]

    assert {choose_validation(images, fraction=0.1, seed=seed) for seed in range(5)} == {frozenset("b")}


def test_group_counts_for_the_label_of_most_of_its_images() -> None:
    mixed = [image("ants", "m1", "m"), image("bees", "m2", "m"), image("bees", "m3", "m")]
    others = [image("ants", number) for number in range(4)]

    chosen = choose_validation([*mixed, *others], fraction=0.5, seed=0)
    assert len(chosen) == 2  # half of the four ants; the bees have one group only, which stays in train
    assert "m" not in chosen


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        choose_validation(IMAGES, fraction=fraction, seed=0)
