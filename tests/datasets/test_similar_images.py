"""Near-duplicates: which images count as copies, and that copies stay in one split."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance

from tests.datasets.builders import codes, image_64x48, ingest, the_finding
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.datasets.validation.similar_images import Groups, brightness_signs, similar_groups
from workers.datasets.validation.splits import GroupBy
from workers.errors import UnusableDataset


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "datasets")


def photo(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """A smooth random landscape: neighbouring pixels are alike, as in a photo."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def captioned(image: Image.Image) -> Image.Image:
    image = image.copy()
    width, height = image.size
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, int(height * 0.88), width, height), fill="black")
    draw.text((8, int(height * 0.89)), "An ant on a leaf", fill="white")
    return image


def compressed(image: Image.Image) -> Image.Image:
    content = BytesIO()
    image.save(content, "JPEG", quality=30)
    return Image.open(content).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def brightened(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.2)


COPIES: tuple[Callable[[Image.Image], Image.Image], ...] = (captioned, compressed, halved, brightened)


def signs(image: Image.Image) -> bytes:
    found = brightness_signs(torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1))
    assert found is not None
    return found


def jpeg(image: Image.Image) -> bytes:
    content = BytesIO()
    image.save(content, "JPEG", quality=92)
    return content.getvalue()


def splits_of(store: DatasetStore, version: DatasetVersion) -> dict[str, str]:
    """The split of each image, by its name in the archive."""
    return {image.name: split for split in version.info.splits for image in store.images(version, split)}


@pytest.mark.parametrize("copy", COPIES)
def test_copy_of_a_photo_is_similar_and_other_photos_are_not(copy: Callable[[Image.Image], Image.Image]) -> None:
    photos = [photo(seed) for seed in range(30)]
    described = [signs(each) for each in (*photos, *map(copy, photos))]

    assert similar_groups(described) == [*range(30), *range(30)]


