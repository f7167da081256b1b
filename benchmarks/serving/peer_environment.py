"""Where the peers live: an environment of their own on top of the one that runs this, gone at the end.

The extra `bench` names them. They are installed beside Fovea's own packages and not among them, so that a measurement
changes nothing of what is measured; torch, torchvision and Fovea are found through a path file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[2]
# No peer may tell anyone that it runs.
QUIET: Final[dict[str, str]] = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "OTEL_SDK_DISABLED": "true",
}


def make_peer_environment(directory: Path) -> Path:
    """Makes it, unless it is there from another run; returns its Python.

    Raises subprocess.CalledProcessError if the package index cannot be reached.
    """
    python = directory / "bin" / "python"
    if python.exists():
        return python
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        msg = "uv is not here: `make setup` brings it."
        raise FileNotFoundError(msg)
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    env = {**os.environ, "VIRTUAL_ENV": str(directory)}
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(directory)], check=True)
    install = [uv, "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), *requirements]
    subprocess.run(install, env=env, check=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(directory), "platbase": str(directory)}))
    (own / "fovea.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    return python
