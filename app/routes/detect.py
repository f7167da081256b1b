"""`POST /v1/detect`."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from app.errors import InvalidValue
from app.http.refusals import PREDICTION, takes_body
from app.routes.posted_images import BODY
from app.routes.predicting import (
    Caller,
    CategoriesQuery,
    ModelQuery,
    Presentation,
    answer_prediction,
    get_caller,
    predictions_documented,
    split_categories,
)
from app.schemas.detect import Box, DetectResponse, ImageDetections, Keypoint
from app.schemas.detect import Detection as DetectionAnswer
from app.schemas.predict import Mask
from models import predictions
from models.architectures.detection_outputs import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD
from models.drawing.overlay import annotate_detections
from models.images.tiling import MAX_OVERLAP, MAX_TILE_PX, MIN_TILE_PX, OVERLAP
from models.predictors.detection import DetectionSelection, MaskForm

router = APIRouter(prefix="/v1", tags=["Predict"])

_MOST_DETECTIONS = 10_000

ScoreQuery = Annotated[
    float,
    Query(ge=0, le=1, description="Lower scores are left out. Most models themselves leave out scores below 0.05."),
]
OverlapOfBoxesQuery = Annotated[
    float,
    Query(
        ge=0,
        le=1,
        description="Non-maximum suppression: of two boxes of one category whose intersection over union is higher, "
        "the one with the lower score is left out. Models themselves suppress above 0.7.",
    ),
]
MostQuery = Annotated[
    int, Query(ge=1, le=_MOST_DETECTIONS, description="Most objects per image; models themselves return 100 to 300.")
]
MasksQuery = Annotated[
    MaskForm | None, Query(description="Form of the masks; if left out, `rle` for models that predict masks.")
]
TileQuery = Annotated[
    int | None,
    Query(
        ge=MIN_TILE_PX,
        le=MAX_TILE_PX,
        description="Side in pixels of the tiles that larger images are cut into; the network sees each tile and the "
        "whole image. For small objects in large images. Each tile takes as long as an image.",
    ),
]
OverlapOfTilesQuery = Annotated[
    float | None,
    Query(
        ge=0,
        le=MAX_OVERLAP,
        description=f"Least share of a tile that it has in common with its neighbour; {OVERLAP} if left out.",
    ),
]


@router.post(
    "/detect",
    response_model=DetectResponse,
    summary="Detect objects",
    openapi_extra=BODY,
    responses=predictions_documented(
        "The objects in each image; with `Accept: image/png` or `image/jpeg` the image with the objects drawn on it"
    ),
)
@takes_body(PREDICTION)
async def detect(
    caller: Annotated[Caller, Depends(get_caller)],
    model: ModelQuery,
    score_threshold: ScoreQuery = SCORE_THRESHOLD,
    iou_threshold: OverlapOfBoxesQuery = IOU_THRESHOLD,
    max_detections: MostQuery = MAX_DETECTIONS,
    categories: CategoriesQuery = None,
    masks: MasksQuery = None,
    tile: TileQuery = None,
    overlap: OverlapOfTilesQuery = None,
) -> Response:
    """Finds the objects in each image: boxes in its pixels, and masks or keypoints if the model predicts them.

    Images are sent and refused as described at `/v1/classify`.
    """
    if overlap is not None and tile is None:
        raise InvalidValue(
            "`overlap` needs `tile`",
            field="overlap",
            where="query",
            value=overlap,
            hint="Set `tile` too, for instance to 640.",
        )
    selection = DetectionSelection(
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        categories=split_categories(categories),
        masks=masks,
        tile_px=tile,
        tile_overlap=OVERLAP if overlap is None else overlap,
    )
    return await answer_prediction(caller, model, selection, _POLYGONS if masks == "polygon" else _RUN_LENGTHS)


def _answer(found: predictions.Detection, *, polygons: bool) -> DetectionAnswer:
    box, mask = found.box, found.mask
    return DetectionAnswer(
        label=found.label,
        index=found.index,
        score=round(found.score, 6),
        box=Box(
            x_min=round(box.x_min, 2), y_min=round(box.y_min, 2), x_max=round(box.x_max, 2), y_max=round(box.y_max, 2)
        ),
        mask=Mask(size=(mask.height, mask.width), counts=mask.counts) if mask and not polygons else None,
        polygons=[list(polygon) for polygon in found.polygons] if polygons else None,
        keypoints=[
            Keypoint(label=point.label, x=round(point.x, 2), y=round(point.y, 2), score=round(point.score, 4))
            for point in found.keypoints
        ]
        or None,
    )


def _presentation(*, polygons: bool) -> Presentation[list[predictions.Detection]]:
    return Presentation(
        response=DetectResponse,
        entry=ImageDetections,
        fields=lambda found: {"detections": [_answer(detection, polygons=polygons) for detection in found]},
        annotate=annotate_detections,
    )


_RUN_LENGTHS: Final = _presentation(polygons=False)
_POLYGONS: Final = _presentation(polygons=True)
