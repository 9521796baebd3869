"""Which addresses a fetch may connect to.

An author may name any server, a private one too: the digest is locked, and who wrote the source is
who runs the build. A server on the internet may not choose, however: a redirect from a public to a
private address is refused, and so is a name that means a private address then. The addresses at
which clouds give credentials to whoever asks are refused always.

The address is looked at that is connected to, after the name was resolved and only once, so a name
that means something else a moment later changes nothing. Behind a proxy it is the proxy that
resolves names: only names and addresses that stand in the URL can be looked at there.

Sources: RFC 6890 and the IANA registries through `ipaddress`; the documents of AWS (EC2, ECS, EKS),
Google, Azure, Oracle, Alibaba and Tencent on their instance metadata.
"""

from __future__ import annotations

import socket
import urllib.request
from dataclasses import dataclass
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # nearly all of them
            "169.254.170.2",  # AWS, tasks
            "169.254.170.23",  # AWS, pods
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",  # Google
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "168.63.129.16",  # Azure: looks public
        ),
    )
)
_METADATA_NAMES = frozenset(
    {
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
    }
)
_UNICAST = ip_network("2000::/3")
"""All that is assigned of IPv6 for the internet (RFC 4291)."""
_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")
"""IPv4 in IPv6 as it was once written (RFC 4291, 2.5.5.1)."""


class Zone(Enum):
    """What kind of address it is."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Not reachable from everywhere: private, loopback, link-local, shared, reserved."""
    METADATA = "metadata"
    """Where a cloud tells its machines who they are, with credentials."""


class RefusedError(Exception):
    """An address that may not be connected to."""


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of `host`, in the order of the system's preference.

    Raises:
        socket.gaierror: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def find_proxy(scheme: str, host: str, port: int) -> str | None:
    """Return the URL of the proxy that the environment has for a server, None if it has none."""
    if urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is public, and how names become addresses."""

    public: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that count as public although the registries say that they are not."""
    resolve: Callable[[str, int], Sequence[str]] = resolve

    def zone_of(self, address: str) -> Zone:
        """Return the zone of an IPv4 or IPv6 address, and of the IPv4 address inside of one.

        Raises:
            ValueError: it is no address.
        """
        outer = ip_address(address.partition("%")[0])
        zones = {self._zone_of(each) for each in (outer, *_inside(outer))}
        return next(zone for zone in reversed(Zone) if zone in zones)

    def _zone_of(self, address: IPv4Address | IPv6Address) -> Zone:
        if address in _METADATA:
            return Zone.METADATA
        if any(address in network for network in self.public):
            return Zone.PUBLIC
        assigned = isinstance(address, IPv4Address) or address in _UNICAST or address in _NAT64
        is_public = assigned and address.is_global and not address.is_multicast
        return Zone.PUBLIC if is_public else Zone.PRIVATE

    def addresses_of(self, host: str, port: int, *, from_public: bool) -> list[tuple[str, Zone]]:
        """Resolve `host`; one address that may not be connected to spoils them all.

        Args:
            host: Name or address.
            port: Where it is connected to.
            from_public: Whether a public server redirects there.

        Raises:
            RefusedError: it may not be connected to.
            socket.gaierror: it has no address.
        """
        _check_name(host)
        found = [(address, self.zone_of(address)) for address in self.resolve(host, port)]
        for _, zone in found:
            _check_zone(zone, from_public=from_public)
        return found

    def zone_behind_proxy(self, host: str, *, from_public: bool) -> Zone:
        """Return the zone of `host` as far as its name says: what is no address counts as public.

        Raises:
            RefusedError: it may not be connected to.
        """
        _check_name(host)
        try:
            zone = self.zone_of(_plain(host))
        except ValueError:
            zone = Zone.PRIVATE if _is_localhost(host) else Zone.PUBLIC
        _check_zone(zone, from_public=from_public)
        return zone


def _check_name(host: str) -> None:
    if host.rstrip(".").lower() in _METADATA_NAMES:
        raise RefusedError("it is a cloud's metadata service, which holds credentials")


def _check_zone(zone: Zone, *, from_public: bool) -> None:
    if zone is Zone.METADATA:
        raise RefusedError("it is a cloud's metadata service, which holds credentials")
    if from_public and zone is not Zone.PUBLIC:
        raise RefusedError(
            "a public server redirects to a private address; "
            "name that address as the source if it is meant"
        )


def _is_localhost(host: str) -> bool:
    return host.rstrip(".").lower().endswith("localhost")


def _plain(host: str) -> str:
    """Return `host` as an address is written, also `0x7f.1`, which C libraries take for one."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def _inside(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that packets to an IPv6 address may end at."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or address in _COMPATIBLE:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
