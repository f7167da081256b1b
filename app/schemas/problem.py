"""Problem details (RFC 9457): the one shape of every error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from workers.datasets.dataset import Finding


class FieldError(BaseModel):
    """One invalid value of a request."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Where it is: `hyperparameters.batch_size`, `images.0.url`, `top_k`.")
    where: str = Field(description="Part of the request: `body`, `query`, `path` or `header`.")
    message: str
    value: JsonValue = Field(
        None, description="The value that was sent, shortened if long; as text if JSON cannot express it (`NaN`)."
    )
    valid: str | None = Field(None, description="Which values are valid.")


class Problem(BaseModel):
    """An error, for people (`title`, `detail`, `hint`) and for programs (`status`, `code`)."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:fovea:problem:unknown_model",
                    "title": "No such model",
                    "status": 404,
                    "detail": "There is no model 'ant-bees'.",
                    "instance": "/v1/models/ant-bees",
                    "code": "unknown_model",
                    "request_id": "3f0c7b1e9a5d4c22",
                    "hint": "Registered models: ants-bees, digits.",
                }
            ]
        },
    )

    type: str = Field(description="`urn:fovea:problem:<code>`.")
    title: str = Field(description="What kind of error it is; the same for every error of this code.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong with this request.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable name of this kind of error, for programs.")
    request_id: str = Field(description="The answer's X-Request-ID, which also stands in the server's log.")
    hint: str | None = Field(None, description="The way out, where there is one.")
    errors: tuple[FieldError, ...] | None = Field(None, description="Every invalid value.")
    findings: tuple[Finding, ...] | None = Field(None, description="Everything that was found in an unusable dataset.")
    missing: tuple[str, ...] | None = Field(None, description="Keys the architecture has and the state_dict lacks.")
    unexpected: tuple[str, ...] | None = Field(None, description="Keys of the state_dict the architecture lacks.")
    mismatched: tuple[str, ...] | None = Field(None, description="Keys whose tensors have another shape.")
