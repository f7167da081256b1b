"""For tests that need an NVIDIA GPU: skipped where there is none, and never run when they were written."""

from __future__ import annotations

import pytest
import torch

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU")
GPU = torch.device("cuda", 0)