def test_sign_says_whether_the_next_cell_is_brighter() -> None:
    ramp = torch.arange(170, dtype=torch.uint8).expand(3, 160, 170)

    assert set(np.frombuffer(brightness_signs(ramp) or b"", dtype=np.int8)) == {1}
    assert set(np.frombuffer(brightness_signs(ramp.flip(2)) or b"", dtype=np.int8)) == {-1}
    assert set(np.frombuffer(brightness_signs(ramp // 170) or b"", dtype=np.int8)) == {0}


def test_objects_on_the_same_plain_ground_are_not_similar() -> None:
    plain = [Image.new("RGB", (200, 150), "white") for _ in range(2)]
    for left, image in zip((20, 35), plain, strict=True):
        ImageDraw.Draw(image).rectangle((left, 30, left + 40, 80), fill="black")

    assert similar_groups([signs(each) for each in plain]) == [0, 1]
    assert similar_groups([signs(Image.new("RGB", (200, 150), colour)) for colour in ("red", "blue")]) == [0, 1]


def test_image_too_small_to_compare_has_no_signs() -> None:
    assert brightness_signs(torch.zeros((3, 63, 200), dtype=torch.uint8)) is None


def test_groups_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.datasets.validation.similar_images._ROWS_AT_ONCE", 3)
    described = [signs(photo(seed % 5)) for seed in range(12)]

    assert similar_groups(described) == [*range(5), *range(5), 0, 1]
    assert similar_groups([]) == []


def as_signs(values: npt.NDArray[np.int8]) -> list[bytes]:
    return [row.tobytes() for row in values]


def test_distance_is_the_share_of_the_signs_that_differ() -> None:
    """The limit is 0.15: of 100 signs, 15 may be opposite, or 30 be missing in one of the two images."""
    base = np.zeros(256, dtype=np.int8)
    base[:100] = np.random.default_rng(0).choice([-1, 1], 100)
    opposite, missing = np.tile(base, (2, 1)), np.tile(base, (2, 1))
    for row, count in enumerate((15, 16)):
        opposite[row, :count] *= -1
    for row, count in enumerate((30, 31)):
        missing[row, :count] = 0

    for other, expected in ((opposite[0], 0), (opposite[1], 1), (missing[0], 0), (missing[1], 1)):
        assert similar_groups(as_signs(np.stack([base, other]))) == [0, expected]


def test_images_with_few_signs_are_not_compared() -> None:
    few = np.zeros((2, 256), dtype=np.int8)
    few[:, :63] = 1
    enough = np.where(np.arange(256) < 64, 1, 0).astype(np.int8)

    assert similar_groups(as_signs(few)) == [0, 1]
    assert similar_groups(as_signs(np.stack([enough, enough]))) == [0, 0]


def test_groups_join_over_others_and_are_named_after_the_smallest() -> None:
    groups = Groups()
    for one, other in (("d", "c"), ("b", "a"), ("c", "b"), ("x", "y")):
        groups.join(one, other)

    assert [groups.of(item) for item in "abcdxyz"] == ["a", "a", "a", "a", "x", "x", "z"]


def test_copies_stay_on_one_side_of_a_generated_split(store: DatasetStore) -> None:
    files = {}
    for label, seeds in (("ants", range(20)), ("bees", range(100, 120))):
        for seed in seeds:
            files[f"{label}/{seed}.jpg"] = jpeg(photo(seed))
            files[f"{label}/{seed}_caption.jpg"] = jpeg(captioned(photo(seed)))
    for seed in range(3):
        version = ingest(store, files, seed=seed)

        split_of = splits_of(store, version)
        assert sorted(split_of.values()).count("val") == 16
        for name in files:
            assert split_of[name] == split_of[name.replace("_caption", "")]
        assert the_finding(version.info.report, "images_grouped").count == 80
        assert "cross_split_similar" not in codes(version.info.report)


def test_without_grouping_copies_in_both_splits_are_reported(store: DatasetStore) -> None:
    files = {f"{label}/{seed}.jpg": jpeg(photo(seed)) for label, seed in (("ants", 1), ("ants", 2), ("bees", 3))}
    files["bees/3_caption.jpg"] = jpeg(captioned(photo(3)))
    report = ingest(store, files, group_by="none").info.report

    (name,) = the_finding(report, "cross_split_similar").files
    assert name in ("bees/3.jpg", "bees/3_caption.jpg")
    assert "images_grouped" not in codes(report)


def test_copies_across_the_splits_of_the_archive_are_reported(store: DatasetStore) -> None:
    files = {
        f"{split}/{label}/{seed}.jpg": jpeg(photo(seed))
        for split, label, seed in (("train", "ants", 1), ("train", "bees", 2), ("val", "ants", 3), ("test", "ants", 4))
    }
    files["val/bees/2.jpg"] = jpeg(captioned(photo(2)))
    files["test/ants/1.jpg"] = jpeg(halved(photo(1)))
    report = ingest(store, files).info.report

    assert the_finding(report, "cross_split_similar").files == ("test/ants/1.jpg", "val/bees/2.jpg")


def test_category_of_copies_only_is_split_all_the_same(store: DatasetStore) -> None:
    files = {f"ants/{seed}.jpg": jpeg(photo(seed)) for seed in range(5)}
    frame = photo(50)
    files |= {f"bees/{n}.jpg": jpeg(ImageEnhance.Brightness(frame).enhance(1 + n / 50)) for n in range(5)}
    info = ingest(store, files).info

    assert info.splits["val"].images_by_category == {"ants": 1, "bees": 1}
    assert the_finding(info.report, "cross_split_similar").count == 1


def test_too_many_images_are_not_compared_and_the_report_says_so(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.datasets.validation.sample_filter.MAX_COMPARED", 3)
    files = {
        f"{label}/{seed}.jpg": jpeg(photo(seed)) for label, seed in zip(["ants", "bees"] * 3, range(6), strict=True)
    }

    assert the_finding(ingest(store, files).info.report, "similar_images_unknown").count == 6


def test_folders_stay_together_on_request(store: DatasetStore) -> None:
    files = {
        f"{label}/nest{nest}/{number}.png": image_64x48(number + 10 * nest + 100 * (label == "ants"))
        for label in ("ants", "bees")
        for nest in range(5)
        for number in range(4)
    }
    version = ingest(store, files, group_by="folder")

    val = [name for name, split in splits_of(store, version).items() if split == "val"]
    assert len(val) == 8
    assert len({name.rpartition("/")[0] for name in val}) == 2
    assert the_finding(version.info.report, "images_grouped").count == 40


@pytest.mark.parametrize("group_by", ["similar", "none"])
def test_column_of_a_table_keeps_its_groups_together(store: DatasetStore, group_by: GroupBy) -> None:
    files = {f"{number}.png": image_64x48(number) for number in range(40)}
    nest_of = {name: f"nest {number % 10}" for number, name in enumerate(files)}
    rows = [f"{name},{'ants' if number % 2 else 'bees'},{nest_of[name]}" for number, name in enumerate(files)]
    version = ingest(store, {**files, "list.csv": "\n".join(["path,label,group", *rows]).encode()}, group_by=group_by)

    splits = splits_of(store, version)
    val = [name for name, split in splits.items() if split == "val"]
    assert len(val) == 8
    assert len({nest_of[name] for name in val}) == 2
    assert the_finding(version.info.report, "images_grouped").count == 40


def test_folders_that_are_the_categories_cannot_be_kept_together(store: DatasetStore) -> None:
    files = {f"{label}/{number}.png": image_64x48(number + 9 * (label == "a")) for label in "ab" for number in range(5)}

    with pytest.raises(UnusableDataset, match="in one folder") as caught:
        ingest(store, files, group_by="folder")
    assert caught.value.problems[0]["code"] == "too_few_groups"
