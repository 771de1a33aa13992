import shutil
from pathlib import Path

import pytest

from pycaffe_prune.engines.caffe.private_apt import Package, PrivateApt
from pycaffe_prune.errors import EngineError

needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None, reason="apt-get is not on PATH (no Debian or Ubuntu)"
)


def ignore(step: str, fraction: float | None) -> None:
    pass


def test_name_and_version_are_read_from_the_file_name() -> None:
    package = Package("python3-caffe_1%3a1.0.0+git-8+b2_amd64.deb", 703)
    assert package.name == "python3-caffe"
    assert package.version == "1:1.0.0+git-8+b2"


def archive(folder: Path, *, unsigned_release: bool) -> str:
    release = folder / "mirror/dists/bullseye"
    release.mkdir(parents=True)
    if unsigned_release:
        (release / "Release").write_text("Origin: nobody\nCodename: bullseye\n")
    return f"file:{folder / 'mirror'}"


@needs_apt
def test_unsigned_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keyring.gpg").touch()
    mirror = archive(tmp_path, unsigned_release=True)
    apt = PrivateApt(tmp_path / "apt", mirror, "bullseye", tmp_path / "keyring.gpg")
    with pytest.raises(EngineError, match=r"is not signed by .*keyring.gpg"):
        apt.update(ignore)


@needs_apt
def test_archive_without_the_release_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "keyring.gpg").touch()
    mirror = archive(tmp_path, unsigned_release=False)
    apt = PrivateApt(tmp_path / "apt", mirror, "bullseye", tmp_path / "keyring.gpg")
    with pytest.raises(EngineError, match=r"does not have bullseye .*--mirror"):
        apt.update(ignore)


@needs_apt
def test_dead_mirror_names_itself(tmp_path: Path) -> None:
    (tmp_path / "keyring.gpg").touch()
    mirror = "http://127.0.0.1:9/debian"
    apt = PrivateApt(tmp_path / "apt", mirror, "bullseye", tmp_path / "keyring.gpg")
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9/debian cannot be reached"):
        apt.update(ignore)
