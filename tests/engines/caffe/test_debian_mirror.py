from pathlib import Path

import pytest

from pycaffe_prune.engines.caffe import debian_mirror
from pycaffe_prune.engines.caffe.debian_mirror import (
    AptSource,
    choose_mirror,
    debootstrap_mirror,
    find_mirror,
    host_sources,
    parse_deb822_sources,
    parse_one_line_sources,
)
from pycaffe_prune.errors import EngineError

MIRROR = "http://mirror.example/debian"

ONE_LINE = f"""\
# deb http://commented.example/debian bookworm main
deb [ arch=amd64 signed-by=/keys/vendor.gpg ] https://vendor.example/linux/debian bookworm stable
deb https://security.example/debian-security bookworm-security main
deb-src {MIRROR} bookworm main
deb {MIRROR}/ bookworm main contrib # the archive
deb cdrom:[Debian]/ bookworm main
"""

DEB822 = f"""\
# the archive
Types: deb deb-src
# a comment amid the fields
URIs: {MIRROR}
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main
Enabled: no
"""


@pytest.mark.parametrize(
    "sources", [parse_one_line_sources(ONE_LINE), parse_deb822_sources(DEB822)]
)
def test_main_archive_is_found_in_both_styles(sources: list[AptSource]) -> None:
    assert choose_mirror(sources, "bookworm") == MIRROR


def test_one_line_options_are_read() -> None:
    first = parse_one_line_sources(ONE_LINE)[0]
    assert first.uri == "https://vendor.example/linux/debian"
    assert first.signed_by == "/keys/vendor.gpg"
    assert first.components == ("stable",)


def test_deb822_field_goes_on_over_lines_and_comments() -> None:
    sources = parse_deb822_sources(DEB822)
    assert [source.uri for source in sources] == [MIRROR, "http://mirror.example/debian-security"]
    assert sources[0].suites == ("bookworm", "bookworm-updates")


@pytest.mark.parametrize(
    ("uri", "suites", "components"),
    [
        ("http://x.example/debian-security", ("bookworm-security",), ("main",)),
        ("http://x.example/debian", ("bookworm-updates",), ("main",)),
        ("http://x.example/debian", ("bookworm-backports",), ("main",)),
        ("http://x.example/debian", ("bookworm",), ("stable",)),
        ("http://x.example/node_20.x", ("nodistro",), ("main",)),
        ("http://x.example/debian", ("jammy",), ("main",)),
        ("cdrom:[x]/debian", ("bookworm",), ("main",)),
    ],
)
def test_other_sources_are_never_the_main_archive(
    uri: str, suites: tuple[str, ...], components: tuple[str, ...]
) -> None:
    assert choose_mirror([AptSource(uri, suites, components)], "bookworm") is None


def test_third_party_with_debians_suite_comes_after_debian() -> None:
    vendor = AptSource("https://vendor.example/tools/prod", ("bookworm",), ("main",))
    debian = AptSource(MIRROR, ("bookworm",), ("main",))
    snapshot = AptSource(
        "http://x.example/archive/20250520T000000Z",
        ("bookworm",),
        ("main",),
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    )
    assert choose_mirror([vendor, debian], "bookworm") == debian.uri
    assert choose_mirror([vendor, snapshot], "bookworm") == snapshot.uri
    assert choose_mirror([snapshot, vendor], "bookworm") == snapshot.uri


def test_rolling_suites_count() -> None:
    assert choose_mirror([AptSource(MIRROR, ("stable",), ("main",))], "trixie") == MIRROR


def test_host_sources_reads_both_files_and_skips_disabled_names(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
    (parts / "b.list").write_text("deb http://b.example/debian bookworm main\n")
    (parts / "c.sources").write_text(DEB822)
    (parts / "d.list.save").write_text("deb http://d.example/debian bookworm main\n")
    assert [source.uri for source in host_sources(tmp_path)] == [
        "http://a.example/debian",
        "http://b.example/debian",
        MIRROR,
        "http://mirror.example/debian-security",
    ]


def test_override_comes_before_variable_before_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYCAFFE_PRUNE_DEBIAN_MIRROR", "http://variable.example/debian/")
    assert find_mirror("http://option.example/debian/", tmp_path) == "http://option.example/debian"
    assert find_mirror(None, tmp_path) == "http://variable.example/debian"
    monkeypatch.delenv("PYCAFFE_PRUNE_DEBIAN_MIRROR")
    monkeypatch.setattr(
        debian_mirror,
        "_os_release",
        lambda _path: {"ID": "debian", "VERSION_CODENAME": "bookworm"},
    )
    monkeypatch.setattr(debian_mirror, "host_sources", lambda: parse_deb822_sources(DEB822))
    assert find_mirror(None, tmp_path) == MIRROR


def test_no_mirror_at_all_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYCAFFE_PRUNE_DEBIAN_MIRROR", raising=False)
    monkeypatch.setattr(debian_mirror, "_os_release", lambda _path: {"ID": "ubuntu"})
    monkeypatch.setattr(debian_mirror, "debootstrap_mirror", lambda _root: None)
    monkeypatch.setattr(debian_mirror, "_host_package", lambda _name, _cache: tmp_path)
    with pytest.raises(EngineError, match="--mirror"):
        find_mirror(None, tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("usr/sbin/debootstrap", f'DEF_MIRROR="{MIRROR}"\nDEF_HTTPS_MIRROR="https://no.example"\n'),
        ("usr/share/debootstrap/scripts/sid", f"case $ARCH in\n\tdefault_mirror {MIRROR}/\nesac\n"),
    ],
)
def test_debootstraps_default_mirror_is_read(tmp_path: Path, file: str, text: str) -> None:
    assert debootstrap_mirror(tmp_path) is None
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert debootstrap_mirror(tmp_path) == MIRROR
