"""What the lab takes over from the machine: where apt finds Debian, how pip reaches its registry."""

from pathlib import Path

import pytest

from lab.machine import APT_SETTINGS, TRUST, AptSource, parse_index_targets, pip_settings

TARGETS = """\
http://mirror.example/debian/|bookworm|main
http://mirror.example/debian/|bookworm-updates|main
http://mirror.example/security/|bookworm-security|main
http://mirror.example/debian/|bookworm-backports|main
http://mirror.example/debian/|bookworm|main
http://other.example/docker/|jammy|stable
"""


def test_sources_are_those_of_the_release_with_its_updates_and_its_security() -> None:
    assert parse_index_targets(TARGETS, "bookworm") == [
        AptSource("http://mirror.example/debian/", "", "main"),
        AptSource("http://mirror.example/debian/", "-updates", "main"),
        AptSource("http://mirror.example/security/", "-security", "main"),
    ]


def test_a_source_serves_another_release_too() -> None:
    source = AptSource("http://mirror.example/security/", "-security", "main")
    assert source.line("trixie") == "deb http://mirror.example/security/ trixie-security main"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ('Acquire::http::Proxy "http://proxy.example:3128";', True),
        ('Acquire::https::CaInfo "/etc/ssl/x.pem";', True),
        ('Acquire::Retries "3";', True),
        ('APT::Install-Recommends "0";', False),
        ('Acquire::Languages "none";', False),
    ],
)
def test_of_apt_only_what_reaches_a_registry_is_taken(line: str, kept: bool) -> None:
    assert bool(APT_SETTINGS.match(line)) is kept


def test_pip_settings_come_from_files_and_above_them_from_the_environment(tmp_path: Path) -> None:
    site, own = tmp_path / "site", tmp_path / "own"
    site.write_text("[global]\nindex-url = https://site.example/simple\ntimeout = 60\nno-color = true\n")
    own.write_text("[global]\nindex-url = https://own.example/simple\n")
    text = pip_settings([site, own, tmp_path / "none"], {"PIP_TIMEOUT": "90", "HOME": "/root"})
    assert text == "[global]\nindex-url = https://own.example/simple\ntimeout = 90\n"


def test_a_registry_on_the_machine_s_own_disk_is_left_out_and_a_certificate_is_the_host_s_own() -> None:
    environment = {"PIP_EXTRA_INDEX_URL": "file:///srv/wheels /srv/more https://x.example", "PIP_CERT": "/root/ca.pem"}
    assert pip_settings([], environment) == f"[global]\nextra-index-url = https://x.example\ncert = {TRUST}\n"
