"""`python -m tests.app.stand_in_builder HOW ...`: a builder that does it right, wrong, or not at all."""

from __future__ import annotations

import os
import resource
import signal
import sys

from app.engine.builds.build_backend import STARTED, main

how, *arguments = sys.argv[1:]
if how in ("crash", "hang", "refuse"):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("the compiler says something")
    print(STARTED, flush=True)
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        signal.pause()
    sys.exit(3)

from models.backends import choosing, machine  # noqa: E402 -- torch, seconds
from models.backends.compiler import BuildRequest, Compiler  # noqa: E402
from models.backends.openvino_int8 import OpenVinoInt8  # noqa: E402
from tests.models.small_networks import StandIn, StandInOfIntegers  # noqa: E402


class Greedy(StandIn):
    """Needs more memory than there is."""

    def build(self, request: BuildRequest) -> None:
        bytearray(2**36)


if how == "quantise":  # really, on a processor that may be slow at it
    machine._processor_flags = lambda: {"avx512_vnni"}

made: dict[str, Compiler] = {
    "right": StandIn(),
    "wrong": StandIn(gain=0.9),
    "greedy": Greedy(),
    "integers": StandInOfIntegers(),
    "quantise": OpenVinoInt8(),
}
choosing.COMPILERS = (made[how],)  # type: ignore[misc]
sys.exit(main(arguments))
