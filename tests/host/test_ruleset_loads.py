"""Whatever a firewall.conf says, the text that is made of it is one that nft and this kernel take."""

import random
import subprocess
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from tests import readings
from vstools.config import firewall
from vstools.config.text import Faults
from vstools.firewall import model, nftables

TURNS = 25
EDGES = ("any", "0/0", "::/0", "255.255.255.255", "0.0.0.0", "::", "ff02::1", "224.0.0.0/4", "127.0.0.1", "fe80::/10")  # noqa: S104


def net(chance: random.Random) -> str:
    """An address, a network or a word; often inside of another one, and at the ends of what there is."""
    if chance.random() < 0.3:
        return chance.choice(EDGES)
    size, kind = chance.choice(((32, IPv4Network), (128, IPv6Network)))
    number = chance.choice((chance.getrandbits(size), chance.getrandbits(3), (1 << size) - 1 - chance.getrandbits(3)))
    prefix = chance.choice((size, chance.randint(0, size)))
    return str(kind((number, prefix), strict=False)).removesuffix(f"/{size}")


def service(chance: random.Random) -> str:
    """A protocol, often with ports that lie side by side, overlap or are the last ones."""
    name = chance.choice(("tcp", "udp", "icmp", "icmp6", "all", "number"))
    if name in ("all", "number") or chance.random() < 0.2:
        return str(chance.randint(0, 255)) if name == "number" else name
    most = 255 if name.startswith("icmp") else 65535
    low = chance.choice((chance.randint(1, most), chance.randint(1, 9), most - chance.randint(0, 3)))
    if most == 255 or chance.random() < 0.5:
        return f"{name}:{low}"
    return f"{name}:{low}-{min(most, low + chance.choice((0, 1, 5, 9999)))}"


def line(chance: random.Random) -> str:
    """A line of firewall.conf."""
    nets = ",".join(net(chance) for _ in range(chance.randint(1, 6)))
    services = ",".join(service(chance) for _ in range(chance.randint(1, 6)))
    return f"{chance.choice(('allow', 'deny'))} {chance.choice(('from', 'to'))} {nets} to {services}\n"


def loaded(text: str) -> "subprocess.CompletedProcess[str]":
    """What nft says of a text, in an empty network namespace: first of the text, then of loading it twice."""
    script = 'nft -c -f "$1" && nft -f "$1" && nft -f "$1" && nft -j list table inet vs > /dev/null'
    return subprocess.run(
        ["unshare", "--net", "sh", "-ec", script, "sh", text], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("seed", range(4))
def test_every_policy_loads(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same policies each time
    for _ in range(TURNS):
        lines = [line(chance) for _ in range(chance.randint(0, 12))]
        path = tmp_path / 'a "$(name)" {of} ; ' / "firewall.conf"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines))
        faults = Faults()
        policy = firewall.load(path, tmp_path, faults)
        assert not faults, lines
        assert len(policy.rules) == len(readings.firewall(path.read_text(), {}).rules) == len(lines)
        own = [
            IPv4Interface((chance.getrandbits(32), chance.randint(0, 32))),
            IPv6Interface((chance.getrandbits(128), chance.randint(0, 128))),
        ]
        host = [IPv4Address(chance.getrandbits(32)), IPv6Address(chance.getrandbits(128)), own[0].ip]
        text = tmp_path / "rules.nft"
        chains = model.chains(policy, own[: chance.randint(0, 2)], host, up=chance.random() < 0.8)
        text.write_text(nftables.text(chains))
        done = loaded(str(text))
        assert done.returncode == 0, (lines, done.stderr)
