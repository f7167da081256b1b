"""Archives of other tools over HTTP: one per family of formats."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.app.running_api import RunningApi
from tests.datasets.builders import zip_of
from tests.datasets.test_csv_boxes import IMAGES as BOXED_IMAGES
from tests.datasets.test_csv_boxes import TENSORFLOW
from tests.datasets.test_csv_list import IMAGES, table
from tests.datasets.test_label_masks import object_masks, panoptic
from tests.datasets.test_label_studio import studio_archive
from tests.datasets.test_other_tools import createml_archive, cvat_archive, labelme_archive
from workers.datasets.dataset import DatasetInfo


@pytest.mark.parametrize(
    ("files", "task", "format", "categories"),
    [
        ({**IMAGES, "labels.csv": table("filename,class").encode()}, "classification", "csv", ("blue", "red")),
        ({**BOXED_IMAGES, "labels.csv": TENSORFLOW.encode()}, "detection", "csv_boxes", ("cat", "dog")),
        (object_masks(), "detection", "object_masks", ("object",)),
        (panoptic("train2017"), "segmentation", "coco_panoptic", ("cat", "sky")),
        (labelme_archive(), "detection", "labelme", ("cat",)),
        (cvat_archive(), "detection", "cvat", ("cat",)),
        (createml_archive(), "detection", "createml", ("cat",)),
        (studio_archive(), "detection", "label_studio", ("cat",)),
    ],
    ids=["csv", "csv_boxes", "object_masks", "coco_panoptic", "labelme", "cvat", "createml", "label_studio"],
)
def test_archives_of_other_tools_become_datasets(
    api: RunningApi,
    files: Mapping[str, bytes],
    task: str,
    format: str,  # noqa: A002
    categories: tuple[str, ...],
) -> None:
    archive = zip_of(files).getvalue()
    answer = api.http.post("/v1/datasets", data={"name": "theirs"}, files={"file": ("theirs.zip", archive)})

    assert answer.status_code == 201, answer.text
    info = DatasetInfo.model_validate_json(answer.content)
    assert (info.task, info.format, info.categories) == (task, format, categories)


def test_table_of_several_categories_per_image_is_refused_with_the_way_out(api: RunningApi) -> None:
    rows = "image,labels\n000.png,scab rust\n001.png,scab\n002.png,rust\n003.png,scab\n"
    archive = zip_of({**IMAGES, "labels.csv": rows.encode()}).getvalue()
    answer = api.http.post("/v1/datasets", data={"name": "theirs"}, files={"file": ("theirs.zip", archive)})

    assert answer.status_code == 422
    assert "several categories per image" in answer.text
