"""Which addresses of the network anybody on the internet could reach."""

import ipaddress
import socket

# Global unicast, without what stands for an address of IPv4 (6to4, Teredo) or for examples.
IPV6 = ipaddress.ip_network("2000::/3")
NOT_IPV6 = [ipaddress.ip_network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
# What Python takes for global: multicast, the relays of 6to4, and three services within providers' networks.
NOT_IPV4 = [ipaddress.ip_network(net) for net in ("224.0.0.0/3", "192.88.99.0/24", "192.0.0.0/24")]


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the internet could reach."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6:
        return ip in IPV6 and ip.is_global and not any(ip in net for net in NOT_IPV6)
    return ip.is_global and not any(ip in net for net in NOT_IPV4)


def is_loopback(host: str) -> bool:
    """Whether a host, as it is written in an address, is this machine itself. Asks nobody."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def leads_inward(source: str, target: str) -> bool:
    """Whether one host is public and another, or something that its name stands for, is not. Asks the DNS."""
    return target != source and _all_public(source) and not _all_public(target)


def look_up(host: str, port: int | None = None) -> tuple[list[str], bool]:
    """Look up the addresses of a host, and whether all are public; OSError or UnicodeError if it has none."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    return addresses, all(is_public(address.partition("%")[0]) for address in addresses)


def _all_public(host: str) -> bool:
    try:
        return look_up(host)[1]
    except (OSError, UnicodeError):
        return True  # leads nowhere
