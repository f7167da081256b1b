"""The images on which a network is calibrated and verified: from a dataset, or generated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Final

from torch import Tensor

from app.engine.builds.calibration_dataset import own_version
from models.backends.building import LEAST_TO_CALIBRATE_ON, LEAST_TO_VERIFY_ON, Pictures
from models.backends.views import natural_views
from models.errors import ModelsError
from models.images.decode import decode_image
from models.manifest import DatasetReference
from models.predictor import AnyPredictor
from models.predictors.classification import ClassSelection
from models.predictors.detection import DetectionSelection
from models.predictors.segmentation import SegmentationSelection
from workers.datasets.dataset import DatasetImage, SplitName
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.errors import DamagedDataset, WorkersError

log = logging.getLogger(__name__)

# a minute or two of eager float32 on a slow core
_VERIFIED_ON: Final = {"classification": 64, "segmentation": 12, "detection": 16}
_CALIBRATED_ON: Final = {"classification": 128, "segmentation": 24, "detection": 32}
_TRIES: Final = 4  # per wanted image
_SELECTIONS: Final = {
    "classification": ClassSelection(),
    "detection": DetectionSelection(),
    "segmentation": SegmentationSelection(),
}


def pictures_of(
    predictor: AnyPredictor,
    own: DatasetReference | None,
    stand_in: str | None,
    datasets: DatasetStore,
    *,
    with_calibration: bool,
) -> Pictures:
    """Chooses the images for a build.

    own: the model's training data. stand_in: the dataset version to use instead, `photos/2`.

    Verifies on validation images and calibrates on training images; if one split is too small it borrows from the
    other. No image is used for both. Without readable images, a build without calibration verifies on generated ones.
    """
    most_verified, most_calibrated = _VERIFIED_ON[predictor.task], _CALIBRATED_ON[predictor.task]
    with suppress(ModelsError, WorkersError):  # it was deleted in the meantime
        version = datasets.resolve(stand_in) if stand_in else own_version(own, datasets)
        if version is not None:
            val, train = (_images(datasets, version, split) for split in ("val", "train"))
            views = _views(predictor, version, val, most_verified)
            examples: list[Tensor] = []
            if with_calibration:
                examples = _views(predictor, version, train, most_calibrated + most_verified - len(views))
                if len(examples) < LEAST_TO_CALIBRATE_ON:
                    views = _views(predictor, version, val, most_verified + LEAST_TO_CALIBRATE_ON)
                views, examples = _shared_out(views, examples, most_verified, most_calibrated)
            elif not views:
                views = _views(predictor, version, train, most_verified)
            if views or with_calibration:
                name = version.reference
                return Pictures(to_verify_on=views, source="dataset", to_calibrate_on=examples, dataset=name)
    return Pictures(to_verify_on=natural_views(predictor.preset, most_verified), source="generated")


def _images(datasets: DatasetStore, version: DatasetVersion, split: SplitName) -> list[DatasetImage]:
    try:
        return datasets.images(version, split)
    except DamagedDataset as error:
        log.warning("%s", error)
        return []


def _shared_out(
    val: list[Tensor], train: list[Tensor], most_verified: int, most_calibrated: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The images to verify on, from `val`, and to calibrate on, from `train`; each filled up from the other."""
    lacking = LEAST_TO_VERIFY_ON - len(val)
    given = min(most_verified - len(val), max(len(train) - most_calibrated, lacking))
    given = min(given, len(train) - LEAST_TO_CALIBRATE_ON)
    if given > 0:
        moved, train = _parted(train, given)
        return val + moved, train[:most_calibrated]
    given = min(LEAST_TO_CALIBRATE_ON - len(train), len(val) - LEAST_TO_VERIFY_ON)
    if given > 0:
        moved, val = _parted(val, given)
        train = train + moved
    return val[:most_verified], train[:most_calibrated]


def _parted(views: list[Tensor], count: int) -> tuple[list[Tensor], list[Tensor]]:
    """`count` evenly spaced views, and the rest."""
    chosen = {number * len(views) // count for number in range(count)}
    return [views[number] for number in sorted(chosen)], [
        view for number, view in enumerate(views) if number not in chosen
    ]


def _views(
    predictor: AnyPredictor, version: DatasetVersion, images: Sequence[DatasetImage], count: int
) -> list[Tensor]:
    """Views of up to that many evenly spaced `images`; an unreadable image is replaced by another."""
    step = max(1, -(-len(images) // count))
    in_turn = chain.from_iterable(images[first::step] for first in range(step))
    views: list[Tensor] = []
    for image in islice(in_turn, _TRIES * count):
        with suppress(ModelsError, OSError):
            decoded = decode_image((version.images_dir / image.path).read_bytes())
            views += predictor.prepare(decoded, _SELECTIONS[predictor.task])
        if len(views) >= count:
            break
    return views[:count]
