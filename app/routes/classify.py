"""`POST /v1/classify`."""

from __future__ import annotations

from typing import Annotated, Final

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
from app.schemas.classify import Classification, ClassifyResponse, ImageClasses
from models.drawing.contact_sheet import annotate_classes
from models.predictions import ClassScore
from models.predictors.classification import ClassSelection

router = APIRouter(prefix="/v1", tags=["Predict"])


@router.post(
    "/classify",
    response_model=ClassifyResponse,
    summary="Classify images",
    openapi_extra=BODY,
    responses=predictions_documented(
        "One prediction per image; with `Accept: image/png` or `image/jpeg` the image with its labels drawn on it"
    ),
)
@takes_body(PREDICTION)
async def classify(
    caller: Annotated[Caller, Depends(get_caller)],
    model: ModelQuery,
    top_k: Annotated[int, Query(ge=1, le=100_000, description="Most categories per image.")] = 5,
    score_threshold: Annotated[
        float, Query(ge=0, le=1, description="Lower scores are left out; 0 turns it off.")
    ] = 0.0,
    categories: CategoriesQuery = None,
) -> Response:
    """Returns the categories of each image, the most probable first.

    Send images as a form (field `image`, once or several times), as the body itself (`Content-Type: image/jpeg`, …),
    or as JSON, `{"images": [{"name": "a.jpg", "base64": "/9j/..."}]}`, with `url` in place of `base64` if the operator
    allows the host (schema `PredictRequest`). The EXIF orientation is applied. An image that cannot be read has an
    `error` in place of its prediction; if no image can be read, the first error is the answer.
    """
    selection = ClassSelection(top_k=top_k, score_threshold=score_threshold, categories=split_categories(categories))
    return await answer_prediction(caller, model, selection, _CLASSES)


def _fields(classes: list[ClassScore]) -> dict[str, object]:
    return {"classes": [Classification(label=row.label, index=row.index, score=row.score) for row in classes]}


_CLASSES: Final = Presentation(response=ClassifyResponse, entry=ImageClasses, fields=_fields, annotate=annotate_classes)
