"""What the API is told from outside: environment variables `FOVEA_*`, or `.env`. `.env.example` lists them all."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import ByteSize, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from models.backends.names import BackendChoice
from models.errors import InvalidName
from models.precision import PrecisionPolicy
from models.store.versions import split_reference
from workers.datasets.store import DATASET
from workers.settings import WorkerSettings

MEBIBYTE = 1024**2
GIBIBYTE = 1024**3

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")
_BULK_SHARE = 0.75

CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class ApiSettings(WorkerSettings):
    """Settings of the API process; a worker ignores those that are only here."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface: Fovea has no keys of its own yet."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Prefix of the path that a proxy in front takes off, `/fovea` for instance. Empty is none.",
    )

    processes: int = Field(
        1,
        ge=1,
        le=1024,
        description="Replicas: server processes that share the port, each with its own models and its share of the "
        "cores. One per core serves the most images on CPUs.",
    )

    engine: Literal["auto", "thread", "process"] = Field(
        "auto",
        description="Where models live: in a thread of every replica, or in one process for all of them; `auto` is the "
        "process if several replicas share a GPU.",
    )
    engine_socket: str = Field(
        "", description="Socket of an engine process that runs already; `fovea serve` sets it for its replicas."
    )

    max_body_bytes: int = Field(
        64 * MEBIBYTE, ge=1024, description="Largest request body, bytes, other than uploads of datasets and weights."
    )
    max_image_bytes: int = Field(32 * MEBIBYTE, ge=1024, description="Largest encoded image to predict on, bytes.")
    max_image_pixels: int = Field(
        100_000_000,
        ge=1,
        le=2**31 - 1,
        description="Most pixels of one image, here and in datasets; read from its header before it is decoded. "
        "A decode thread takes 3 bytes a pixel, for a moment up to three times that.",
    )
    max_images_per_request: int = Field(64, ge=1, le=10_000, description="Most images in one request.")

    max_upload_bytes: int = Field(20 * GIBIBYTE, ge=1024, description="Largest dataset archive, bytes.")
    max_weights_bytes: int = Field(8 * GIBIBYTE, ge=1024, description="Largest uploaded state_dict, bytes.")
    max_archive_files: int = Field(500_000, ge=1, description="Most entries of a dataset archive.")
    max_archive_bytes: int = Field(
        100 * GIBIBYTE,
        ge=1024,
        description="Most bytes of a dataset archive once extracted, counted while extracting.",
    )
    max_archive_ratio: float = Field(
        200.0, ge=1, description="Most bytes a packed byte may become; photos stay near 1, bombs pass 1000."
    )

    cors_origins: CommaSeparated = Field(
        (),
        description="Origins whose web pages may call the API from a browser, separated by commas: "
        "`https://app.example.com`, or `*` for any. Empty is none.",
    )
    image_url_hosts: CommaSeparated = Field(
        (),
        description="Hosts whose image URLs may be fetched, separated by commas: `images.example.com`, "
        "`*.example.com`, `example.com:8443`, or `*` for any public host. Empty is off.",
    )
    image_url_timeout_s: float = Field(
        5.0, gt=0, le=300, description="Seconds that fetching one image URL may take, redirects included."
    )

    model_memory: ByteSize = Field(
        ByteSize(0),
        description="What the weights of loaded models may take on the device, `2GiB` for instance; beyond that the "
        "least recently used ones go. 0 is half of the device's memory.",
    )
    pin: CommaSeparated = Field(
        (), description="Model references that never leave memory once they are loaded, separated by commas."
    )
    preload: CommaSeparated = Field(
        (), description="Model references to load at start, separated by commas: `ants-bees,resnet50`. Empty is none."
    )
    backend: BackendChoice = Field(
        "auto",
        description="How models run; `auto` builds what there is in the background, and takes the fastest that answers "
        "as eager PyTorch does.",
    )
    precision: PrecisionPolicy = Field(
        "auto",
        description="What models compute in; `auto` is bfloat16 where the device has it in hardware, `int8` adds "
        "8-bit integers on CPUs, with the backends `auto` and `openvino`, for models that give nearly the same answers "
        "in them.",
    )
    calibration_dataset: str = Field(
        "",
        description="Dataset, `name` or `name/version`, for models whose own dataset is missing, such as "
        "pretrained ones. Its images calibrate int8 and verify built networks. Empty means none.",
    )
    jpeg_decoder: Literal["auto", "cpu"] = Field(
        "auto",
        description="What decodes JPEGs; `auto` is an NVIDIA GPU for those that it decodes as the processor would, in "
        "a server that has its models there itself.",
    )
    decode_threads: int = Field(0, ge=0, le=256, description="Threads that decode images; 0 is one a core.")
    max_pending_images: int = Field(
        256,
        ge=1,
        description="Images accepted and not yet answered, tiles counted too; beyond that 503 with Retry-After. "
        "Bulk requests take up to three quarters of them.",
    )
    max_pending_bytes: int = Field(
        GIBIBYTE,
        ge=1024,
        description="Bytes of requests to predict that are read and not yet answered, as sent, and what is unpacked, "
        "decoded or fetched for them; beyond that 503 with Retry-After.",
    )
    body_timeout_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds that the body of a request to predict may take to arrive; then 408. It is in memory "
        "meanwhile, and keeps others out.",
    )
    request_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds that a prediction may take, loading its model included; then 504. A client may ask for "
        "less by `X-Request-Timeout`.",
    )

    @field_validator("cors_origins", "image_url_hosts", "preload", "pin", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                msg = (
                    f"{origin!r} is not an origin: write a scheme and a host, as https://app.example.com, and no path."
                )
                raise ValueError(msg)
        return origins

    @field_validator("calibration_dataset")
    @classmethod
    def _is_a_reference(cls, value: str) -> str:
        if value:
            try:
                split_reference(value, DATASET)
            except InvalidName as error:
                msg = f"{error} {error.hint}"
                raise ValueError(msg) from error
        return value

    @model_validator(mode="after")
    def _backend_knows_precision(self) -> ApiSettings:
        if self.precision == "int8" and self.backend not in ("auto", "openvino"):
            msg = (
                f"precision is int8 and backend is {self.backend}, which has no 8-bit integers: choose backend auto or "
                "openvino, or precision auto."
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _limits_fit_together(self) -> ApiSettings:
        bulk = most_bulk_images(self.max_pending_images)
        if self.max_images_per_request > bulk:
            msg = (
                f"max_images_per_request is {self.max_images_per_request} and max_pending_images is "
                f"{self.max_pending_images}, of which bulk requests may take {bulk}: one of the full size could "
                "never be taken. Raise the second."
            )
            raise ValueError(msg)
        if self.max_body_bytes > self.max_pending_bytes:
            msg = (
                f"max_body_bytes is {self.max_body_bytes} and max_pending_bytes is {self.max_pending_bytes}: a body of "
                "the full size could never be taken. Raise the second."
            )
            raise ValueError(msg)
        return self


def most_bulk_images(max_pending_images: int) -> int:
    """How many of the pending images may belong to bulk requests; the rest is kept for interactive ones."""
    return max(1, int(max_pending_images * _BULK_SHARE))
