"""Addresses of clients and of services."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parsed(address: str) -> Address | None:
    """Return a client's address, an IPv4 one as that; ``None``: it came through a Unix socket."""
    if not address:
        return None
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def is_here(host: str) -> bool:
    """Whether what is said to this host stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
