"""Image URLs: only from allowed hosts, only from the public internet, and never more than was asked for."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from app.engine.errors import ImageUrlFailed, ImageUrlRefused
from app.http.image_urls import Address, ImageUrls, is_public
from models.errors import ImageTooLarge
from tests.waiting import BRIEF_S, PATIENCE_S

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::",
    ],
)  # fmt: skip
def test_address_that_is_not_public_is_none(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def picture(content: bytes) -> httpx.Response:
    """An answer that has not been read yet."""
    return httpx.Response(200, stream=httpx.ByteStream(content))


class Web:
    """A resolver and a server that write down what they were asked."""

    def __init__(self, names: dict[str, str], answers: dict[str, httpx.Response]) -> None:
        self.names, self.answers = names, answers
        self.requests: list[httpx.Request] = []

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        if host not in self.names:
            raise OSError
        return [ipaddress.ip_address(address) for address in self.names[host].split()]

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answers[request.headers["Host"] + request.url.raw_path.decode()]

    def fetch(
        self, url: str, *, hosts: Sequence[str] = ("images.example.com", "*.cdn.example"), **changes: Any
    ) -> bytes:
        async def run() -> bytes:
            urls = ImageUrls(
                hosts,
                **{"max_bytes": 100, "timeout_s": PATIENCE_S, **changes},
                resolve=self.resolve,
                transport=httpx.MockTransport(self.answer),
            )
            try:
                return await urls.fetch(url)
            finally:
                await urls.close()

        return asyncio.run(run())


def test_image_is_fetched_from_the_address_that_was_checked() -> None:
    web = Web({"images.example.com": PUBLIC}, {"images.example.com/a.png?x=1": picture(b"data")})
    assert web.fetch("https://images.example.com/a.png?x=1") == b"data"
    (request,) = web.requests
    assert (request.url.host, request.headers["Host"]) == (PUBLIC, "images.example.com")
    assert request.extensions["sni_hostname"] == "images.example.com"


@pytest.mark.parametrize("url", ["https://a.cdn.example/x", "https://a.b.cdn.example/x"])
def test_wildcard_allows_what_is_below_it(url: str) -> None:
    host = httpx.URL(url).host
    assert Web({host: PUBLIC}, {f"{host}/x": picture(b"data")}).fetch(url) == b"data"


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example.com/a",
        "https://cdn.example/a",
        "https://evilcdn.example/a",
        "https://images.example.com.evil.example/a",
        "https://images.example.com:8080/a",
        "https://user:secret@images.example.com/a",
        "ftp://images.example.com/a",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "//images.example.com/a",
        "http://[::1]/a",
        "http://",
        "\0",
        "",
    ],
)
def test_url_that_is_not_allowed_is_not_asked(url: str) -> None:
    web = Web({"images.example.com": PUBLIC}, {})
    with pytest.raises(ImageUrlRefused):
        web.fetch(url)
    assert web.requests == []


@pytest.mark.parametrize("addresses", ["127.0.0.1", "169.254.169.254", f"{PUBLIC} 10.0.0.1", "::1"])
def test_allowed_host_that_leads_inside_is_not_asked(addresses: str) -> None:
    web = Web({"images.example.com": addresses}, {})
    with pytest.raises(ImageUrlRefused) as refused:
        web.fetch("http://images.example.com/a")
    assert web.requests == []
    assert addresses not in str(refused.value)


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1/secret", "http://inside.cdn.example/secret", "http://other.example/a"]
)
def test_redirect_is_checked_like_the_first_url(target: str) -> None:
    web = Web(
        {"images.example.com": PUBLIC, "inside.cdn.example": "10.0.0.1", "127.0.0.1": "127.0.0.1"},
        {"images.example.com/a": httpx.Response(302, headers={"Location": target})},
    )
    with pytest.raises(ImageUrlRefused):
        web.fetch("http://images.example.com/a")
    assert len(web.requests) == 1


def test_redirect_to_an_allowed_host_is_followed() -> None:
    web = Web(
        {"images.example.com": PUBLIC, "a.cdn.example": PUBLIC},
        {
            "images.example.com/a": httpx.Response(301, headers={"Location": "//a.cdn.example/b"}),
            "a.cdn.example/b": picture(b"data"),
        },
    )
    assert web.fetch("https://images.example.com/a") == b"data"


def test_redirects_in_a_circle_end() -> None:
    circle = {"images.example.com/a": httpx.Response(302, headers={"Location": "/a"})}
    web = Web({"images.example.com": PUBLIC}, circle)
    with pytest.raises(ImageUrlFailed):
        web.fetch("http://images.example.com/a")
    assert len(web.requests) == 4


def test_image_larger_than_the_limit_is_refused() -> None:
    web = Web({"images.example.com": PUBLIC}, {"images.example.com/a": picture(bytes(101))})
    with pytest.raises(ImageTooLarge):
        web.fetch("http://images.example.com/a")


def test_host_that_answers_with_an_error_or_is_unknown_fails() -> None:
    web = Web({"images.example.com": PUBLIC}, {"images.example.com/a": httpx.Response(404)})
    with pytest.raises(ImageUrlFailed, match="404"):
        web.fetch("http://images.example.com/a")
    with pytest.raises(ImageUrlFailed, match="unknown"):
        web.fetch("http://gone.cdn.example/a")


def test_host_that_does_not_answer_in_time_fails() -> None:
    class Silent(Web):
        async def resolve(self, host: str, port: int) -> Sequence[Address]:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(ImageUrlFailed, match="within"):
        Silent({}, {}).fetch("http://images.example.com/a", timeout_s=BRIEF_S)
