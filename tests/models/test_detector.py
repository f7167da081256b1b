"""Boxes, masks and points come back to the pixels of the image, whatever scale or tile they were found in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from models.architectures.catalog import build, get_architecture
from models.errors import NoMasks, TooManyTiles
from models.images.presets import preset_with_size, scale
from models.manifest import ManifestDraft, ScalePreset
from models.masks.regions import decode_region
from models.predictions import Box, Detection
from models.predictors import loading
from models.predictors.detection import DetectionSelection, Detector, MaskForm
from models.store.registry import Registry
from tests.builders import gradient_tensor
from tests.models.spotter import PRESET, Spotter, detector, picture

SQUARE = ScalePreset(shorter_px=160, longer_px=160, keeps_aspect=False)
EVERYTHING = DetectionSelection(score_threshold=0.0)


def edges(found: Detection) -> tuple[float, float, float, float]:
    return found.box.x_min, found.box.y_min, found.box.x_max, found.box.y_max


@pytest.mark.parametrize(
    ("size", "preset"),
    [((320, 160), PRESET), ((160, 320), PRESET), ((640, 320), PRESET), ((80, 80), PRESET), ((320, 160), SQUARE)],
    ids=["as it is", "upright", "scaled down", "scaled up", "stretched"],
)
def test_boxes_come_back_to_the_pixels_of_the_picture(size: tuple[int, int], preset: ScalePreset) -> None:
    image = picture(*size, ("red", 8, 16, 40, 32), ("blue", 48, 40, 72, 80))

    ((red, blue),) = detector(preset=preset).predict([image], EVERYTHING)

    assert (red.label, red.index) == ("red", 1)
    assert red.score == pytest.approx(0.9)
    assert (blue.label, blue.index) == ("blue", 2)
    assert edges(red) == pytest.approx((8, 16, 40, 32), abs=1.01)
    assert edges(blue) == pytest.approx((48, 40, 72, 80), abs=1.01)


def test_boxes_of_a_picture_that_is_not_scaled_are_exact() -> None:
    ((red,),) = detector().predict([picture(320, 160, ("red", 7, 13, 301, 160))], EVERYTHING)

    assert red.box == Box(x_min=7, y_min=13, x_max=301, y_max=160)


def test_prediction_does_not_depend_on_its_company() -> None:
    served = detector()
    images = [picture(100 + 10 * number, 90, ("red", 10, 10, 40 + number, 60)) for number in range(5)]

    together = served.predict(images, EVERYTHING)

    assert together == [served.predict([image], EVERYTHING)[0] for image in images]


def test_pictures_of_one_size_share_a_batch_of_bounded_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.backends.views.BATCH_PIXELS", 3 * 160 * 320)
    served = detector()
    assert isinstance(served.module, Spotter)

    served.predict([picture(320, 160)] * 4 + [picture(100, 100)], EVERYTHING)

    assert [len(batch) for batch in served.module.batches] == [3, 1, 1]


def test_scores_categories_and_number_choose_what_is_kept() -> None:
    image = picture(320, 160, ("red", 10, 10, 40, 40), ("blue", 60, 10, 90, 40), ("blue", 100, 10, 130, 40))
    served = detector()

    def labels(selection: DetectionSelection) -> list[str]:
        return [found.label for found in served.predict([image], selection)[0]]

    assert labels(DetectionSelection()) == ["red", "blue", "blue"]
    assert labels(DetectionSelection(score_threshold=0.85)) == ["red"]
    assert labels(DetectionSelection(max_detections=2)) == ["red", "blue"]
    assert labels(DetectionSelection(categories=frozenset({"blue"}))) == ["blue", "blue"]
    assert labels(DetectionSelection(score_threshold=1.0)) == []


def test_masks_have_the_pictures_size_and_cover_what_was_found() -> None:
    image = picture(640, 320, ("red", 101, 57, 333, 201))

    ((red,),) = detector(masks=True).predict([image], EVERYTHING)

    assert red.mask is not None
    mask = decode_region(red.mask)
    truth = torch.zeros(320, 640, dtype=torch.bool).numpy()
    truth[57:201, 101:333] = True
    assert mask.shape == truth.shape
    assert (mask & truth).sum() / (mask | truth).sum() > 0.97  # found at half the size


def test_polygons_come_where_they_are_asked_for_and_nothing_without_masks() -> None:
    image = picture(320, 160, ("red", 20, 30, 120, 90))
    served = detector(masks=True)

    ((outlined,),) = served.predict([image], DetectionSelection(masks="polygon"))
    ((bare,),) = served.predict([image], DetectionSelection(masks="none"))

    (polygon,) = outlined.polygons
    assert (min(polygon[0::2]), min(polygon[1::2])) == (20, 30)
    assert (max(polygon[0::2]), max(polygon[1::2])) == (120, 90)
    assert (bare.mask, bare.polygons) == (None, ())


@pytest.mark.parametrize("masks", ["rle", "polygon"])
def test_masks_of_a_network_that_makes_none_are_refused(masks: MaskForm) -> None:
    with pytest.raises(NoMasks):
        detector().check(DetectionSelection(masks=masks))
    detector(masks=True).check(DetectionSelection(masks="rle"))


def test_keypoints_come_back_to_the_pixels_of_the_picture() -> None:
    image = picture(640, 320, ("red", 100, 60, 300, 200))

    ((red,),) = detector(points=True).predict([image], EVERYTHING)

    assert [point.label for point in red.keypoints] == ["upper left", "lower right"]
    assert [point.x for point in red.keypoints] == pytest.approx([100, 300], abs=2)
    assert [point.y for point in red.keypoints] == pytest.approx([60, 200], abs=2)
    assert red.keypoints[0].score == pytest.approx(5)


def test_tiles_find_what_is_too_small_in_the_whole_and_join_what_they_cut() -> None:
    small = [("red", 700, 500, 704, 504), ("red", 1300, 20, 1304, 24)]
    long = ("blue", 100, 700, 1500, 760)  # longer than any tile
    image = picture(1600, 800, *small, long)
    served = detector(masks=True)
    assert [found.label for found in served.predict([image], EVERYTHING)[0]] == ["blue"]

    (found,) = served.predict([image], DetectionSelection(tile_px=160, tile_overlap=0.25))

    assert sorted(found.label for found in found) == ["blue", "red", "red"]
    assert sorted(edges(one) for one in found if one.label == "red") == [
        pytest.approx(edges_of[1:], abs=1) for edges_of in small
    ]
    (blue,) = (one for one in found if one.label == "blue")
    assert edges(blue) == pytest.approx(long[1:], abs=5)
    for one in found:
        assert one.mask is not None
        mask = decode_region(one.mask)
        left, top, right, bottom = (round(edge) for edge in edges(one))
        assert mask.shape == (800, 1600)
        assert mask.sum() == mask[top:bottom, left:right].sum() > 0.9 * (bottom - top) * (right - left)


def test_object_in_two_tiles_is_answered_once_with_its_own_mask() -> None:
    image = picture(580, 320, ("red", 275, 100, 305, 150))  # in both tiles, whole in each

    ((red,),) = detector(masks=True).predict([image], DetectionSelection(tile_px=320, tile_overlap=0.18))

    assert edges(red) == pytest.approx((275, 100, 305, 150), abs=2)


def test_views_are_counted_before_anything_is_decoded() -> None:
    selection = DetectionSelection(tile_px=320, tile_overlap=0.25)

    assert selection.count_views(1600, 800) == len(detector().prepare(picture(1600, 800), selection))
    with pytest.raises(TooManyTiles):
        selection.count_views(30_000, 30_000)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
@pytest.mark.parametrize("tile_px", [None, 320])
def test_picture_of_any_size_is_answered(size: tuple[int, int], tile_px: int | None) -> None:
    image = picture(*size, ("red", 0, 0, *size))

    (found,) = detector(masks=True).predict([image], DetectionSelection(tile_px=tile_px))

    assert found
    assert all(
        0 <= left < right <= size[0] and 0 <= top < bottom <= size[1] for left, top, right, bottom in map(edges, found)
    )


def test_boxes_are_clipped_and_those_that_are_no_numbers_or_without_area_go() -> None:
    class Careless(Spotter):
        def forward(self, images: object) -> list[dict[str, torch.Tensor]]:
            boxes = [[-9.0, -9, 400, 400], [5, 5, 5, 9], [400, 5, 500, 9], [float("nan"), 0, 1, 1], [1, 1, 9, 9]]
            scores = [0.9, 0.9, 0.9, 0.9, float("nan")]
            return [
                {
                    "boxes": torch.tensor(boxes),
                    "scores": torch.tensor(scores),
                    "labels": torch.tensor([1, 2, 1, 2, 1]),
                }
            ]

    served = Detector(Careless(), categories=("red", "blue"), preset=PRESET, device="cpu")

    ((only,),) = served.predict([picture(320, 160)], EVERYTHING)

    assert edges(only) == (0, 0, 320, 160)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fasterrcnn_fpn", {"backbone": "mobilenet_v3_small"}),
        ("maskrcnn_fpn", {"backbone": "mobilenet_v3_small"}),
        ("ssdlite320_mobilenet_v3_large", {}),
    ],
)
def test_registered_detector_answers_as_its_network_does(name: str, options: dict[str, str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = get_architecture(name)
    size_px = architecture.max_size_px or 96
    preset = preset_with_size(architecture.scale_preset, size_px)
    module = build(name, num_categories=2, image_size_px=size_px, options=options).eval()
    draft = ManifestDraft(
        task="detection", architecture=name, options=options, categories=("red", "blue"), preset=preset
    )
    registry = Registry(tmp_path)
    version = registry.publish("finder", module.state_dict(), draft, now=datetime.now(UTC))
    image = gradient_tensor(240, 180)

    served = loading.load_version(registry, version, "cpu")
    assert isinstance(served, Detector)
    (found,) = served.predict([image], DetectionSelection(score_threshold=0.0, iou_threshold=1.0, max_detections=5))

    view = scale(preset, image)
    with torch.inference_mode():
        (raw,) = module([view.float() / 255])
    best = raw["boxes"][:5] * torch.tensor([240 / view.shape[2], 180 / view.shape[1]] * 2)
    assert found
    assert [one.score for one in found] == pytest.approx(raw["scores"][: len(found)].tolist(), abs=1e-5)
    assert edges(found[0]) == pytest.approx(best[0].tolist(), abs=1e-2)
    assert all((one.mask is not None) == architecture.makes_masks for one in found)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_real_network_bears_pictures_of_odd_sizes(size: tuple[int, int]) -> None:
    architecture = get_architecture("maskrcnn_fpn")
    module = build("maskrcnn_fpn", num_categories=1, image_size_px=96, options={"backbone": "mobilenet_v3_small"})
    served = Detector(
        module,
        categories=("red",),
        preset=preset_with_size(architecture.scale_preset, 96),
        device="cpu",
        makes_masks=True,
    )

    (found,) = served.predict([picture(*size)], EVERYTHING)

    assert all(one.mask is not None and (one.mask.width, one.mask.height) == size for one in found)
