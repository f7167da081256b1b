"""Which pictures a network is calibrated and verified on."""

from __future__ import annotations

import pytest
import torch

from app.inference.pictures_of import pictures_of
from models.backends.building import Pictures
from models.manifest import DatasetReference
from models.predictor import AnyPredictor, Predictor
from tests.app.compass import publish_compass
from tests.app.running_api import RunningApi


@pytest.fixture
def predictor(shades: RunningApi) -> AnyPredictor:
    version = publish_compass(shades.services.registry)
    return Predictor.from_version(shades.services.registry, version, torch.device("cpu"))


def asked(
    shades: RunningApi,
    predictor: AnyPredictor,
    *,
    own: DatasetReference | None = None,
    stand_in: str | None = None,
    with_calibration: bool = True,
) -> Pictures:
    return pictures_of(predictor, own, stand_in, shades.services.datasets, with_calibration=with_calibration)


def test_verified_on_validation_pictures_and_calibrated_on_others(shades: RunningApi, predictor: AnyPredictor) -> None:
    info = shades.services.datasets.resolve("shades").info
    found = asked(shades, predictor, own=info.reference)
    assert (found.source, found.dataset) == ("dataset", "shades/1")
    assert len(found.to_verify_on) == info.splits["val"].images
    assert len(found.to_calibrate_on) == info.splits["train"].images
    assert {view.shape for view in (*found.to_verify_on, *found.to_calibrate_on)} == {torch.Size([1, 28, 28])}
    assert found.calibration is not None
    assert found.calibration.model_dump() == {"dataset": "shades/1", "pictures": len(found.to_calibrate_on)}
    assert not asked(shades, predictor, own=info.reference, with_calibration=False).to_calibrate_on


def test_other_data_set_may_stand_in(shades: RunningApi, predictor: AnyPredictor) -> None:
    assert asked(shades, predictor, stand_in="shades/1").dataset == "shades/1"
    gone = DatasetReference(name="gone", version=1, fingerprint="0" * 64)
    changed = DatasetReference(name="shades", version=1, fingerprint="0" * 64)
    for own in (None, gone, changed):
        assert asked(shades, predictor, own=own, stand_in="shades/1").dataset == "shades/1"


def test_without_a_data_set_verified_is_on_made_up_pictures(shades: RunningApi, predictor: AnyPredictor) -> None:
    gone = DatasetReference(name="gone", version=1, fingerprint="0" * 64)
    changed = DatasetReference(name="shades", version=1, fingerprint="0" * 64)
    for own, stand_in in ((None, None), (gone, None), (changed, None), (None, "gone/1")):
        found = asked(shades, predictor, own=own, stand_in=stand_in)
        assert (found.source, found.dataset, found.calibration) == ("generated", None, None)
        assert len(found.to_verify_on) == 64
        assert not found.to_calibrate_on  # made-up ones say nothing of the range that photos have
