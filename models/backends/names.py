"""The names of backends. This does without torch, because clients read it too."""

from __future__ import annotations

from typing import Literal

BackendName = Literal["eager", "openvino", "cuda_graphs"]
BackendChoice = Literal["auto", BackendName]  # what the operator of a server may set
