"""The pictures that a network is calibrated and verified on: those of a data set, else made-up ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from torch import Tensor

from models.backends.building import Pictures
from models.backends.views import natural_views
from models.errors import ModelsError
from models.images import decode_image
from models.manifest import DatasetReference
from models.predictor import AnyPredictor
from models.predictors.classification import ClassSelection
from models.predictors.detection import DetectionSelection
from models.predictors.segmentation import SegmentationSelection
from workers.datasets.dataset import DatasetImage
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.errors import WorkersError

log = logging.getLogger(__name__)

# a minute or two of eager float32 on a slow core
_VERIFIED_ON: Final = {"classification": 64, "segmentation": 12, "detection": 16}
_CALIBRATED_ON: Final = {"classification": 128, "segmentation": 24, "detection": 32}
_SELECTIONS: Final = {
    "classification": ClassSelection(),
    "detection": DetectionSelection(),
    "segmentation": SegmentationSelection(),
}


def pictures_of(
    predictor: AnyPredictor,
    own: DatasetReference | None,
    other: str | None,
    datasets: DatasetStore,
    *,
    with_calibration: bool,
) -> Pictures:
    """own: what the model learned from. other: the data set to take where that is not here any more, or never was.

    Verified is on validation pictures, calibrated on training pictures, as far as there are both.
    """
    count = _VERIFIED_ON[predictor.task]
    for version in filter(None, (_own(own, datasets), _other(other, datasets))):
        with suppress(WorkersError):  # it was deleted meanwhile
            val, train = datasets.images(version, "val"), datasets.images(version, "train")
            views = _views(predictor, version, val or train, count)
            examples = []
            if with_calibration:
                examples = _views(predictor, version, train or val, _CALIBRATED_ON[predictor.task])
            if views:
                name = f"{version.info.name}/{version.info.version}"
                return Pictures(to_verify_on=views, source="dataset", to_calibrate_on=examples, dataset=name)
    return Pictures(to_verify_on=natural_views(predictor.preset, count), source="generated")


def _own(own: DatasetReference | None, datasets: DatasetStore) -> DatasetVersion | None:
    """If it is still what the model learned from."""
    if own is None:
        return None
    with suppress(ModelsError, WorkersError):
        version = datasets.get(own.name, own.version)
        return version if version.info.fingerprint == own.fingerprint else None
    return None


def _other(reference: str | None, datasets: DatasetStore) -> DatasetVersion | None:
    if reference is None:
        return None
    try:
        return datasets.resolve(reference)
    except (ModelsError, WorkersError) as error:
        log.warning("FOVEA_CALIBRATION_DATASET: %s %s", error, error.hint or "")
        return None


def _views(
    predictor: AnyPredictor, version: DatasetVersion, images: Sequence[DatasetImage], count: int
) -> list[Tensor]:
    """Of up to that many of `images`, from all over; what cannot be read is left out."""
    step = max(1, len(images) // count)
    views: list[Tensor] = []
    for image in images[::step][:count]:
        with suppress(ModelsError, OSError):  # others will do
            decoded = decode_image((version.images_dir / image.path).read_bytes())
            views += predictor.prepare(decoded, _SELECTIONS[predictor.task])
    return views
