"""Names for numeric precision, the same in training and serving. Has no torch, because clients read it too."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

Precision = Literal["float32", "bfloat16", "int8"]  # that a network runs in
FloatPrecision = Literal["float32", "bfloat16"]  # that a network is trained in
PrecisionChoice = Literal["auto", "float32"]  # that a prediction request may ask for
PrecisionPolicy = Literal["auto", "float32", "int8"]  # that the operator of a server may set

OLDER_SPELLINGS: Final[dict[str, FloatPrecision]] = {"fp32": "float32", "bf16": "bfloat16"}


def _spelled_as_today(value: object) -> object:
    return OLDER_SPELLINGS.get(value, value) if isinstance(value, str) else value


# The precision that a job may ask for. Older jobs, runs and clients say `fp32` and `bf16`.
JobPrecision = Annotated[Literal["auto", "float32", "bfloat16"], BeforeValidator(_spelled_as_today)]
