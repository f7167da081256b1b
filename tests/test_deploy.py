"""The proxies of docs/deploy.md, as it configures them: TLS, a password, uploads, events, HEAD."""

from __future__ import annotations

import getpass
import re
import shutil
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.processes.address import free_port
from tests import children
from tests.app.archives import image_folder_zip
from tests.app.conftest import StartApi, start_api
from tests.app.running_api import RunningApi
from tests.waiting import PATIENCE_S, wait_until

__all__ = ["start_api"]  # a fixture

PAGE = Path(__file__).resolve().parents[1] / "docs" / "deploy.md"
PASSWORD = "of the test"


def block(language: str) -> str:
    """The page's configuration in that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """`text` with each pair's first string, which must be there, replaced by its second."""
    for old, new in pairs:
        assert old in text, f"{PAGE.name} has no {old!r} any more"
        text = text.replace(old, new)
    return text


def start_caddy(directory: Path, port: int, api: RunningApi) -> list[str]:
    """Writes what Caddy needs, and returns its command."""
    command = ["caddy", "hash-password", "--plaintext", PASSWORD]
    hashed = children.run(command).stdout.strip()
    options = f"admin off\nskip_install_trust\nauto_https disable_redirects\nstorage file_system {directory}/state"
    site = replaced(
        block("caddyfile"),
        ("fovea.example.com {", f"https://localhost:{port} {{\n\ttls internal"),
        ("HASH", hashed),
        ("127.0.0.1:8000", f"127.0.0.1:{api.port}"),
    )
    (directory / "Caddyfile").write_text(f"{{\n{options}\n}}\n{site}")
    return ["caddy", "run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]


def start_nginx(directory: Path, port: int, api: RunningApi) -> list[str]:
    """Writes what nginx needs, and returns its command."""
    key, certificate = directory / "privkey.pem", directory / "fullchain.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    children.run([*made, "-keyout", str(key), "-out", str(certificate)])
    command = ["openssl", "passwd", "-apr1", PASSWORD]
    hashed = children.run(command).stdout.strip()
    (directory / "fovea.htpasswd").write_text(f"anna:{hashed}\n")
    site = replaced(
        block("nginx"),
        ("127.0.0.1:8000", f"127.0.0.1:{api.port}"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("fovea.example.com", "localhost"),
        ("/etc/ssl/fovea", str(directory)),
        ("/etc/nginx", str(directory)),
    )
    scratch = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    logs = f"access_log {directory}/access.log;\n"
    user = f"user {getpass.getuser()};\n"  # else root's workers are nobody, who may not read the password
    frame = (
        f"{user}pid {directory}/pid;\nerror_log {directory}/error.log;\nevents {{}}\nhttp {{\n{logs}{scratch}{site}}}\n"
    )
    (directory / "nginx.conf").write_text(frame)
    return ["nginx", "-e", f"{directory}/error.log", "-c", str(directory / "nginx.conf"), "-g", "daemon off;"]


@dataclass(frozen=True, kw_only=True)
class Proxied:
    """Fovea behind a proxy."""

    api: RunningApi
    http: httpx.Client


@pytest.fixture(params=["caddy", "nginx"])
def proxied(request: pytest.FixtureRequest, start_api: StartApi, tmp_path: Path) -> Iterator[Proxied]:
    """Fovea behind that proxy, asked by a client that knows the password and takes any certificate."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed (on Debian: apt install caddy nginx-light)")
    directory, port = tmp_path / request.param, free_port()
    directory.mkdir()
    api = start_api()
    write: Callable[[Path, int, RunningApi], list[str]] = {"caddy": start_caddy, "nginx": start_nginx}[request.param]
    command = write(directory, port, api)
    with (directory / "output.log").open("wb") as output:
        proxy = children.start(command, stdout=output, stderr=output)
    try:
        anything = ssl.create_default_context()
        anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
        url, password = f"https://localhost:{port}", ("anna", PASSWORD)
        with httpx.Client(base_url=url, verify=anything, auth=password, trust_env=False, timeout=PATIENCE_S) as http:
            assert wait_until(lambda: proxy.poll() is not None or answers(http)), "the proxy does not answer"
            assert proxy.poll() is None, (directory / "output.log").read_text()
            yield Proxied(api=api, http=http)
    finally:
        children.end(proxy)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_proxy_asks_for_the_password_and_hands_on_the_rest(proxied: Proxied) -> None:
    http = proxied.http
    assert http.get("/v1/system", auth=("anna", "another")).status_code == 401
    assert http.get("/v1/system", auth=("bert", PASSWORD)).status_code == 401
    assert http.head("/healthz").status_code == 200
    assert http.get("/docs").status_code == 200
    assert f"curl -F file=@photos.zip -F name=photos {str(http.base_url).rstrip('/')}/v1/datasets" in http.get("/").text


def test_large_uploads_pass(proxied: Proxied) -> None:
    photos = image_folder_zip() + b"\0" * 8 * 1024**2  # what follows a zip's end does not count
    answer = proxied.http.post("/v1/datasets", data={"name": "shades"}, files={"file": ("s.zip", photos)})
    assert answer.status_code in (201, 422), answer.text  # never the proxy's 413
    assert answer.headers["X-Request-ID"]


def test_events_pass_as_they_happen(proxied: Proxied) -> None:
    sent = {"data": {"name": "shades"}, "files": {"file": ("s.zip", image_folder_zip())}}
    assert proxied.http.post("/v1/datasets", **sent).status_code == 201  # type: ignore[arg-type]
    job = proxied.http.post("/v1/jobs", json={"model": "garment_classifier", "dataset": "shades"}).json()
    with proxied.http.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
        lines = events.iter_lines()
        assert next(lines) == ": watching"
        proxied.api.services.jobs.request_cancel(job["id"])
        assert any('"status":"cancelled"' in line for line in lines)
