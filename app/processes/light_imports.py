"""Imports torchvision without PyTorch's compiler, which it would import too: 1.4 s of a server's start, and 155 MiB.

torchvision needs the compiler for two small things. `torchvision.ops` imports `torch._dynamo.utils` for one function,
which it calls on GPUs in deterministic mode only. `torchvision.tv_tensors` applies `torch.compiler.disable` to one
function. So while torchvision is imported here, a stand-in takes the place of that module, and `torch.compiler.disable`
returns functions unchanged. Afterwards both are the real ones again, and the compiler is imported when it is needed.

Other versions of torch or torchvision may need something else. Then torchvision is imported the ordinary way: the
server starts more slowly, and nothing else changes. Reasons and figures: docs/decisions/0024.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

_TORCHVISION: Final = "torchvision.transforms.v2"  # imports all of torchvision that a server uses
_UTILITIES: Final = "torch._dynamo.utils"

log = logging.getLogger(__name__)


def import_torchvision() -> None:
    """Imports torchvision, without the compiler if possible. Does nothing if one of the two is imported already."""
    if "torchvision" in sys.modules or "torch._dynamo" in sys.modules:
        return
    try:
        with _stand_ins():
            importlib.import_module(_TORCHVISION)
    except Exception as error:  # an unknown version may fail in any way; if torchvision is broken, the next line raises
        log.info("torchvision is imported with PyTorch's compiler, because without it: %r", error)
        importlib.import_module(_TORCHVISION)


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Replaces what torchvision takes from the compiler, until the block ends."""
    import torch

    disable = torch.compiler.disable
    utilities = _Utilities(_UTILITIES)
    sys.modules[_UTILITIES] = utilities
    torch.compiler.disable = _unchanged
    try:
        yield
    finally:
        torch.compiler.disable = disable
        utilities.remove()


class _Utilities(ModuleType):
    """A lazy stand-in for `torch._dynamo.utils`: whatever is asked of it is answered by the real module."""

    def is_compile_supported(self, device_type: Any) -> Any:
        """The one function that torchvision imports. Importing it does not import the real module; calling it does."""
        return self._real().is_compile_supported(device_type)

    def remove(self) -> None:
        """Makes the next import find the real module."""
        if sys.modules.get(_UTILITIES) is self:
            del sys.modules[_UTILITIES]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for `__path__` and the like
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        self.remove()
        return importlib.import_module(_UTILITIES)


def _unchanged(fn: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """Stands in for `torch.compiler.disable`, with which it shares the signature. Nothing is compiled here anyway."""
    return (lambda decorated: decorated) if fn is None else fn
