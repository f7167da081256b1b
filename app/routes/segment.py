"""`POST /v1/segment`."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

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
from app.schemas.predict import Mask
from app.schemas.segment import ImageSegments, Segment, SegmentResponse
from models import predictions
from models.drawing.overlay import annotate_segmentation
from models.predictors.segmentation import SegmentationSelection

router = APIRouter(prefix="/v1", tags=["Predict"])


@router.post(
    "/segment",
    response_model=SegmentResponse,
    summary="Segment images",
    openapi_extra=BODY,
    responses=predictions_documented(
        "The categories in each image; with `Accept: image/png` or `image/jpeg` the image in their colours, and with "
        "`masks=png` as well the indexed PNG"
    ),
)
@takes_body(PREDICTION)
async def segment(
    caller: Annotated[Caller, Depends(get_caller)],
    model: ModelQuery,
    score_threshold: Annotated[
        float, Query(ge=0, le=1, description="Pixels with a lower score belong to no category; 0 turns it off.")
    ] = 0.0,
    categories: CategoriesQuery = None,
    masks: Annotated[
        Literal["rle", "png", "none"],
        Query(
            description="`rle`: run lengths per category. `png`: one indexed PNG per image, in base64; with `Accept: "
            "image/png` the answer is that PNG."
        ),
    ] = "rle",
) -> Response:
    """Assigns a category to every pixel, and returns the share and the mask of each category.

    Images are sent and refused as described at `/v1/classify`.
    """
    selection = SegmentationSelection(
        score_threshold=score_threshold, categories=split_categories(categories), masks=masks
    )
    return await answer_prediction(caller, model, selection, _MAPS if masks == "png" else _SEGMENTS)


def _fields(found: predictions.Segmentation) -> dict[str, object]:
    segments = [
        Segment(
            label=segment.label,
            index=segment.index,
            share=round(segment.share, 6),
            mask=segment.mask and Mask(size=(segment.mask.height, segment.mask.width), counts=segment.mask.counts),
        )
        for segment in found.segments
    ]
    return {"segments": segments, "map_png": found.map_png and base64.b64encode(found.map_png).decode("ascii")}


_SEGMENTS: Final = Presentation(
    response=SegmentResponse,
    entry=ImageSegments,
    fields=_fields,
    annotate=annotate_segmentation,
)
_MAPS: Final = replace(_SEGMENTS, png=lambda found: found.map_png)
