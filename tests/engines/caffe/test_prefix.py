import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pycaffe_prune.engines.caffe import prefix as caffe_prefix
from pycaffe_prune.engines.caffe.prefix import (
    default_prefix,
    install_caffe,
    launcher_of,
    plan_install,
    read_marker,
    write_launchers,
)
from pycaffe_prune.errors import EngineError

MIRROR = "http://mirror.example/debian"
LOADER = "lib/x86_64-linux-gnu/ld-2.31.so"
# Stands in for the loader of a prefix: says what it was started with.
SPY = """#!/bin/sh
printf '%s\\n' "$@" "home=$PYTHONHOME" "path=$PYTHONPATH" "site=$PYTHONNOUSERSITE"
"""

needs_dpkg = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on PATH (no Debian or Ubuntu)"
)


def ignore(step: str, fraction: float | None) -> None:
    pass


# --- the launcher -----------------------------------------------------------------------------


@pytest.fixture
def spied_prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "a prefix"
    executable(prefix / LOADER, SPY)
    write_launchers(prefix)
    return prefix


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(launcher: Path, *arguments: str, cwd: Path | None = None) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": "/somewhere", "PYTHONHOME": "/elsewhere"}
    done = subprocess.run(
        [launcher, *arguments], capture_output=True, text=True, check=True, env=environment, cwd=cwd
    )
    return done.stdout.splitlines()


def test_launcher_starts_the_prefixs_own_python(spied_prefix: Path) -> None:
    lines = run(launcher_of(spied_prefix), "-c", "a b")
    assert lines[0] == "--library-path"
    libraries = lines[1].split(":")
    assert all(folder.startswith(f"{spied_prefix}/") for folder in libraries)
    multiarch = f"{spied_prefix}/usr/lib/x86_64-linux-gnu"
    assert libraries.index(f"{multiarch}/openblas-pthread") < libraries.index(multiarch)
    assert lines[2:5] == [f"{spied_prefix}/usr/bin/python3.9", "-c", "a b"]
    assert lines[5:] == [f"home={spied_prefix}/usr", "path=", "site=1"]


def test_launcher_works_after_a_move_and_through_links(spied_prefix: Path, tmp_path: Path) -> None:
    moved = tmp_path / "bin" / "moved"
    moved.parent.mkdir()
    spied_prefix.rename(moved)
    link = tmp_path / "link"
    link.symlink_to(os.path.relpath(launcher_of(moved), tmp_path))
    chained = tmp_path / "chained"
    chained.symlink_to(link)
    for launcher in (launcher_of(moved), link, chained):
        assert run(launcher)[-3] == f"home={moved}/usr"
    assert run(Path("bin/caffe-python"), cwd=moved)[-3] == f"home={moved}/usr"


