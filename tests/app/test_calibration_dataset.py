"""Which data set stands in for that which a model learned from."""

from __future__ import annotations

import pytest

from app.inference.calibration_dataset import stand_in_for
from models.errors import NothingToCalibrateOn
from models.manifest import DatasetReference
from tests.app.archives import image_folder_zip
from tests.app.running_api import RunningApi

GONE = DatasetReference(name="gone", version=1, fingerprint="0" * 64)
CHANGED = DatasetReference(name="shades", version=1, fingerprint="0" * 64)


@pytest.mark.parametrize("named", [None, "shades", "no-such"])
def test_none_does_where_the_models_own_is_here(shades: RunningApi, named: str | None) -> None:
    own = shades.services.datasets.resolve("shades").info.reference
    assert stand_in_for(own, named, shades.services.datasets) is None


@pytest.mark.parametrize("own", [None, GONE, CHANGED])
def test_name_means_its_newest_version(shades: RunningApi, own: DatasetReference | None) -> None:
    datasets = shades.services.datasets
    assert stand_in_for(own, "shades", datasets) == "shades/1"
    archive = {"file": ("s.zip", image_folder_zip(of_each=11))}
    assert shades.http.post("/v1/datasets", data={"name": "shades"}, files=archive).status_code == 201
    assert stand_in_for(own, "shades", datasets) == "shades/2"
    assert stand_in_for(own, "shades/1", datasets) == "shades/1"


@pytest.mark.parametrize("own", [None, GONE, CHANGED])
def test_without_any_the_setting_is_named(shades: RunningApi, own: DatasetReference | None) -> None:
    with pytest.raises(NothingToCalibrateOn, match="own data set is not here") as raised:
        stand_in_for(own, None, shades.services.datasets)
    assert raised.value.hint is not None
    assert "FOVEA_CALIBRATION_DATASET" in raised.value.hint


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("shadse", "There is no dataset 'shadse'. There is shades."),
        ("shades/7", "shades has no version 7. It has 1."),
    ],
)
def test_named_data_set_that_is_not_there_is_an_error(shades: RunningApi, named: str, words: str) -> None:
    with pytest.raises(NothingToCalibrateOn) as raised:
        stand_in_for(None, named, shades.services.datasets)
    assert f"{raised.value} {raised.value.hint}" == f"FOVEA_CALIBRATION_DATASET: {words}"
