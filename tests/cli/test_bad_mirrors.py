"""Commands that download, from servers on this machine that send anything but the file."""

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from pycaffe_prune.cli import cli
from pycaffe_prune.convert import zoo
from pycaffe_prune.convert.zoo import ZOO
from pycaffe_prune.errors import PruneError

CONTENT = gzip.compress(bytes(range(256)) * 100)
BOMB = gzip.compress(b"\0\0\x08\x03" + bytes(100 << 20), 1)
OVER = threading.Event()


class Request(BaseHTTPRequestHandler):
    """Answers as its server's mode says."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        with suppress(OSError):  # who has seen enough hangs up
            MODES[self.server.mode](self, asked)  # type: ignore[attr-defined]
        self.close_connection = True

    def send(self, code: int, body: bytes, length: int, content_range: str | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        pass


def bomb(request: Request, _: str | None) -> None:
    request.send(200, BOMB, len(BOMB))


def bad(request: Request, _: str | None) -> None:
    request.send(200, CONTENT[:-50] + bytes(50), len(CONTENT))


def cut(request: Request, asked: str | None) -> None:
    """Half of the file, and then another one's other half."""
    half, whole = len(CONTENT) // 2, len(CONTENT)
    if asked is None:
        request.send(200, CONTENT[:half], whole)
    else:
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        request.send(206, bytes(whole - start), whole - start, f"bytes {start}-{whole - 1}/{whole}")


def rangelie(request: Request, asked: str | None) -> None:
    if asked is None:
        request.send(200, CONTENT[:100], len(CONTENT))
    else:
        request.send(206, CONTENT, len(CONTENT), "bytes 0-99/100")


def stall(request: Request, _: str | None) -> None:
    request.send(200, CONTENT[:100], len(CONTENT))
    OVER.wait(30)


MODES: dict[str, Callable[[Request, str | None], None]] = {
    "bomb": bomb, "bad": bad, "cut": cut, "rangelie": rangelie, "stall": stall,
}  # fmt: skip
KEPT = {"rangelie", "stall"}
"""What came of an honest beginning stays for the next mirror."""


@pytest.fixture
def mirror(request: pytest.FixtureRequest) -> Iterator[str]:
    OVER.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Request) as server:
        server.mode = request.param  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        OVER.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("mirror", MODES, indirect=True)
@pytest.mark.parametrize("name", ["mnist", "flowers102", ZOO[0].name])
def test_a_bad_mirror_costs_one_sentence_and_leaves_nothing_that_looks_whole(
    name: str,
    mirror: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    mode = request.node.callspec.params["mirror"]
    cache, out = tmp_path / "cache", tmp_path / "out"
    monkeypatch.delenv("PYCAFFE_PRUNE_DATA", raising=False)
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(cache))
    monkeypatch.setenv("PYCAFFE_PRUNE_MNIST_MIRRORS", mirror)
    monkeypatch.setenv("PYCAFFE_PRUNE_FLOWERS_MIRRORS", mirror)
    monkeypatch.setenv("PYCAFFE_PRUNE_DOWNLOAD_SECONDS", "1")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(zoo, "ZOO", (replace(ZOO[0], urls=()),))
    from_zoo = ["convert", "--from-zoo", name, "--mirror", mirror]
    command = from_zoo if name == ZOO[0].name else ["data", name]
    result = CliRunner().invoke(cli, [*command, "--out", str(out)])
    assert isinstance(result.exception, PruneError)
    assert mirror in str(result.exception)
    assert "\n" not in str(result.exception)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert all(path.name.endswith(".part") and mode in KEPT for path in left), left
    assert sum(path.stat().st_size for path in left) < len(CONTENT)
