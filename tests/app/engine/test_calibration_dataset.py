"""Which dataset stands in for that which a model learned from."""

from __future__ import annotations

import pytest

from app.engine.builds.calibration_dataset import stand_in_for
from models.errors import NothingToCalibrateOn
from models.manifest import DatasetReference
from tests.app.archives import image_folder_zip
from tests.app.running_api import RunningApi
from workers.datasets.store import DatasetStore

LEAST = 24  # images
GONE = DatasetReference(name="gone", version=1, fingerprint="0" * 64)
CHANGED = DatasetReference(name="photos", version=1, fingerprint="0" * 64)


def post(api: RunningApi, name: str, pictures: int) -> DatasetStore:
    archive = {"file": ("s.zip", image_folder_zip(of_each=pictures // 2))}
    assert api.http.post("/v1/datasets", data={"name": name}, files=archive).status_code == 201
    return api.services.datasets


@pytest.mark.parametrize("named", [None, "shades", "no-such"])
def test_none_does_where_the_models_own_is_here(shades: RunningApi, named: str | None) -> None:
    datasets = post(shades, "photos", LEAST)
    assert stand_in_for(datasets.resolve("photos").info.reference, named, datasets) is None


@pytest.mark.parametrize("own", [None, GONE, CHANGED])
def test_name_means_its_newest_version(shades: RunningApi, own: DatasetReference | None) -> None:
    datasets = post(shades, "photos", LEAST)
    assert stand_in_for(own, "photos", datasets) == "photos/1"
    post(shades, "photos", LEAST + 2)
    assert stand_in_for(own, "photos", datasets) == "photos/2"
    assert stand_in_for(own, "photos/1", datasets) == "photos/1"


def test_too_few_pictures_do_for_nobody(shades: RunningApi) -> None:
    datasets = post(shades, "few", LEAST - 2)
    own = datasets.resolve("few").info.reference
    with pytest.raises(NothingToCalibrateOn, match="has fewer than 24 images"):
        stand_in_for(own, None, datasets)
    with pytest.raises(NothingToCalibrateOn, match="few/1 has 22 images; int8 needs 24"):
        stand_in_for(None, "few", datasets)
    post(shades, "photos", LEAST)
    assert stand_in_for(own, "photos", datasets) == "photos/1"


@pytest.mark.parametrize("own", [None, GONE, CHANGED])
def test_without_any_the_setting_is_named(shades: RunningApi, own: DatasetReference | None) -> None:
    with pytest.raises(NothingToCalibrateOn, match="own dataset is not here") as raised:
        stand_in_for(own, None, shades.services.datasets)
    assert raised.value.hint is not None
    assert "FOVEA_CALIBRATION_DATASET" in raised.value.hint


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("shadse", "There is no dataset 'shadse'. Available: shades."),
        ("shades/7", "shades has no version 7. It has 1."),
    ],
)
def test_named_data_set_that_is_not_there_is_an_error(shades: RunningApi, named: str, words: str) -> None:
    with pytest.raises(NothingToCalibrateOn) as raised:
        stand_in_for(None, named, shades.services.datasets)
    assert f"{raised.value} {raised.value.hint}" == f"FOVEA_CALIBRATION_DATASET: {words}"
