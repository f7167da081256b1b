"""What backends and precisions are called. No torch here: clients read them too."""

from __future__ import annotations

from typing import Literal

BackendName = Literal["eager", "openvino", "cuda_graphs"]
Precision = Literal["float32", "bfloat16", "int8"]
