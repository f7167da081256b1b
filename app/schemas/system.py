"""Versions, devices, memory and load of the server."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class Device(BaseModel):
    """A device that tensors can live on."""

    name: str = Field(description="`cpu`, `cuda:0`, …")
    description: str = Field(description="The maker's name for it.")
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None


class Memory(BaseModel):
    """Memory of the machine and of this process."""

    total_bytes: int
    available_bytes: int | None = Field(description="Null if the operating system does not report it.")
    process_bytes: int | None = Field(description="Resident set of this API process.")


class LoadedModel(BaseModel):
    """A model in memory."""

    reference: str = Field(description="`ants-bees/3` or `resnet50.IMAGENET1K_V2`.")
    architecture: str
    device: str
    backend: str = Field(description="How it runs: `eager`, or compiled.")
    precision: str
    best_batch: int = Field(description="Images per batch, as measured when the model was loaded.")
    is_pinned: bool
    size_bytes: int = Field(description="Size of its weights in memory.")
    loaded_at: datetime
    last_used_at: datetime


class Engine(BaseModel):
    """The state of the serving engine."""

    device: str
    decode_threads: int
    pending_images: int = Field(description="Images accepted and not yet answered.")
    max_pending_images: int
    loaded_models: list[LoadedModel] = Field(description="The least recently used first.")
    model_memory_bytes: int = Field(description="Limit for the weights of all loaded models.")


class Queue(BaseModel):
    """Background work."""

    depth: int | None = Field(description="Jobs that wait for a worker; null while Redis is unreachable.")


class Disk(BaseModel):
    """The disk that holds FOVEA_HOME."""

    total_bytes: int
    free_bytes: int


class Limits(BaseModel):
    """Limits of one request."""

    max_body_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_images_per_request: int
    max_upload_bytes: int
    max_weights_bytes: int
    request_timeout_s: float


class System(BaseModel):
    """Versions, devices, memory and load of the server."""

    version: str = Field(description="Version of Fovea.")
    libraries: dict[str, str] = Field(description="Version of Python and of each library that matters.")
    started_at: datetime
    devices: list[Device]
    memory: Memory
    engine: Engine
    queue: Queue
    disk: Disk
    limits: Limits
