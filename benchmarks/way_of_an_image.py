"""Which files and functions one image passes: `python -m benchmarks.way_of_an_image ARCHIVE`. Takes half a minute.

The API runs in this process, without a child process. A profile function of Python notes each function of Fovea that
runs, in any thread, while one image is classified: the second of two, since the first one loads the model. Work in the
background, such as the look at another version, is noted too when it falls into that time.
"""

from __future__ import annotations

import argparse
import http.client
import tempfile
import threading
import time
from pathlib import Path
from types import CodeType, FrameType

import uvicorn

from app.http.protocol import BoundedHttpProtocol
from app.main import create_app
from app.processes.address import free_port
from app.settings import ApiSettings
from benchmarks.serving.home import make_home
from benchmarks.serving.load import HOST
from benchmarks.serving.peer_environment import ROOT
from benchmarks.serving.pictures import read_pictures

PACKAGES = tuple(str(ROOT / package) for package in ("app", "models", "workers"))


class Recorder:
    """Notes the code that runs between `start` and `stop`, in threads that start after it was made."""

    def __init__(self) -> None:
        self.codes: set[CodeType] = set()
        self._is_on = False
        threading.setprofile(self._note)

    def start(self) -> None:
        self.codes.clear()
        self._is_on = True

    def stop(self) -> None:
        self._is_on = False

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if self._is_on and event == "call" and frame.f_code.co_filename.startswith(PACKAGES):
            self.codes.add(frame.f_code)


def main() -> None:
    """Prints the functions by file, and the counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.way_of_an_image")
    parser.add_argument("archive", type=Path, help="a zip of photos")
    archive = parser.parse_args().archive
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        make_home(home, archive, {"photos-model": "mobilenet_v3_small"})
        codes = _codes_of_one_image(home, read_pictures(archive, count=1)[0])
    functions: dict[str, set[str]] = {}
    for code in codes:
        if not code.co_name.startswith("<"):  # a comprehension or a lambda
            functions.setdefault(str(Path(code.co_filename).relative_to(ROOT)), set()).add(code.co_qualname)
    for file, names in sorted(functions.items()):
        print(f"{file}: {', '.join(sorted(names))}")
    print(f"{len(functions)} files, {sum(map(len, functions.values()))} functions")


def _codes_of_one_image(home: Path, image: bytes) -> set[CodeType]:
    recorder = Recorder()
    settings = ApiSettings(home=home, backend="eager", device="cpu", redis_url=f"redis://{HOST}:{free_port()}/0")
    port = free_port()
    config = uvicorn.Config(create_app(settings), HOST, port, http=BoundedHttpProtocol, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.1)
        _classify(port, image)
        recorder.start()
        _classify(port, image)
        recorder.stop()
    finally:
        server.should_exit = True
        thread.join()
    return recorder.codes


def _classify(port: int, image: bytes) -> None:
    """Raises AssertionError if it is not answered with 200."""
    connection = http.client.HTTPConnection(HOST, port)
    head = b'--part\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=part"}
    connection.request("POST", "/v1/classify?model=photos-model", head + image + b"\r\n--part--\r\n", headers)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    connection.close()


if __name__ == "__main__":
    main()
