"""Which images a network is calibrated and verified on."""

from __future__ import annotations

import shutil

import pytest
import torch

from app.engine.builds import calibration_images as pictures_of_module
from app.engine.builds.calibration_images import pictures_of
from models.backends.building import Pictures
from models.errors import NothingToCalibrateOn
from models.images.decode import decode_image
from models.manifest import DatasetReference
from models.predictor import AnyPredictor
from models.predictors import loading
from tests.app.archives import image_folder_zip
from tests.app.compass import publish_compass
from tests.app.running_api import RunningApi
from workers.datasets.dataset import SplitName


@pytest.fixture
def predictor(shades: RunningApi) -> AnyPredictor:
    version = publish_compass(shades.services.registry)
    return loading.load_version(shades.services.registry, version, torch.device("cpu"))


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


def split_sizes(api: RunningApi, name: str) -> dict[str, int]:
    return {split: found.images for split, found in api.services.datasets.resolve(name).info.splits.items()}


def test_pictures_of_a_small_data_set_are_shared_out_and_none_is_for_both(
    shades: RunningApi, predictor: AnyPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 are just enough: 19 and 5, of which 3 go from the first to the second."""
    archive = {"file": ("s.zip", image_folder_zip(of_each=12))}
    assert shades.http.post("/v1/datasets", data={"name": "photos"}, files=archive).status_code == 201
    assert split_sizes(shades, "photos")["val"] < 8
    read: list[bytes] = []

    def noting(data: bytes) -> torch.Tensor:
        read.append(data)
        return decode_image(data)

    monkeypatch.setattr(pictures_of_module, "decode_image", noting)
    found = asked(shades, predictor, stand_in="photos/1")
    assert (len(found.to_calibrate_on), len(found.to_verify_on)) == (16, 8)
    assert len(set(read)) == len(read) == 24
    found.check_calibration()


@pytest.mark.parametrize("damaged", ["pictures", "lines"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_split_that_cannot_be_read_is_replaced_by_the_other(
    shades: RunningApi, predictor: AnyPredictor, split: SplitName, damaged: str
) -> None:
    archive = {"file": ("s.zip", image_folder_zip(of_each=80))}
    assert shades.http.post("/v1/datasets", data={"name": "photos"}, files=archive).status_code == 201
    version = shades.services.datasets.resolve("photos")
    assert version.info.splits["val"].images >= 24
    if damaged == "lines":
        with (version.path / f"{split}.jsonl").open("a") as lines:
            lines.write('{"path": \n')
    else:
        for image in shades.services.datasets.images(version, split):
            (version.images_dir / image.path).write_bytes(b"no picture")
    for with_calibration in (True, False):
        found = asked(shades, predictor, stand_in="photos/1", with_calibration=with_calibration)
        assert (found.source, found.dataset) == ("dataset", "photos/1")
        if with_calibration:
            found.check_calibration()


def test_data_set_of_which_nothing_can_be_read_is_named(shades: RunningApi, predictor: AnyPredictor) -> None:
    shutil.rmtree(shades.services.datasets.resolve("shades").images_dir)
    with pytest.raises(NothingToCalibrateOn, match="shades/1 has 0 and 0 that can be read"):
        asked(shades, predictor, stand_in="shades/1").check_calibration()
    assert asked(shades, predictor, stand_in="shades/1", with_calibration=False).source == "generated"


def test_for_a_picture_that_cannot_be_read_another_is_taken(shades: RunningApi, predictor: AnyPredictor) -> None:
    archive = {"file": ("s.zip", image_folder_zip(of_each=110))}
    assert shades.http.post("/v1/datasets", data={"name": "photos"}, files=archive).status_code == 201
    datasets = shades.services.datasets
    version = datasets.resolve("photos")
    for image in datasets.images(version, "train")[::4]:
        (version.images_dir / image.path).unlink()
    found = asked(shades, predictor, stand_in="photos/1")
    assert len(found.to_calibrate_on) == 128
