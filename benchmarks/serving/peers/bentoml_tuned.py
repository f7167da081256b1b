"""BentoML with every knob turned: the fastest decoder and backend, one worker per core with one thread each.

The image comes as a file, which is what BentoML has for bytes that it shall not decode.
"""

# No `from __future__ import annotations`: BentoML reads the types as they are.

from pathlib import Path

import bentoml

from benchmarks.serving.networks import decode_and_prepare
from benchmarks.serving.peers.settings import PeerSettings


@bentoml.service(  # type: ignore[untyped-decorator, unused-ignore]
    workers=PeerSettings.from_environment().processes,
    threads=1,
    traffic={"timeout": 120},
    logging={"access": {"enabled": False}},
)
class Classify:
    """One image a call."""

    def __init__(self) -> None:
        settings = PeerSettings.from_environment()
        self.network = settings.single_threaded_network(sizes=[1])
        self.preset = settings.preset

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    def predict(self, file: Path) -> dict[str, float]:
        """The likeliest category."""
        scores = self.network(decode_and_prepare(self.preset, file.read_bytes()).unsqueeze(0))[0]
        score, label = scores.max(dim=0)
        return {"label": int(label), "score": float(score)}
