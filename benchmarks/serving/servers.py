"""The servers that are measured: how each is started, and what it is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from app.processes.address import free_port
from benchmarks.serving.home import CATEGORIES, DATASET
from benchmarks.serving.load import HOST, form_request, raw_request
from benchmarks.serving.machine import cores
from benchmarks.serving.peer_environment import QUIET, ROOT
from benchmarks.serving.peers.variables import environment
from benchmarks.serving.processes import Child, Unfit, child

# How Fovea is started: the one place to change when it learns more.
FOVEA_COMMAND: Final = ("-m", "app.cli", "serve", "--processes", str(cores()))
FOVEA_ENV: Final[dict[str, str]] = {
    "FOVEA_OFFLINE": "true",
    "FOVEA_LOG_LEVEL": "WARNING",
    "FOVEA_MAX_PENDING_IMAGES": "1024",  # 64 clients with 8 images each are more than the default takes
    "FOVEA_CALIBRATION_DATASET": DATASET,  # should FOVEA_PRECISION be int8
    "FOVEA_REDIS_URL": "redis://127.0.0.1:9/0",  # nobody: predictions need none
}
FOVEA_OVERLOAD_ENV: Final[dict[str, str]] = {"FOVEA_MAX_PENDING_IMAGES": "256"}  # the default
MODELS_IN_MEMORY: Final = 5
FOVEA_MANY_MODELS_ENV: Final[dict[str, str]] = {"FOVEA_MODEL_MEMORY": "246MiB"}  # five resnet18 of 45 MiB, not six
# How long a server is let run until it has stored its backends; 0: it stores none.
BACKENDS_STORED_WITHIN_S: Final = 400.0

FOVEA: Final = "Fovea"
NAIVE: Final = "naive FastAPI"


@dataclass(frozen=True, kw_only=True)
class Server:
    """One of the servers, as it is started here."""

    name: str
    settings: str  # stock, tuned
    command: Sequence[str]  # {port} stands for the port
    env: Mapping[str, str]
    path: str
    field_name: str  # of the image in a form

    @property
    def title(self) -> str:
        return f"{self.name}, {self.settings}" if self.settings else self.name

    def raw(self, pictures: Sequence[bytes]) -> list[bytes]:
        """A request for each image, the body being the image."""
        return [raw_request(self.path, picture) for picture in pictures]

    def forms(self, pictures: Sequence[bytes], *, images_per_request: int = 1) -> list[bytes]:
        """Forms that hold all images in turn."""
        twice = [*pictures, *pictures]
        return [
            form_request(self.path, twice[at : at + images_per_request], field_name=self.field_name)
            for at in range(0, len(pictures), images_per_request)
        ]


@dataclass(frozen=True, kw_only=True)
class Started:
    """A server that has answered."""

    child: Child
    first_answer_s: float  # from the start of its process
    answer: dict[str, Any]


@contextmanager
def started(server: Server, picture: bytes, directory: Path) -> Iterator[Started]:
    """`server` on a free port, from its first answer on. Its log goes into `directory`. Raises Unfit."""
    port = free_port()
    command = [part.format(port=port) for part in server.command]
    log = directory / f"{server.title.replace(' ', '-').replace(',', '')}.log"
    with child(command, {**server.env, "PYTHONPATH": str(ROOT)}, port=port, log=log) as running:
        request = form_request(server.path, [picture], field_name=server.field_name)
        head, _, body = request.partition(b"\r\n\r\n")
        content_type = head.split(b"Content-Type: ")[1].partition(b"\r\n")[0].decode()
        try:
            first_answer_s, answer = running.first_answer(server.path, content_type, body)
        except Unfit as error:
            raise Unfit(f"{server.title} {error}") from error
        yield Started(child=running, first_answer_s=first_answer_s, answer=answer)


@dataclass(frozen=True, kw_only=True)
class FoveaStart:
    """How Fovea is started in this run: what stands above, and what the command line adds."""

    home: Path
    flags: Sequence[str] = ()
    env: Mapping[str, str] | None = None

    def serving(self, model: str, *, verb: str = "classify", env: Mapping[str, str] | None = None) -> Server:
        """Fovea that is asked for `model`."""
        return Server(
            name=FOVEA,
            settings="",
            command=[sys.executable, *FOVEA_COMMAND, "--host", HOST, "--port", "{port}", *self.flags],
            env={**FOVEA_ENV, "FOVEA_HOME": str(self.home), **(self.env or {}), **(env or {})},
            path=path_of(model, verb=verb),
            field_name="image",
        )


def path_of(model: str, *, verb: str = "classify") -> str:
    """Where Fovea is asked for a model."""
    return f"/v1/{verb}?model={quote(model, safe='')}"


def peers(python: Path, *, architecture: str, weights: Path, pictures: Path, backend: str) -> list[Server]:
    """The servers that Fovea is compared to. python: of the peers' environment. backend: the fastest, for the tuned."""
    env = environment(architecture, weights, pictures, categories=CATEGORIES, backend=backend, processes=cores())
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    uvicorn = (str(python), "-m", "uvicorn", "--factory", "--host", HOST, "--port", "{port}", "--no-access-log")
    bento = (str(python), "-m", "bentoml", "serve", "--host", HOST, "--port", "{port}")
    here = "benchmarks.serving.peers"

    def peer(name: str, settings: str, *command: str, path: str = "/predict") -> Server:
        tuned = single if settings == "tuned" else {}
        return Server(
            name=name,
            settings=settings,
            command=command,
            env={**QUIET, **env, **tuned},
            path=path,
            field_name="file",
        )

    return [
        peer(NAIVE, "stock", *uvicorn, f"{here}.naive:create_app"),
        peer(NAIVE, "tuned", *uvicorn, "--workers", str(cores()), f"{here}.naive_tuned:create_app"),
        peer("LitServe", "stock", str(python), "-m", f"{here}.litserve_stock", "{port}"),
        peer("LitServe", "tuned", str(python), "-m", f"{here}.litserve_tuned", "{port}"),
        peer("BentoML", "stock", *bento, f"{here}.bentoml_stock:Classify"),
        peer("BentoML", "tuned", *bento, f"{here}.bentoml_tuned:Classify"),
    ]


def label_of(answer: Mapping[str, Any]) -> int:
    """The index of the likeliest category of the first image, in Fovea's words or in the peers'.

    Raises Unfit if the answer has none.
    """
    try:
        if "predictions" in answer:
            return int(answer["predictions"][0]["classes"][0]["index"])
        return int(answer["label"])
    except (KeyError, IndexError, TypeError) as error:
        raise Unfit(f"answered {str(answer)[:300]}") from error
