"""Which data set a model is calibrated and verified on: what it learned from, else what an operator names."""

from __future__ import annotations

from contextlib import suppress

from models.errors import ModelsError, NothingToCalibrateOn
from models.manifest import DatasetReference
from workers.datasets.store import DatasetStore, DatasetVersion
from workers.errors import WorkersError


def stand_in_for(own: DatasetReference | None, named: str | None, datasets: DatasetStore) -> str | None:
    """The data set version, `photos/2`, that stands in for a model's own; None: its own is here.

    named: by the operator, `photos` or `photos/2`; it is not looked for where nobody needs it.
    Raises NothingToCalibrateOn if neither is here.
    """
    if own_version(own, datasets) is not None:
        return None
    if named is None:
        raise NothingToCalibrateOn(
            "Models whose own data set is not here are not built in int8: they have no pictures to calibrate on.",
            hint="FOVEA_CALIBRATION_DATASET names a data set for them.",
        )
    try:
        return reference_of(datasets.resolve(named))
    except (ModelsError, WorkersError) as error:
        raise NothingToCalibrateOn(f"FOVEA_CALIBRATION_DATASET: {error}", hint=error.hint) from error


def own_version(own: DatasetReference | None, datasets: DatasetStore) -> DatasetVersion | None:
    """If it is still what the model learned from."""
    if own is None:
        return None
    with suppress(ModelsError, WorkersError):
        version = datasets.get(own.name, own.version)
        return version if version.info.fingerprint == own.fingerprint else None
    return None


def reference_of(version: DatasetVersion) -> str:
    """`photos/2`."""
    return f"{version.info.name}/{version.info.version}"
