"""The settings of a worker: environment variables `FOVEA_*`, or `.env`. Only the `main.py` files read them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """Settings of every Fovea process."""

    model_config = SettingsConfigDict(env_prefix="FOVEA_", env_file=".env", env_file_encoding="utf-8", extra="ignore")

    home: Path = Field(Path("data"), description="Directory of all state: datasets, runs, registry, weights.")
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Broker, job status and event streams.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="Device of networks and tensors; `auto` is a GPU if there is one, else the CPU.",
    )
    offline: bool = Field(False, description="Never download pretrained weights; use only those in HOME/weights.")
    font: Path | None = Field(
        None,
        description="Font file (TrueType or OpenType) for labels on images. Letters that it lacks are drawn with "
        "DejaVu Sans or a font of the system, or in Latin letters if no font has them. Empty: no such file.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest severity to log.")
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of log lines: `text` for people, `json` for machines."
    )
    lease_s: float = Field(
        30.0, gt=0.5, le=3600, description="Seconds after which a job is lost if its worker does not renew the lease."
    )
    sweep_interval_s: float = Field(
        10.0, gt=0.1, le=3600, description="Seconds between two searches for lost jobs. One worker at a time searches."
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description="Number of attempts at a job that may be lost before the job fails."
    )
    cancel_grace_s: float = Field(
        5.0, gt=0, le=300, description="Seconds that a trainer has to end before it is killed."
    )
    visibility_timeout_s: int = Field(
        86_400,
        ge=1,
        description="Seconds after which Celery delivers an unacknowledged message again. A repeated message does no "
        "harm, so the default is long.",
    )

    @field_validator("font", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("font")
    @classmethod
    def _can_be_drawn_with(cls, value: Path | None) -> Path | None:
        if value is not None:
            from models.drawing.fonts import Face  # Pillow: nobody else needs it to read the settings

            try:
                Face(value)
            except OSError as error:
                raise ValueError(f"it is not a font file that can be scaled ({error}).") from error
        return value

    @property
    def datasets_dir(self) -> Path:
        return self.home / "datasets"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def registry_dir(self) -> Path:
        return self.home / "registry"

    @property
    def weights_dir(self) -> Path:
        return self.home / "weights"
