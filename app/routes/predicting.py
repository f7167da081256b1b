"""The part that all predictions share: images in any form come in, JSON or a drawn image goes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.dependencies import ServicesDep, UrgencyDep
from app.engine.answers import Annotate, Answer, Drawing
from app.errors import NotAcceptable
from app.http.client_connection import cancel_on_disconnect
from app.http.documented_answers import Documented, file_part, json_answer, problems
from app.http.problems import problem_of
from app.http.server_timing import server_timing
from app.http.urgency import Urgency
from app.routes.posted_images import PostedImage, read_images
from app.schemas.predict import ImageInfo, ImagePrediction, Timing, UsedModel
from app.services import Services
from models.precision import PrecisionChoice
from models.predictor import Selection

Prediction = TypeVar("Prediction")

_DRAWN: Final[dict[str, Literal["png", "jpeg"]]] = {"image/png": "png", "image/jpeg": "jpeg"}
_ANSWERS: Final = ("application/json", *_DRAWN)  # where a client accepts several equally, the first

ModelQuery = Annotated[
    str,
    Query(
        max_length=200,
        description="`ants-bees` (its production version, else the newest), `ants-bees@staging`, `ants-bees/3`, or "
        "an architecture with pretrained weights: `resnet50`, `resnet50.IMAGENET1K_V2`.",
        examples=["ants-bees"],
    ),
]
CategoriesQuery = Annotated[
    list[str] | None, Query(description="Only these categories. Repeat the parameter, or separate them by commas.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The request with everything that decides how it is answered."""

    request: Request
    services: Services
    urgency: Urgency
    precision: PrecisionChoice


async def get_caller(
    request: Request,
    services: ServicesDep,
    urgency: UrgencyDep,
    precision: Annotated[
        PrecisionChoice,
        Query(description="`float32` overrides a lower precision; the first such request loads the model in float32."),
    ] = "auto",
) -> Caller:
    """The dependency of every route that predicts."""
    return Caller(request=request, services=services, urgency=urgency, precision=precision)


@dataclass(frozen=True, kw_only=True, slots=True)
class Presentation(Generic[Prediction]):
    """How the predictions of a task become an answer."""

    response: type[BaseModel]  # with the fields `model`, `predictions`, `timing_ms`
    entry: type[ImagePrediction]  # of `predictions`
    fields: Callable[[Prediction], dict[str, object]]  # of an entry without an error
    annotate: Annotate[Prediction]
    png: Callable[[Prediction], bytes | None] | None = None  # what `Accept: image/png` gives, if not a drawing


def predictions_documented(description: str) -> Documented:
    """The documentation of the answers of a route that predicts."""
    return {
        200: {
            "description": description,
            "content": {kind: {"schema": file_part("The image.")} for kind in _DRAWN},
        },
        **problems(400, 404, 406, 413, 415, 422, 503, 504, 507),
    }


async def answer_prediction(
    caller: Caller, model: str, selection: Selection[Prediction], presentation: Presentation[Prediction]
) -> Response:
    """The prediction for every image of the request, in the form that the Accept header asks for.

    Raises NotAcceptable, what `read_images` and `Engine.predict` raise, and the first image's error if all have one.
    """
    request, services, urgency = caller.request, caller.services, caller.urgency
    drawn_as = _wanted_picture(request.headers.get("accept", ""))
    if drawn_as == "jpeg" and presentation.png is not None:
        raise NotAcceptable("JPEG would change the indices of the map.", hint="Accept: image/png.")
    posted = await read_images(request, services)
    if drawn_as is not None and len(posted) != 1:
        raise NotAcceptable(
            f"The request has {len(posted)} images, and predictions can be drawn on one image only.",
            hint="Send one image, or ask for application/json.",
        )
    good = [image for image in posted if image.error is None]
    if not good:
        assert posted[0].error is not None
        raise posted[0].error
    drawing = None
    if drawn_as is not None and presentation.png is None:
        drawing = Drawing(annotate=presentation.annotate, fonts=services.fonts, image_format=drawn_as)
    answer = await cancel_on_disconnect(
        request,
        services.engine.predict(
            model,
            [image.data for image in good],
            selection,
            timeout_s=urgency.timeout_s,
            priority=urgency.priority,
            precision=caller.precision,
            drawing=drawing,
        ),
    )
    if drawn_as is not None:
        return _picture(answer, presentation, drawn_as)
    body = _response(request, posted, answer, presentation)
    return json_answer(body, headers=server_timing(answer.times))


def split_categories(categories: list[str] | None) -> frozenset[str]:
    """The categories of a parameter that is repeated, separated by commas, or both."""
    return frozenset(part.strip() for entry in categories or () for part in entry.split(",") if part.strip())


def _wanted_picture(accept: str) -> Literal["png", "jpeg"] | None:
    """The image format that the Accept header prefers, or None for JSON. Raises NotAcceptable."""
    best, best_quality = "", 0.0
    for answer in _ANSWERS:
        if (quality := _quality(accept or "*/*", answer)) > best_quality:
            best, best_quality = answer, quality
    if not best:
        raise NotAcceptable(
            f"Predictions are not available as {accept[:100]!r}.", hint=f"Accept: {', '.join(_ANSWERS)}."
        )
    return _DRAWN.get(best)


def _quality(accept: str, kind: str) -> float:
    """The q of the most specific entry of the header that matches `kind`. Source: RFC 9110, sec. 12.5.1."""
    fits = {kind: 3, f"{kind.partition('/')[0]}/*": 2, "*/*": 1}
    closest, quality = 0, 0.0
    for entry in accept.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        if fits.get(name, 0) > closest:
            closest = fits[name]
            weights = [part[2:] for part in parameters if part.startswith("q=")]
            quality = float(weights[0]) if weights and weights[0].replace(".", "", 1).isdecimal() else 1.0
    return quality


def _picture(
    answer: Answer[Prediction], presentation: Presentation[Prediction], drawn_as: Literal["png", "jpeg"]
) -> Response:
    (found,) = answer.images
    if isinstance(found, Exception):
        raise found
    picture = answer.drawn if presentation.png is None else presentation.png(found.prediction)
    return Response(picture, media_type=f"image/{drawn_as}", headers=server_timing(answer.times))


def _response(
    request: Request,
    posted: list[PostedImage],
    answer: Answer[Prediction],
    presentation: Presentation[Prediction],
) -> BaseModel:
    """Raises the first image's error if there is no prediction at all."""
    found = iter(answer.images)
    outcomes = [image.error or next(found) for image in posted]
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if len(errors) == len(outcomes):
        raise errors[0]
    predictions: list[ImagePrediction] = []
    for image, outcome in zip(posted, outcomes, strict=True):
        if isinstance(outcome, Exception):
            info = ImageInfo(name=image.name)
            predictions.append(presentation.entry(image=info, error=problem_of(outcome, request.scope)))
            continue
        info = ImageInfo(name=image.name, width=outcome.width, height=outcome.height)
        fields: dict[str, Any] = presentation.fields(outcome.prediction)
        predictions.append(presentation.entry(image=info, **fields))
    used, times = answer.model, answer.times
    return presentation.response(
        model=UsedModel(
            name=used.name,
            version=used.version,
            architecture=used.architecture,
            backend=answer.backend,
            precision=answer.precision,
        ),
        predictions=predictions,
        timing_ms=Timing(
            decode=round(times.decode_ms, 2),
            queue=round(times.queue_ms, 2),
            inference=round(times.inference_ms, 2),
            postprocess=round(times.postprocess_ms, 2),
        ),
    )
