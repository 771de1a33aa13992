import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli.convert import zoo as convert_zoo
from pycaffe_prune.cli.convert.command import convert
from pycaffe_prune.convert.zoo import ZooModel
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.share import share_root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(convert, [str(item) for item in arguments])


def done(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    return result


def test_the_zoo_is_listed_with_addresses_and_checksums() -> None:
    lines = done("--from-zoo", "list").stdout
    assert "http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel" in lines
    assert "sha1 4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46" in lines
    assert "no checksum is published: its layers and shapes are checked instead" in lines


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server with one file of the zoo, lenet.caffemodel."""
    monkeypatch.setenv("NO_PROXY", "*")
    content = bytes(range(256)) * 100

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/lenet.caffemodel" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    model = ZooModel(
        name="lenet",
        what="for tests",
        file="lenet.caffemodel",
        urls=(),
        network="lenet",
        sha1=hashlib.sha1(content, usedforsecurity=False).hexdigest(),
    )
    monkeypatch.setattr(convert_zoo, "zoo_model", lambda _: model)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_weights_from_the_zoo_come_with_their_net(mirror: str, tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    result = done("--from-zoo", "lenet", "--mirror", mirror, "--out", out)
    checksum = hashlib.sha256((out / "lenet.caffemodel").read_bytes()).hexdigest()
    assert f"lenet.caffemodel: 25,600 bytes, sha256 {checksum}" in result.stdout
    expected = read_net(share_root() / "prototxt" / "lenet" / "deploy.prototxt")
    assert read_net(out / "deploy.prototxt") == expected


def test_a_download_that_fails_says_what_to_do(mirror: str, tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    result = run("--from-zoo", "lenet", "--mirror", f"{mirror}/nowhere", "--out", out)
    assert isinstance(result.exception, PruneError)
    sentence = str(result.exception)
    assert f"{mirror}/nowhere/lenet.caffemodel: " in sentence
    assert sentence.endswith(f"with --mirror, or put the file into {out} yourself")
    assert not (out / "deploy.prototxt").exists()


def test_a_dry_run_of_a_download_shows_the_entry_and_asks_nobody(tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    result = done("--from-zoo", "googlenet", "--out", out, "--dry-run")
    assert "sha1 405fc5acd08a3bb12de8ee5e23a96bec22f08204" in result.stdout
    assert not out.exists()