def test_tool_launcher_names_the_missing_program(spied_prefix: Path) -> None:
    tool = spied_prefix / "bin/caffe-tool"
    done = subprocess.run([tool, "convert_imageset"], capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "convert_imageset: no such program" in done.stderr
    executable(spied_prefix / "usr/bin/convert_imageset", "")
    lines = run(tool, "convert_imageset", "--shuffle")
    assert lines[2:4] == [f"{spied_prefix}/usr/bin/convert_imageset", "--shuffle"]


# --- the installation, with packages and an apt-get of our own --------------------------------

FAKE_APT = """#!/bin/sh
echo "$*" >> "{log}"
for word; do
  case $word in
    Dir::Cache::archives=*) archives=${{word#*=}} ;;
    APT::Status-Fd=*) status=/proc/self/fd/${{word#*=}} ;;
  esac
done
case "$*" in
  *--print-uris*)
    for deb in "{debs}"/*.deb; do
      echo "'http://x/y.deb' ${{deb##*/}} $(stat -c %s "$deb") SHA256:0"
    done ;;
  *--download-only*)
    sleep {delay}
    echo "dlstatus:1:50.0:Retrieving file 1 of 2" > "$status"
    cp "{debs}"/*.deb "$archives/" ;;
esac
"""


class FakeDebian:
    """Two small packages, an apt-get that serves them, and the log of its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        folder.mkdir()
        self.log.touch()
        self.loader = "#!/bin/sh\nexit 0\n"

    def build(self, *, delay: float = 0) -> None:
        tree = self.folder / "tree"
        executable(tree / LOADER, self.loader)
        for document in ("usr/share/doc/python3-caffe/copyright", "usr/share/keep/me"):
            (tree / document).parent.mkdir(parents=True, exist_ok=True)
            (tree / document).write_text("x" * 5000)
        if not (tree / "usr/lib/site").is_symlink():
            (tree / "usr/lib").mkdir(parents=True)
            (tree / "usr/lib/site").symlink_to("/etc/python3.9/site")
        self._deb(tree, "python3-caffe", "1.0.0+git-8")
        self._deb(self.folder / "empty", "libopenblas0-pthread", "0.3.13")
        debs = self.folder / "debs"
        executable(
            self.folder / "bin/apt-get", FAKE_APT.format(log=self.log, debs=debs, delay=delay)
        )

    def _deb(self, tree: Path, name: str, version: str) -> None:
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
            "Maintainer: Nobody <n@example.org>\nDescription: test\n"
        )
        (self.folder / "debs").mkdir(exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--build", tree, self.folder / f"debs/{name}_{version}_amd64.deb"],
            check=True,
            capture_output=True,
        )

    def downloads(self) -> int:
        return self.log.read_text().count("--download-only")


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDebian:
    fake = FakeDebian(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{fake.folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(caffe_prefix, "find_keyring", lambda _cache: fake.log)
    return fake


def partial_folders(prefix: Path) -> list[Path]:
    return sorted(prefix.parent.glob(".*.partial-*"))


@needs_dpkg
def test_install_is_whole_trimmed_and_remembered(debian: FakeDebian) -> None:
    debian.build()
    steps: list[tuple[str, float | None]] = []
    launcher = install_caffe(
        default_prefix(), mirror=MIRROR, on_progress=lambda *step: steps.append(step)
    )
    prefix = default_prefix()
    assert launcher == prefix / "bin/caffe-python"
    marker = read_marker(prefix)
    assert marker is not None
    assert marker.packages == {"python3-caffe": "1.0.0+git-8", "libopenblas0-pthread": "0.3.13"}
    assert not (prefix / "usr/share/doc").exists()
    assert (prefix / "usr/share/keep/me").stat().st_size == 5000
    assert 5000 <= marker.bytes_kept < marker.bytes_unpacked
    assert ("downloading", 0.5) in steps
    assert [fraction for step, fraction in steps if step == "unpacking"] == [0.5, 1.0]
    assert not (prefix.parent / "apt").exists(), "the downloads are deleted after success"
    assert partial_folders(prefix) == []


@needs_dpkg
def test_links_stay_inside_the_prefix(debian: FakeDebian, tmp_path: Path) -> None:
    debian.build()
    prefix = tmp_path / "here"
    install_caffe(prefix, mirror=MIRROR, on_progress=ignore)
    prefix.rename(tmp_path / "there")
    link = tmp_path / "there/usr/lib/site"
    assert (link.parent / link.readlink()).resolve() == tmp_path / "there/etc/python3.9/site"


@needs_dpkg
def test_second_install_does_nothing_but_a_broken_prefix_is_made_anew(debian: FakeDebian) -> None:
    debian.build()
    install_caffe(default_prefix(), mirror=MIRROR, on_progress=ignore)
    install_caffe(default_prefix(), mirror=MIRROR, on_progress=ignore)
    assert debian.downloads() == 1
    (default_prefix() / LOADER).unlink()
    install_caffe(default_prefix(), mirror=MIRROR, on_progress=ignore)
    assert debian.downloads() == 2
    assert (default_prefix() / LOADER).is_file()
    assert partial_folders(default_prefix()) == []


@needs_dpkg
def test_import_that_fails_leaves_no_prefix_and_keeps_the_downloads(debian: FakeDebian) -> None:
    debian.loader = "#!/bin/sh\necho libgdal.so.28: cannot open >&2\nexit 1\n"
    debian.build()
    with pytest.raises(EngineError, match="libgdal"):
        install_caffe(default_prefix(), mirror=MIRROR, on_progress=ignore)
    assert not default_prefix().exists()
    assert partial_folders(default_prefix()) == []
    assert len(list((default_prefix().parent / "apt/archives").glob("*.deb"))) == 2


@needs_dpkg
def test_modules_are_compiled_once_where_the_environment_forbids_it(
    debian: FakeDebian, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    debian.loader = '#!/bin/sh\necho "no: $PYTHONDONTWRITEBYTECODE" >&2\n'
    debian.loader += 'exec [ -z "$PYTHONDONTWRITEBYTECODE" ]\n'
    debian.build()
    install_caffe(default_prefix(), mirror=MIRROR, on_progress=ignore)
    assert read_marker(default_prefix()) is not None


@needs_dpkg
def test_two_installations_at_once_download_once(debian: FakeDebian) -> None:
    debian.build(delay=0.5)
    steps: list[str] = []

    def install(_: int) -> Path:
        return install_caffe(
            default_prefix(), mirror=MIRROR, on_progress=lambda step, _: steps.append(step)
        )

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(install, range(2))) == {launcher_of(default_prefix())}
    assert debian.downloads() == 1
    assert "waiting for another installation" in steps


@needs_dpkg
def test_leftovers_of_a_killed_run_are_removed(debian: FakeDebian) -> None:
    debian.build()
    leftover = default_prefix().parent / f".{default_prefix().name}.partial-dead"
    (leftover / "usr").mkdir(parents=True)
    install_caffe(default_prefix(), mirror=MIRROR, on_progress=ignore)
    assert not leftover.exists()


@needs_dpkg
def test_folder_with_something_else_is_left_alone(debian: FakeDebian, tmp_path: Path) -> None:
    debian.build()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("precious")
    with pytest.raises(EngineError, match=r"mine: holds something else"):
        install_caffe(tmp_path / "mine", mirror=MIRROR, on_progress=ignore)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    assert debian.downloads() == 0


@needs_dpkg
def test_plan_counts_what_is_left_and_downloads_nothing(debian: FakeDebian) -> None:
    debian.build()
    debs = sorted((debian.folder / "debs").iterdir())
    plan = plan_install(default_prefix(), mirror=MIRROR, on_progress=ignore)
    assert (plan.packages, plan.packages_to_download) == (2, 2)
    assert plan.bytes_to_download == sum(deb.stat().st_size for deb in debs)
    assert plan.mirror == MIRROR
    shutil.copy(debs[0], default_prefix().parent / "apt/archives")
    resumed = plan_install(default_prefix(), mirror=MIRROR, on_progress=ignore)
    assert resumed.bytes_to_download == debs[1].stat().st_size
    assert debian.downloads() == 0
    install_caffe(default_prefix(), mirror=MIRROR, on_progress=ignore)
    done = plan_install(default_prefix(), mirror=MIRROR, on_progress=ignore)
    assert done.already_installed
    assert done.bytes_to_download == 0


def test_other_machines_are_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(EngineError, match=r"aarch64; .*--caffe-python"):
        install_caffe(tmp_path / "x", mirror=MIRROR, on_progress=ignore)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"apt-get: not found.*--caffe-python"):
        install_caffe(tmp_path / "x", mirror=MIRROR, on_progress=ignore)
    assert list(tmp_path.iterdir()) == []


# --- the real thing ---------------------------------------------------------------------------


@pytest.mark.real_caffe
def test_real_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("PYCAFFE_PRUNE_TEST_INSTALL") != "1":
        pytest.skip("PYCAFFE_PRUNE_TEST_INSTALL is not 1: it downloads 164 MB from a Debian mirror")
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "ca che"))
    launcher = install_caffe(
        tmp_path / "pre fix", mirror=None, on_progress=ignore, extra_packages=["caffe"]
    )
    moved = tmp_path / "moved"
    launcher.parent.parent.rename(moved)
    assert list((moved / "usr/lib/python3/dist-packages/caffe/__pycache__").glob("io.*.pyc"))
    mapped = "import caffe; print(open('/proc/self/maps').read())"
    libraries = {word for line in run(launcher_of(moved), "-c", mapped) for word in line.split()}
    shared = {Path(word) for word in libraries if word.startswith("/") and ".so" in word}
    assert any(path.name.startswith("libcaffe.so") for path in shared)
    assert {path for path in shared if not path.is_relative_to(moved)} == set()
    assert run(moved / "bin/caffe-tool", "caffe", "--version") == ["caffe version 1.0.0"]


@pytest.mark.real_caffe
def test_keyring_without_debians_keys_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.environ.get("PYCAFFE_PRUNE_TEST_INSTALL") != "1":
        pytest.skip("PYCAFFE_PRUNE_TEST_INSTALL is not 1: it asks a Debian mirror")
    (tmp_path / "empty.gpg").touch()
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(caffe_prefix, "find_keyring", lambda _cache: tmp_path / "empty.gpg")
    with pytest.raises(EngineError, match=r"is not signed by .*empty\.gpg"):
        install_caffe(tmp_path / "prefix", mirror=None, on_progress=ignore)
    assert not (tmp_path / "prefix").exists()
