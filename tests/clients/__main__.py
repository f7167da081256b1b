"""`make clients`: generates clients from the OpenAPI document, and uses each against a real server.

Four generators: openapi-python-client and openapi-generator for Python, @hey-api/openapi-ts and
openapi-typescript-codegen for TypeScript. Each client classifies an image, makes a job, reads its `id` and cancels it.
The generators live in `.clients/`, with a Python environment and npm packages of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.settings import ApiSettings
from tests import children
from tests.app.archives import image_folder_zip
from tests.app.compass import publish_compass
from tests.app.pictures import png
from tests.app.running_api import RunningApi, running_api
from tests.redis_server import redis_server

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).resolve().parent
ENVIRONMENT: Final = ROOT / ".clients"
BIN: Final = ENVIRONMENT / "venv/bin"
NODE: Final = ENVIRONMENT / "node"


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator, and the program that uses its client."""

    name: str
    generate: tuple[str, ...]  # run in the directory with `openapi.json`; writes a client into `package`
    package: str
    use: tuple[str, ...]
    needs: str  # a program that it cannot do without


GENERATORS: Final = (
    Generator(
        name="openapi-python-client",
        generate=(
            f"{BIN}/openapi-python-client",
            *("generate", "--path", "openapi.json", "--output-path", "fovea_client", "--meta", "none"),
        ),
        package="fovea_client",
        use=(f"{BIN}/python", "use_openapi_python_client.py"),
        needs="python3",
    ),
    Generator(
        name="openapi-generator",
        generate=(f"{BIN}/openapi-generator-cli", *("generate", "-g", "python", "-i", "openapi.json", "-o", ".")),
        package="openapi_client",
        use=(f"{BIN}/python", "use_openapi_generator.py"),
        needs="java",
    ),
    Generator(
        name="@hey-api/openapi-ts",
        generate=("npx", "openapi-ts", "-i", "openapi.json", "-o", "hey_api"),
        package="hey_api",
        use=("node", "use_hey_api.js"),
        needs="npm",
    ),
    Generator(
        name="openapi-typescript-codegen",
        generate=("npx", "openapi", "--input", "openapi.json", "--output", "typescript_codegen"),
        package="typescript_codegen",
        use=("node", "use_typescript_codegen.js"),
        needs="npm",
    ),
)


def main() -> int:
    """Prints a line per client. Returns the number of clients that failed."""
    failures = 0
    with tempfile.TemporaryDirectory(prefix="fovea-clients-") as place, running_server(Path(place)) as api:
        prepare()
        for generator in GENERATORS:
            if shutil.which(generator.needs) is None:
                print(f"skipped  {generator.name}: {generator.needs} is not installed")
                continue
            try:
                used = use(generator, api, Path(place) / generator.package)
            except subprocess.CalledProcessError as error:
                failures += 1
                print(f"FAILED   {generator.name}: {error}\n{error.stdout}{error.stderr}")
            else:
                print(f"works    {generator.name}: {', '.join(used.split(chr(10))[:-1])}")
    return failures


@contextmanager
def running_server(place: Path) -> Iterator[RunningApi]:
    """With a model whose answer is known, `compass`, and a dataset, `shades`."""
    with redis_server(place / "redis") as server:
        settings = ApiSettings(_env_file=None, home=place / "home", redis_url=server.url, device="cpu", offline=True)
        with running_api(settings) as api:
            publish_compass(api.services.registry)
            api.http.post("/v1/datasets", data={"name": "shades"}, files={"file": image_folder_zip()})
            (place / "a.png").write_bytes(png())
            yield api


def prepare() -> None:
    """Installs the generators, unless they are there."""
    if not (BIN / "python").exists():
        run([sys.executable, "-m", "venv", f"{ENVIRONMENT}/venv"])
    run([f"{BIN}/python", "-m", "pip", "install", "--quiet", "-r", f"{HERE}/requirements.txt"])
    NODE.mkdir(parents=True, exist_ok=True)
    if shutil.which("npm"):
        shutil.copy(HERE / "package.json", NODE)
        run(["npm", "install", "--silent", "--no-audit", "--no-fund"], NODE)


def use(generator: Generator, api: RunningApi, image_place: Path) -> str:
    """Generates a client and uses it. Returns what it printed. Raises CalledProcessError."""
    directory = NODE / generator.package if generator.needs == "npm" else ENVIRONMENT / generator.package
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "openapi.json").write_text(json.dumps(api.app.openapi()), encoding="utf-8")
    run(generator.generate, directory)
    program = Path(generator.use[-1])
    source = program.with_suffix(".ts") if program.suffix == ".js" else program
    shutil.copy(HERE / source, directory)
    if program.suffix == ".js":
        shutil.copy(HERE / "tsconfig.json", directory)
        shutil.copy(HERE / "package.json", directory)
        run(["npx", "tsc"], directory)
    arguments = [f"http://127.0.0.1:{api.port}", "compass", "shades", f"{image_place.parent}/a.png"]
    said = run([*generator.use, *arguments], directory)
    if "label left\n" not in said:
        raise subprocess.CalledProcessError(0, generator.use, f"It says, instead of 'label left':\n{said}")
    return said


def run(command: Sequence[str], directory: Path = ROOT) -> str:
    """What the command printed. Raises CalledProcessError."""
    path = os.pathsep.join((str(BIN), os.environ["PATH"]))
    return children.run(command, cwd=directory, env={**os.environ, "PATH": path, "NO_COLOR": "1"}).stdout


if __name__ == "__main__":
    sys.exit(main())
