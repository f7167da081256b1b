"""`POST /predictions/{model}`, answering as TorchServe's own handlers of images do, and `/ping`.

Source: TorchServe 0.12's inference API, and its handlers image_classifier and object_detector.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import JsonValue
from starlette.responses import JSONResponse, Response

from app.dependencies import ServicesDep, UrgencyDep
from app.engine.errors import WrongTask
from app.errors import MalformedBody, TooManyFiles, TooManyImages
from app.http.client_connection import cancel_on_disconnect
from app.http.refusals import PREDICTION, takes_body
from app.http.server_timing import server_timing
from app.http.uploads import read_form
from app.protocols.answered_images import predictions_of
from app.protocols.served_models import ServedModel, find_served
from models.manifest import Task
from models.predictions import ClassScore, Detection
from models.predictor import Selection
from models.predictors.classification import ClassSelection
from models.predictors.detection import DetectionSelection

router = APIRouter(include_in_schema=False)

_FIELDS: Final = ("data", "body")  # TorchServe's handlers take either
_TOP_K = 5


@router.get("/ping")
async def ping(services: ServicesDep) -> Response:
    """Answers Healthy once everything in FOVEA_PRELOAD is loaded, and until then TorchServe's 500."""
    is_ready = not services.preloading
    return JSONResponse({"status": "Healthy" if is_ready else "Unhealthy"}, status_code=200 if is_ready else 500)


@router.api_route("/predictions/{model}", methods=["POST", "PUT"])  # curl -T is a PUT
@router.api_route("/predictions/{model}/{version}", methods=["POST", "PUT"])
@takes_body(PREDICTION)
async def predict(
    request: Request, services: ServicesDep, urgency: UrgencyDep, model: str, version: str | None = None
) -> Response:
    """The prediction for the image; a list of predictions if the form has several images."""
    images = await _read_images(request, services.settings.max_images_per_request)
    served = await asyncio.to_thread(find_served, services.registry, model, version)
    answer = await cancel_on_disconnect(
        request,
        services.engine.predict(
            served.reference,
            images,
            _selection(served),
            timeout_s=urgency.timeout_s,
            priority=urgency.priority,
        ),
    )
    answers = [_answer(served.task, found) for found in predictions_of(answer)]
    return JSONResponse(answers[0] if len(answers) == 1 else answers, headers=server_timing(answer.times))


async def _read_images(request: Request, limit: int) -> list[bytes]:
    """The files of the form's fields `data` and `body`, or the body of any other type."""
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        return [await request.body()]
    try:
        form = await read_form(
            content_type, request.stream(), file_fields=frozenset(_FIELDS), new_path=None, max_files=limit
        )
    except TooManyFiles as error:
        raise TooManyImages(
            f"The request has more than {limit} images.", hint="Send them in several requests."
        ) from error
    files = [file.data for field in _FIELDS for file in form.files.get(field, [])]
    if not files:
        sent = ", ".join(sorted({*form.fields, *form.files})) or "nothing"
        raise MalformedBody("The form has no file in the field 'data' or 'body'.", hint=f"The form has: {sent}.")
    return files


def _selection(served: ServedModel) -> Selection[Any]:
    match served.task:
        case "classification":
            return ClassSelection(top_k=_TOP_K)
        case "detection":
            return DetectionSelection(masks="none")
        case "segmentation":
            raise WrongTask(
                f"{served.name} segments; TorchServe's answer, a probability per pixel, is not supported.",
                hint=f"Use /v1/segment?model={served.name}, or /v2/models/{served.name}/infer.",
            )


def _answer(task: Task, prediction: Any) -> JsonValue:
    return _classes(prediction) if task == "classification" else _objects(prediction)


def _classes(classes: list[ClassScore]) -> JsonValue:
    """Probability by label, best first. If two categories share a label, the higher one."""
    scores: dict[str, JsonValue] = {}
    for one in classes:
        scores.setdefault(one.label, one.score)
    return scores


def _objects(found: list[Detection]) -> JsonValue:
    """The box by label, as x_min, y_min, x_max, y_max in pixels, and the score."""
    return [
        {one.label: [one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max], "score": one.score} for one in found
    ]
