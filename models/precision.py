"""What networks compute in: one vocabulary for training and serving. No torch here: clients read it too."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

Precision = Literal["float32", "bfloat16", "int8"]  # what a network runs in
FloatPrecision = Literal["float32", "bfloat16"]  # what a network is trained in
PrecisionChoice = Literal["auto", "float32"]  # what a prediction request may ask for
PrecisionPolicy = Literal["auto", "float32", "int8"]  # what the operator of a server may set

OLDER_SPELLINGS: Final[dict[str, FloatPrecision]] = {"fp32": "float32", "bf16": "bfloat16"}


def _spelled_as_today(value: object) -> object:
    return OLDER_SPELLINGS.get(value, value) if isinstance(value, str) else value


# What a job may ask for. Jobs, runs and clients from before this vocabulary say `fp32` and `bf16`.
JobPrecision = Annotated[Literal["auto", "float32", "bfloat16"], BeforeValidator(_spelled_as_today)]
