import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from data_prep.download import fetch
from data_prep.download_limits import SECONDS_VARIABLE, SPEED_VARIABLE, Limits, limits
from pycaffe_prune.errors import DataError

CONTENT = bytes(range(256)) * 1200
LIMITS = Limits(most_bytes=10 * len(CONTENT))


def check(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise DataError("its checksum is wrong")


@dataclass
class Mirror:
    """A web server of one file, with the faults a test wants.

    Attributes:
        content: What it serves.
        cuts: For each request in turn, after how many bytes to close the connection.
        status: Answer this instead, when not 200.
        shift: How far from the start of the range asked for its answers start.
        ranges: Whether it knows Range requests.
        silent: Accept connections, but never answer.
        drip: Seconds between two bytes of the body.
        endless: Send zeros for ever, of no length.
        length: Say this length.
        coding: Say that the body is packed so.
    """

    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    shift: int = 0
    ranges: bool = True
    silent: bool = False
    drip: float = 0
    endless: bool = False
    length: str | None = None
    coding: str | None = None
    asked: list[str | None] = field(default_factory=list)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        if self.silent:
            self.over.wait(30)
            request.close_connection = True
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if self.status != 200 or start >= len(self.content) > 0:
            request.send_error(self.status if self.status != 200 else 416)
            return
        if start:
            start += self.shift
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if not self.endless:
            request.send_header("Content-Length", self.length or str(len(body)))
        if start:
            end = len(self.content)
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        if self.coding:
            request.send_header("Content-Encoding", self.coding)
        request.end_headers()
        request.close_connection = True
        with suppress(OSError):  # who has seen enough hangs up
            self._send(request, body[: self.cuts.pop(0)] if self.cuts else body)

    def _send(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        while self.endless and not self.over.is_set():
            request.wfile.write(bytes(1 << 16))
        if not self.drip:
            request.wfile.write(body)
        for at in range(len(body) if self.drip else 0):
            request.wfile.write(body[at : at + 1])
            request.wfile.flush()
            if self.over.wait(self.drip):
                return


@contextmanager
def serving(mirror: Mirror) -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mirror.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        mirror.url = f"http://127.0.0.1:{server.server_port}/file"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield mirror
        finally:
            mirror.over.set()
            server.shutdown()
            thread.join()


Start = Callable[[Mirror], Mirror]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("NO_PROXY", "*")
    with ExitStack() as stack:
        yield lambda mirror: stack.enter_context(serving(mirror))


@pytest.fixture
def dead_url() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/file"


def test_a_whole_download_is_checked_and_not_repeated(
    start: Start, tmp_path: Path, console: Console
) -> None:
    mirror, target = start(Mirror()), tmp_path / "cache" / "file"
    for _ in range(2):
        assert fetch([mirror.url], target, check, console=console, limits=LIMITS) == target
    assert target.read_bytes() == CONTENT
    assert mirror.asked == [None]
    assert not target.with_name("file.part").exists()


def test_a_damaged_file_in_the_cache_is_downloaded_again(
    start: Start, tmp_path: Path, console: Console
) -> None:
    (tmp_path / "file").write_bytes(b"damaged")
    fetch([start(Mirror()).url], tmp_path / "file", check, console=console, limits=LIMITS)
    check(tmp_path / "file")


def test_a_cut_connection_is_resumed_where_it_broke(
    start: Start, tmp_path: Path, console: Console
) -> None:
    half = len(CONTENT) // 2
    mirror = start(Mirror(cuts=[half]))
    fetch([mirror.url], tmp_path / "file", check, console=console, limits=LIMITS)
    first, second = mirror.asked
    assert first is None
    assert second is not None
    assert 0.8 * half < int(second.removeprefix("bytes=").rstrip("-")) <= half
    check(tmp_path / "file")


def test_what_came_is_kept_for_the_next_command(
    start: Start, tmp_path: Path, console: Console
) -> None:
    dying = start(Mirror(cuts=[16_384, 0]))
    with pytest.raises(DataError, match=rf"after 16384 of {len(CONTENT)} bytes"):
        fetch([dying.url], tmp_path / "file", check, console=console, limits=LIMITS)
    assert not (tmp_path / "file").exists()
    healthy = start(Mirror())
    fetch([healthy.url], tmp_path / "file", check, console=console, limits=LIMITS)
    assert healthy.asked == ["bytes=16384-"]
    check(tmp_path / "file")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    left=st.integers(0, len(CONTENT) + 5),
    cuts=st.lists(st.integers(0, len(CONTENT)), max_size=3),
    ranges=st.booleans(),
    damaged=st.booleans(),
)
def test_whatever_was_left_and_wherever_it_breaks_the_file_is_right_or_there_is_none(
    start: Start,
    tmp_path_factory: pytest.TempPathFactory,
    console: Console,
    left: int,
    cuts: list[int],
    ranges: bool,
    damaged: bool,
) -> None:
    target = tmp_path_factory.mktemp("cache") / "file"
    earlier = (CONTENT + b"extra")[:left]
    target.with_name("file.part").write_bytes(b"\xee" + earlier[1:] if damaged else earlier)
    with serving(Mirror(cuts=list(cuts), ranges=ranges)) as breaking, serving(Mirror()) as sound:
        fetch([breaking.url, sound.url], target, check, console=console, limits=LIMITS)
    check(target)
    assert not target.with_name("file.part").exists()


def test_a_complete_but_unnamed_file_is_not_downloaded_again(
    start: Start, tmp_path: Path, console: Console
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    mirror = start(Mirror())
    fetch([mirror.url], tmp_path / "file", check, console=console, limits=LIMITS)
    assert mirror.asked == [f"bytes={len(CONTENT)}-"]
    check(tmp_path / "file")


def test_a_mirror_that_sends_another_range_is_passed_over(
    start: Start, tmp_path: Path, console: Console
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:500])
    with pytest.raises(DataError, match="status 206"):
        fetch(
            [start(Mirror(shift=7)).url], tmp_path / "file", check, console=console, limits=LIMITS
        )
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:500]


