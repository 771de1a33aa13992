"""Against a web server on this machine: the real downloads are not run by tests."""

import hashlib
import math
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pycaffe_prune.convert.classifier import Classifier
from pycaffe_prune.convert.zoo import ZOO, ZooModel, fetch_weights, zoo_model, zoo_net
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import NetGraph
from pycaffe_prune.net.shapes import infer_shapes

WeightsFor = Callable[..., Caffemodel]
CONTENT = bytes(range(256)) * 500
FILE = ZooModel(
    name="small",
    what="a file for tests",
    file="small.caffemodel",
    urls=(),
    network="lenet",
    size=len(CONTENT),
    sha1=hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest(),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


class Mirror:
    """A web server of one file, which may cut the first answers short."""

    def __init__(self, content: bytes, cuts: list[int]) -> None:
        self.content, self.cuts = content, cuts
        self.asked: list[tuple[str, str | None]] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                span = self.headers.get("Range")
                mirror.asked.append((self.path, span))
                start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
                body = mirror.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                if start:
                    end = len(mirror.content)
                    self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
                self.end_headers()
                self.wfile.write(body[: mirror.cuts.pop(0)] if mirror.cuts else body)
                self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/zoo"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


Serve = Callable[..., Mirror]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setenv("NO_PROXY", "*")
    mirrors = []

    def start(content: bytes = CONTENT, cuts: tuple[int, ...] = ()) -> Mirror:
        mirrors.append(Mirror(content, list(cuts)))
        return mirrors[-1]

    yield start
    for mirror in mirrors:
        mirror.close()


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=1000)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_download_is_checked_and_not_repeated(
    serve: Serve, tmp_path: Path, console: Console
) -> None:
    mirror = serve()
    for _ in range(2):
        path = fetch_weights(FILE, tmp_path, [mirror.url + "/"], console=console)
        assert path == tmp_path / "small.caffemodel"
        assert path.read_bytes() == CONTENT
    assert mirror.asked == [("/zoo/small.caffemodel", None)]


def test_a_download_that_broke_goes_on_where_it_stopped(
    serve: Serve, tmp_path: Path, console: Console
) -> None:
    mirror = serve(cuts=(70_000,))
    path = fetch_weights(FILE, tmp_path, [mirror.url], console=console)
    assert path.read_bytes() == CONTENT
    (_, first), (_, second) = mirror.asked
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 70_000


def test_mirrors_come_before_the_public_addresses(
    serve: Serve, tmp_path: Path, console: Console
) -> None:
    public, wrong = serve(), serve(b"something else")
    model = replace(FILE, urls=(f"{public.url}/public",))
    fetch_weights(model, tmp_path, [wrong.url], console=console)
    assert len(wrong.asked) == len(public.asked) == 1
    assert (tmp_path / "small.caffemodel").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"sha1": "0" * 40}, f"its sha1 is {FILE.sha1}, that of small.caffemodel is 0000"),
        ({"sha256": "0" * 64}, f"its sha256 is {FILE.sha256}, that of small.caffemodel is 0000"),
        ({"size": 12}, "it has 128,000 bytes, more than the 12 that this file may"),
    ],
)
def test_a_wrong_file_is_one_sentence_and_is_not_kept(
    serve: Serve, tmp_path: Path, console: Console, changed: dict[str, str | int], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence) as raised:
        fetch_weights(replace(FILE, **changed), tmp_path, [serve().url], console=console)
    assert "\n" not in str(raised.value)
    assert files_in(tmp_path) == set()


def test_a_host_that_is_not_there_is_one_sentence(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(DataError, match=f"small.caffemodel cannot be downloaded: {dead}") as raised:
        fetch_weights(FILE, tmp_path, [dead], console=console)
    assert "\n" not in str(raised.value)


def test_without_a_checksum_layers_and_shapes_decide(
    serve: Serve, tmp_path: Path, console: Console, weights_for: WeightsFor
) -> None:
    model = replace(
        FILE, size=None, sha1=None, sha256=None, classifier=Classifier("ip2", "letters", 26)
    )
    for name, net in (
        ("right", zoo_net(model)),
        ("wrong", zoo_net(replace(model, classifier=None))),
    ):
        write_caffemodel(tmp_path / name, weights_for(net))
    right, wrong = (serve((tmp_path / name).read_bytes()).url for name in ("right", "wrong"))
    with pytest.raises(DataError, match=r"it is no small.caffemodel: layer 'letters'"):
        fetch_weights(model, tmp_path / "out", [wrong], console=console)
    with pytest.raises(DataError, match=r"it is no small.caffemodel: "):
        fetch_weights(model, tmp_path / "out", [serve().url], console=console)
    assert files_in(tmp_path / "out") == set()
    path = fetch_weights(model, tmp_path / "out", [wrong, right], console=console)
    require_fitting(zoo_net(model), read_caffemodel(path))


def parameters(net: NetParameter) -> int:
    """All parameters of all states: a file is saved with the heads of training."""
    counts: dict[str, int] = {}
    for graph in NetGraph.of_all_states(net):
        for layer, around in zip(graph.layers, infer_shapes(graph.layers), strict=True):
            counts[layer.name] = sum(math.prod(shape) for shape in around.params)
    return sum(counts.values())


@pytest.mark.parametrize("model", ZOO, ids=lambda model: model.name)
def test_every_entry_is_complete(model: ZooModel) -> None:
    assert zoo_model(model.name) is model
    net = zoo_net(model)
    assert model.urls
    assert all(url.startswith(("http://", "https://")) for url in model.urls)
    for checksum, digits in ((model.sha1, 40), (model.sha256, 64)):
        assert checksum is None or (len(checksum) == digits and int(checksum, 16))
    if model.size is not None:
        assert 0 < model.size - 4 * parameters(net) < 0.004 * model.size
    assert model.size is None or model.sha1 is not None


def test_the_flowers_net_has_its_own_classifier() -> None:
    (layer,) = (
        layer
        for layer in zoo_net(zoo_model("oxford102-caffenet")).layer
        if layer.name == "fc8_oxford_102"
    )
    assert layer.inner_product_param.num_output == 102


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"'lenet' is not in the table.*caffenet, alexnet, vgg-16"):
        zoo_model("lenet")
