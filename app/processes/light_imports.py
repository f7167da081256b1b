"""torchvision without PyTorch's compiler, which it brings along: 1.4 s of a server's start, and 155 MiB.

`torchvision.ops` imports `torch._dynamo` to ask it one question, on deterministic GPUs, and `torchvision.tv_tensors`
for one decorator. A server compiles nothing, and the children that do import what they need. A detector that is loaded
brings it all the same: sizes of its maps are worked out on the meta device, in Python, by parts of it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

_UTILITIES: Final = "torch._dynamo.utils"


def import_torchvision() -> None:
    """To be called before anything imports torchvision; afterwards it does nothing."""
    if "torchvision" in sys.modules or "torch._dynamo" in sys.modules:
        return
    import torch

    stand_in = _Utilities(_UTILITIES)
    disable = torch.compiler.disable
    sys.modules[_UTILITIES] = stand_in
    torch.compiler.disable = _as_it_is
    try:
        importlib.import_module("torchvision.transforms.v2")
    finally:
        torch.compiler.disable = disable
        stand_in.step_back()


class _Utilities(ModuleType):
    """Stands where `torch._dynamo.utils` is looked for; who wants anything but that one question gets the real one."""

    def is_compile_supported(self, device_type: Any) -> Any:
        """See `torch._dynamo.utils`, which is imported when this is asked."""
        return self._real().is_compile_supported(device_type)

    def step_back(self) -> None:
        """The next import finds the real one."""
        if sys.modules.get(_UTILITIES) is self:
            del sys.modules[_UTILITIES]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's questions
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        self.step_back()
        return importlib.import_module(_UTILITIES)


def _as_it_is(fn: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """As `torch.compiler.disable`, where nothing is compiled."""
    return (lambda decorated: decorated) if fn is None else fn
