"""Choosing the images of the validation split."""

from __future__ import annotations

import pytest

from workers.datasets.validation.splits import choose_validation

IMAGES = [(label, f"{label}{number:03}") for label in ("ants", "bees", "wasps") for number in range(50)]


def chosen_of(label: str, chosen: frozenset[tuple[str, str]]) -> set[str]:
    return {content for category, content in chosen if category == label}


def test_every_category_gives_its_fraction() -> None:
    chosen = choose_validation(IMAGES, fraction=0.2, seed=0)

    assert [len(chosen_of(label, chosen)) for label in ("ants", "bees", "wasps")] == [10, 10, 10]


def test_same_seed_gives_the_same_split_in_any_order() -> None:
    assert choose_validation(IMAGES, fraction=0.2, seed=3) == choose_validation(IMAGES[::-1], fraction=0.2, seed=3)


def test_another_seed_gives_another_split() -> None:
    assert choose_validation(IMAGES, fraction=0.2, seed=0) != choose_validation(IMAGES, fraction=0.2, seed=1)


def test_split_of_a_seed_never_changes() -> None:
    images = [("ants", str(number)) for number in range(10)]

    assert sorted(chosen_of("ants", choose_validation(images, fraction=0.3, seed=0))) == ["4", "7", "9"]


def test_adding_images_keeps_the_split_of_most_others() -> None:
    before = choose_validation(IMAGES, fraction=0.2, seed=0)
    after = choose_validation([*IMAGES, ("ants", "new1"), ("ants", "new2")], fraction=0.2, seed=0)

    assert len(before & after) >= len(before) - 2


@pytest.mark.parametrize(("images", "fraction", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (3, 0.5, 2), (1, 0.5, 0)])
def test_small_category_keeps_one_image_on_either_side(images: int, fraction: float, expected: int) -> None:
    chosen = choose_validation([("ants", str(number)) for number in range(images)], fraction=fraction, seed=0)

    assert len(chosen) == expected


def test_copies_count_as_one_image() -> None:
    assert choose_validation([("ants", "same")] * 10, fraction=0.2, seed=0) == frozenset()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        choose_validation(IMAGES, fraction=fraction, seed=0)