def test_a_mirror_with_another_file_is_passed_over(
    start: Start, tmp_path: Path, console: Console
) -> None:
    wrong, right = start(Mirror(content=CONTENT[::-1])), start(Mirror())
    fetch([wrong.url, right.url], tmp_path / "file", check, console=console, limits=LIMITS)
    check(tmp_path / "file")
    assert (wrong.asked, right.asked) == ([None], [None])


def test_when_all_mirrors_fail_one_error_tells_why_each_did(
    start: Start, dead_url: str, tmp_path: Path, console: Console
) -> None:
    absent, wrong = start(Mirror(status=404)), start(Mirror(content=b"login please"))
    urls = [dead_url, absent.url, wrong.url, "no-url-at-all"]
    with pytest.raises(DataError) as caught:
        fetch(urls, tmp_path / "file", check, console=console, limits=LIMITS)
    text = str(caught.value)
    assert all(url in text for url in urls)
    assert "Connection refused" in text
    assert "404" in text
    assert "its checksum is wrong" in text
    assert not (tmp_path / "file").exists()


def test_mirrors_that_never_answer_share_one_time_limit(
    start: Start, tmp_path: Path, console: Console
) -> None:
    silent = [start(Mirror(silent=True)) for _ in range(10)]
    began = time.monotonic()
    with pytest.raises(DataError, match="no answer within") as caught:
        fetch(
            [mirror.url for mirror in silent],
            tmp_path / "file",
            check,
            console=console,
            limits=LIMITS,
            connect_seconds=2,
        )
    assert 2 <= time.monotonic() - began < 15  # 20 if each had all of it
    assert str(caught.value).count("no answer within 0.2 seconds") == 10
    assert all(mirror.asked for mirror in silent)


