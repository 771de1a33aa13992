"""What pages show runs: each block of commands or Python, or it says why not."""

import gzip
import re
import struct
import tomllib
from pathlib import Path

import pytest

from tests.docs.page_blocks import ROOT, Block, Mark, blocks_of, commands_of, read_marks
from tests.docs.page_shell import PageShell, Run, is_as_shown, is_to_fail
from tests.docs.test_site import load

PAGES = sorted(page for page in load("build").site_files() if page.suffix == ".md")
BLOCKS = {page: blocks_of(page) for page in PAGES}
RUN = [page for page in PAGES if any(block.is_run for block in BLOCKS[page])]
LANGUAGES = {"console", "python", "toml", "yaml", "prototxt", "text", ""}
_COMMAND = re.compile(r"^\s*(\$|(\S*/)?(caffe-prune|python|pip|make)) \S", re.MULTILINE)

_MODELS = (
    "lenet/lenet_iter_10000.caffemodel",
    "cifar10_quick/cifar10_quick_iter_5000.caffemodel",
    "squeezenet/squeezenet_v1.0_pruned.caffemodel",
)
_OF_DATA_DIR = ("mnist", "imagenet_mean", "flowers102", *(Path(name).name for name in _MODELS))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_says_what_it_is(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.count("\n```") == 2 * len(BLOCKS[page]), "a fence begins a line, and is closed"
    outside = text
    for block in BLOCKS[page]:
        outside = outside.replace(block.text, "")
    assert "\n\n    " not in outside, "code stands in fences, which say its language"
    for block in BLOCKS[page]:
        assert block.language in LANGUAGES, block.place
        if block.language == "console":
            assert block.text.startswith("$ "), f"{block.place}: it begins with a prompt"
        if block.language in ("text", ""):
            assert not _COMMAND.search(block.text), f"{block.place}: commands are console blocks"
        if block.language == "toml":
            tomllib.loads(block.text)
        if (mark := block.marked("run_by")) is not None:
            assert page.name in (ROOT / mark.what).read_text("utf-8"), block.place


@pytest.fixture(scope="session")
def page_data(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data sets' folder with 2,000 and 1,000 of MNIST's images, which are trained on fast."""
    folder = tmp_path_factory.mktemp("page_data")
    for path in data_dir.iterdir():
        if path.name != "mnist":
            (folder / path.name).symlink_to(path)
    (folder / "mnist").mkdir()
    for part, images in (("train", 2000), ("t10k", 1000)):
        for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
            name = f"mnist/{part}-{kind}-ubyte.gz"
            content = gzip.decompress((data_dir / name).read_bytes())
            size = (len(content) - header) // struct.unpack(">I", content[4:8])[0]
            few = content[:4] + struct.pack(">I", images) + content[8 : header + images * size]
            (folder / name).write_bytes(gzip.compress(few, 1))
    return folder


@pytest.fixture
def page_folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder that a page's commands are given in: the repository's, and the Zoo's models."""
    monkeypatch.delenv("COLUMNS", raising=False)  # xdist's workers have one
    folder = tmp_path / "page"
    folder.mkdir()
    for name in ("prototxt", "solvers", "experiments"):
        (folder / name).symlink_to(ROOT / name)
    page: Path = request.getfixturevalue("page")
    run = [block for block in BLOCKS[page] if block.is_run]
    text = "".join(block.text + "".join(mark.what for mark in block.marks) for block in run)
    if any(name in text for name in _OF_DATA_DIR):
        data: Path = request.getfixturevalue("page_data")
        monkeypatch.setenv("PYCAFFE_PRUNE_DATA", str(data))
        for name in _MODELS:
            (folder / Path(name).name).symlink_to(data / "zoo" / name)
    if "\ncaffe " in text or "caffe,torch" in text or "--engine caffe" in text:
        request.getfixturevalue("caffe_python")
    return folder


def said(run: Run) -> str:
    return f"{run.block.place}: $ {run.command.text}{run.output}(exit code {run.code})"


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_blocks_of_a_page_run_and_print_what_it_shows(page: Path, page_folder: Path) -> None:
    room = page_folder.parent / "room"
    room.mkdir()
    ran = PageShell(page_folder, room).run(BLOCKS[page])
    failed = [said(run) for run in ran if (run.code != 0) != is_to_fail(run.command)]
    assert not failed, "\n".join(failed)
    others = [f"{said(run)}\nshown:\n{run.command.shown}" for run in ran if not is_as_shown(run)]
    assert not others, "\n".join(others)


def test_few_blocks_are_not_run() -> None:
    runnable = [
        block
        for blocks in BLOCKS.values()
        for block in blocks
        if block.language in ("console", "python")
    ]
    skipped = [block.place for block in runnable if block.marked("not_run")]
    assert len(runnable) > 80
    assert len(skipped) <= len(runnable) * 2 // 5, skipped


def block(language: str, text: str, *marks: Mark, follows: str = "") -> Block:
    return Block("a page:1", language, text, marks, follows)


def ran(tmp_path: Path, *blocks: Block) -> list[Run]:
    (tmp_path / "page").mkdir()
    return PageShell(tmp_path / "page", tmp_path).run(blocks)


def test_a_shell_keeps_variables_folders_names_and_exit_codes(tmp_path: Path) -> None:
    runs = ran(
        tmp_path,
        block("python", "kept = 3", Mark("file", "kept.py", "")),
        block(
            "console", "$ NAME='a  b' && mkdir x && cd x\n$ false\n$ echo $? \\\n    $NAME\n1 a b\n"
        ),
        block("console", "$ caffe-prune --version | cut -c 1-11 >out; cat out\ncaffe-prune\n"),
        block("console", "$ caffe-prune prune unit 2>&1\n$ cat ../kept.py\nkept = 3\n"),
        block("python", "one = 1\nprint(one)\n"),
        block("text", "1\n", follows="python"),
        block("python", "print(one + 1 / 0)\n"),
        block("console", "$ exit 3\n", Mark("not_run", "", "it would end")),
    )
    assert [run.code for run in runs] == [0, 1, 0, 0, 2, 0, 0, 1]
    assert all(is_as_shown(run) for run in runs)
    assert "ZeroDivisionError" in runs[-1].output


@pytest.mark.parametrize(
    ("shown", "output", "varies", "same"),
    [
        ("a 1,000\n", "a   1,000\n", False, True),
        ("a 1,000\n", "a 1,001\n", False, False),
        ("a 1,000\n", "a 1,001\n", True, True),
        ("a 1e-05 same\n", "b 1e-05 same\n", True, False),
        ("…\nlast\n", "first\nsecond\nlast\n", False, True),
        ("first\n...\n", "first\nsecond\nlast\n", False, True),
        ("first\n", "first\nsecond\n", False, False),
        ("", "anything\n", False, True),
    ],
)
def test_output_is_compared_word_by_word(shown: str, output: str, varies: bool, same: bool) -> None:
    marks = [Mark("vary", "", "by machine")] if varies else []
    [command] = commands_of(f"$ x\n{shown}")
    assert is_as_shown(Run(block("console", "", *marks), command, output, 0)) == same


def test_a_comment_that_is_no_mark_is_named() -> None:
    for comment in ("not run:", "not run", "run with: slow", "ignore"):
        with pytest.raises(AssertionError, match="is no mark"):
            list(read_marks(f"<!-- {comment} -->\n", "a page:1"))
