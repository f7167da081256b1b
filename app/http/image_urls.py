"""Fetches image URLs without opening the internal network to clients (server-side request forgery, SSRF).

Disabled unless the operator lists hosts. Only http and https URLs without user names are fetched, only from the listed
hosts, and only if every address of the host is public. The connection goes to the address that was checked, so a name
that resolves differently the second time (DNS rebinding) has no effect. Every redirect is checked in the same way.
Source: OWASP Server-Side Request Forgery Prevention Cheat Sheet.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

import httpx

from app.engine.errors import ImageUrlFailed, ImageUrlRefused
from models.errors import ImageTooLarge

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]

_MOST_REDIRECTS = 3
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # carries an IPv4 address that a translator would connect to


async def resolve_host(host: str, port: int) -> Sequence[Address]:
    """The addresses of `host`, from the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(entry[4][0]) for entry in found]


def is_public(address: Address) -> bool:
    """True for addresses of the public internet: not private, loopback, link-local, multicast, …"""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.sixtofour is not None or address.teredo is not None or address in _NAT64:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class ImageUrls:
    """Fetches image URLs of the hosts that the operator listed."""

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        max_bytes: int,
        timeout_s: float,
        resolve: Resolve = resolve_host,
        is_allowed: Callable[[Address], bool] = is_public,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._is_allowed = is_allowed
        # Proxies from the environment would resolve the name again.
        self._http = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s),
            # A kept connection could serve another name on the same address without a check.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def fetch(self, url: str, *, arrived: Callable[[int], None] = lambda _: None) -> bytes:
        """The bytes at `url`.

        arrived: called with the number of bytes of each piece as it arrives; it may raise to stop the download.
        Raises ImageUrlRefused, ImageUrlFailed, ImageTooLarge.
        """
        if not self._hosts:
            raise ImageUrlRefused(
                "Image URLs are disabled on this server.",
                hint="Send the image itself, or ask the operator to list the host in FOVEA_IMAGE_URL_HOSTS.",
            )
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url, arrived)
        except TimeoutError as error:
            raise ImageUrlFailed(f"{url} did not send an image within {self._timeout_s:g} s.") from error
        except httpx.HTTPError as error:
            raise ImageUrlFailed(f"{url} did not send an image: {type(error).__name__}.") from error

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _follow(self, url: str, arrived: Callable[[int], None]) -> bytes:
        for _ in range(_MOST_REDIRECTS + 1):
            request = await self._checked_request(url)
            response = await self._http.send(request, stream=True)
            try:
                if response.is_redirect:
                    url = str(httpx.URL(url).join(response.headers["location"]))
                    continue
                return await self._read(url, response, arrived)
            finally:
                await response.aclose()
        raise ImageUrlFailed(f"{url}: more than {_MOST_REDIRECTS} redirects.")

    async def _checked_request(self, url: str) -> httpx.Request:
        """A request to a checked address of the URL's host."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ImageUrlRefused(f"{url!r} is not a valid URL.", hint="Write it as https://host/path.") from error
        if parsed.scheme not in _DEFAULT_PORTS or not parsed.host or parsed.userinfo:
            raise ImageUrlRefused(
                f"{url!r} may not be fetched.", hint="Only http and https URLs without a user name are fetched."
            )
        port = parsed.port or _DEFAULT_PORTS[parsed.scheme]
        self._check_host(parsed.host, port, is_default_port=parsed.port is None)
        address = await self._checked_address(parsed.host, port)
        target = parsed.copy_with(host=str(address), port=port)
        headers = {"Host": parsed.netloc.decode("ascii"), "Accept": "image/*", "User-Agent": "fovea"}
        headers["Accept-Encoding"] = "identity"  # no decompression bombs
        # TLS sends and verifies the name of the host, not the address.
        return self._http.build_request("GET", target, headers=headers, extensions={"sni_hostname": parsed.host})

    def _check_host(self, host: str, port: int, *, is_default_port: bool) -> None:
        name = host.lower().rstrip(".")
        for listed in self._hosts:
            pattern, _, listed_port = listed.partition(":")
            if listed_port:
                if listed_port != str(port):
                    continue
            elif not is_default_port and port not in _DEFAULT_PORTS.values():
                continue
            if pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:])):
                return
        raise ImageUrlRefused(
            f"Images from {host}:{port} may not be fetched.", hint=f"Allowed hosts: {', '.join(self._hosts)}."
        )

    async def _checked_address(self, host: str, port: int) -> Address:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise ImageUrlFailed(f"The host {host} is unknown.") from error
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            # The message does not name the address: it would map the internal network.
            raise ImageUrlRefused(f"{host} is not on the public internet, so nothing is fetched from it.")
        return addresses[0]

    async def _read(self, url: str, response: httpx.Response, arrived: Callable[[int], None]) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise ImageUrlFailed(f"{url} answered {response.status_code}.")
        data = bytearray()
        async for chunk in response.aiter_raw():
            arrived(len(chunk))
            data += chunk
            if len(data) > self._max_bytes:
                raise ImageTooLarge(f"The image at {url} has more than {self._max_bytes} bytes.")
        return bytes(data)