def test_a_silent_mirror_leaves_time_for_the_next(
    start: Start, tmp_path: Path, console: Console
) -> None:
    urls = [start(Mirror(silent=True)).url, start(Mirror()).url]
    fetch(urls, tmp_path / "file", check, console=console, limits=LIMITS, connect_seconds=2)
    check(tmp_path / "file")


def test_a_name_look_up_that_blocks_does_not_hang_it(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def blocked(*args: object, **kwargs: object) -> list[object]:
        released.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no network")

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    began = time.monotonic()
    try:
        with pytest.raises(DataError, match="no answer within"):
            fetch(
                ["http://mirror.invalid/file"],
                tmp_path / "file",
                check,
                console=console,
                limits=LIMITS,
                connect_seconds=0.3,
            )
        assert time.monotonic() - began < 20  # the look-up takes 30
    finally:
        released.set()


def test_a_cache_that_cannot_be_written_to_is_one_sentence(
    tmp_path: Path, console: Console
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        fetch([], tmp_path / "file" / "file", check, console=console, limits=LIMITS)


QUICK = Limits(most_bytes=len(CONTENT), least_speed=1 << 16, seconds=60)


def test_a_mirror_that_drips_is_given_up_and_the_next_one_asked(
    start: Start, tmp_path: Path, console: Console
) -> None:
    slow, right = start(Mirror(drip=0.02)), start(Mirror())
    began = time.monotonic()
    fetch([slow.url, right.url], tmp_path / "file", check, console=console, limits=QUICK)
    assert time.monotonic() - began < 30
    with pytest.raises(DataError, match="slower than 65536 bytes a second"):
        fetch([slow.url], tmp_path / "other", check, console=console, limits=QUICK)
    assert not (tmp_path / "other.part").exists()  # nothing came


def test_all_mirrors_together_have_so_many_seconds(
    start: Start, tmp_path: Path, console: Console
) -> None:
    slow = [start(Mirror(drip=0.02)).url for _ in range(2)]
    patient = Limits(most_bytes=len(CONTENT), least_speed=1, seconds=0.5)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"not done within 0\.5 seconds"):
        fetch(slow, tmp_path / "file", check, console=console, limits=patient)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "mirror", [Mirror(endless=True), Mirror(length="1" + 18 * "0"), Mirror(content=CONTENT + b"x")]
)
def test_more_than_the_file_may_have_is_refused_and_nothing_is_left(
    mirror: Mirror, start: Start, tmp_path: Path, console: Console
) -> None:
    with pytest.raises(DataError, match=f"more than the {len(CONTENT):,} "):
        fetch([start(mirror).url], tmp_path / "file", check, console=console, limits=QUICK)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_a_file_that_the_server_packs_anew_is_refused(
    start: Start, tmp_path: Path, console: Console
) -> None:
    with pytest.raises(DataError, match="packed anew"):
        fetch(
            [start(Mirror(coding="gzip")).url],
            tmp_path / "file",
            check,
            console=console,
            limits=QUICK,
        )


@pytest.mark.parametrize("length", ["-5", "9" * 400, "x"])
def test_a_length_that_is_none_is_not_believed(
    length: str, start: Start, tmp_path: Path, console: Console
) -> None:
    with suppress(DataError):
        fetch(
            [start(Mirror(length=length)).url],
            tmp_path / "file",
            check,
            console=console,
            limits=QUICK,
        )
        check(tmp_path / "file")


def test_the_environment_sets_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits(5) == Limits(5)
    monkeypatch.setenv(SPEED_VARIABLE, "10")
    monkeypatch.setenv(SECONDS_VARIABLE, "2.5")
    assert limits(5) == Limits(5, least_speed=10, seconds=2.5)
    for text in ("0", "-1", "nan", "inf", "fast"):
        monkeypatch.setenv(SPEED_VARIABLE, text)
        with pytest.raises(DataError, match=f"{SPEED_VARIABLE} is '{text}'"):
            limits(5)
