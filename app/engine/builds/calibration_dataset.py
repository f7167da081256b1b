"""The dataset on which a model is calibrated and verified: its training data, or one that the operator names."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from models.backends.building import LEAST_TO_CALIBRATE_ON, LEAST_TO_VERIFY_ON
from models.errors import ModelsError, NothingToCalibrateOn
from models.manifest import DatasetReference
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.errors import WorkersError

_LEAST: Final = LEAST_TO_CALIBRATE_ON + LEAST_TO_VERIFY_ON  # no image is used for both


def stand_in_for(own: DatasetReference | None, named: str | None, datasets: DatasetStore) -> str | None:
    """The dataset version, `photos/2`, that replaces a model's own; None if the own one exists and is large enough.

    named: the operator's choice, `photos` or `photos/2`, which is looked up only if needed.
    Raises NothingToCalibrateOn if neither is suitable for int8.
    """
    version = own_version(own, datasets)
    if version is not None and _pictures(version) >= _LEAST:
        return None
    if named is None:
        raise NothingToCalibrateOn(
            f"Models whose own dataset is not here, or has fewer than {_LEAST} images, are not built in int8: they "
            "cannot be calibrated.",
            hint="Set FOVEA_CALIBRATION_DATASET to a dataset for them.",
        )
    try:
        version = datasets.resolve(named)
    except (ModelsError, WorkersError) as error:
        raise NothingToCalibrateOn(f"FOVEA_CALIBRATION_DATASET: {error}", hint=error.hint) from error
    reference, count = version.reference, _pictures(version)
    if count < _LEAST:
        raise NothingToCalibrateOn(f"FOVEA_CALIBRATION_DATASET: {reference} has {count} images; int8 needs {_LEAST}.")
    return reference


def own_version(own: DatasetReference | None, datasets: DatasetStore) -> DatasetVersion | None:
    """The model's own dataset version, if it still exists unchanged."""
    if own is None:
        return None
    with suppress(ModelsError, WorkersError):
        version = datasets.get(own.name, own.version)
        return version if version.info.fingerprint == own.fingerprint else None
    return None


def _pictures(version: DatasetVersion) -> int:
    return sum(split.images for split in version.info.splits.values())
