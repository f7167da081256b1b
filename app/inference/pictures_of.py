"""The pictures that a network is calibrated and verified on: those of a data set, else made-up ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from torch import Tensor

from app.inference.calibration_dataset import own_version, reference_of
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
    stand_in: str | None,
    datasets: DatasetStore,
    *,
    with_calibration: bool,
) -> Pictures:
    """own: what the model learned from. stand_in: the data set version to take instead, `photos/2`.

    Verified is on validation pictures, calibrated on training pictures, as far as there are both.
    """
    count = _VERIFIED_ON[predictor.task]
    with suppress(ModelsError, WorkersError):  # it was deleted meanwhile
        version = datasets.resolve(stand_in) if stand_in else own_version(own, datasets)
        if version is not None:
            val, train = datasets.images(version, "val"), datasets.images(version, "train")
            views = _views(predictor, version, val or train, count)
            examples = []
            if with_calibration:
                examples = _views(predictor, version, train or val, _CALIBRATED_ON[predictor.task])
            if views:
                name = reference_of(version)
                return Pictures(to_verify_on=views, source="dataset", to_calibrate_on=examples, dataset=name)
    return Pictures(to_verify_on=natural_views(predictor.preset, count), source="generated")


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
