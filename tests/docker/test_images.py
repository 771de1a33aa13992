"""What the files of the container images promise each other and the package."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pycaffe_prune.cli import cli
from pycaffe_prune.engines.caffe.prefix import RELEASE, launcher_of

ROOT = Path(__file__).parents[2]
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
ON_GPU = yaml.safe_load((ROOT / "docker/compose.gpu.yaml").read_text())
PYPROJECT = ROOT / "pyproject.toml"


def instructions(file: Path, name: str) -> list[str]:
    """The arguments of every ``name`` of a Dockerfile, lines that go on joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE))
    return re.findall(rf"^{name} +(.*)$", text, flags=re.MULTILINE)


@pytest.fixture(params=IMAGES, ids=lambda file: file.name.removesuffix(".Dockerfile"))
def image(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_three_images() -> None:
    assert [file.stem for file in IMAGES] == ["caffe-cuda", "cpu", "torch-cuda"]


def test_an_image_runs_caffe_prune_as_nobody_in_particular(image: Path) -> None:
    if image.stem == "caffe-cuda":  # it is the CPU image, and adds to it
        assert instructions(image, "FROM")[-1] == "${CPU_IMAGE}"
        assert not instructions(image, "USER")
        return
    assert instructions(image, "USER")[-1] == "1000:1000"
    assert instructions(image, "ENTRYPOINT") == ['["caffe-prune"]']
    assert instructions(image, "VOLUME") == ['["/data", "/runs"]']
    assert instructions(image, "WORKDIR")[-1] == "/"


def test_what_is_copied_into_an_image_is_there_and_not_ignored(image: Path) -> None:
    wanted = [
        name
        for words in instructions(image, "COPY")
        if not words.startswith("--from")
        for name in words.split()[:-1]
        if name != "."
    ]
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    for name in wanted:
        assert (ROOT / name).is_file()
        assert f"!{name}" in kept


def test_all_that_pip_builds_the_package_from_is_given_to_the_images() -> None:
    build = tomllib.loads(PYPROJECT.read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert kept[1] == "*"
    for name in [*build["packages"], *build["force-include"], *project["license-files"]]:
        assert f"!{name}" in kept
    assert f"!{project['readme']}" in kept


def test_the_extras_of_an_image_are_those_of_the_package(image: Path) -> None:
    extras = re.findall(r"requirements\.py ([\w ]+) <", image.read_text())
    if image.stem == "caffe-cuda":
        assert not extras
        return
    (names,) = extras
    found = subprocess.run(
        [sys.executable, ROOT / "docker/requirements.py", *names.split()],
        input=PYPROJECT.read_text(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    optional = project["optional-dependencies"]
    expected = [
        *project["dependencies"],
        *(one for name in names.split() for one in optional[name]),
    ]
    assert [line for line in found if line] == expected
    assert not any(re.match(r"torch\b", line) for line in found), "the base brings PyTorch"


def test_the_images_caffe_lies_where_they_say_it_does() -> None:
    (environment,) = instructions(ROOT / "docker/cpu.Dockerfile", "ENV")
    assert f"CAFFE_PYTHON={launcher_of(Path('/opt/caffe'))}" in environment.split()
    cuda = (ROOT / "docker/caffe-cuda.Dockerfile").read_text()
    assert f"debian:{RELEASE}-slim" in cuda
    assert "COPY --from=caffe /src/prefix /opt/caffe\n" in cuda


def test_compose_knows_an_image_for_each_dockerfile() -> None:
    services = COMPOSE["services"].values()
    assert {service["image"] for service in services} == {"pycaffe-prune:${IMAGE:-cpu}"}
    for service in services:
        assert service["build"]["dockerfile"] == "docker/${IMAGE:-cpu}.Dockerfile"


def test_compose_confines_every_service() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["volumes"] == ["./data:/data", "./runs:/runs"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is seen from other machines"


def test_nothing_that_runs_code_for_others_is_published() -> None:
    for name in ("scheduler", "worker", "sweep"):
        assert "ports" not in COMPOSE["services"][name]
        assert COMPOSE["services"][name]["profiles"] == ["cluster"]


@pytest.mark.parametrize("name", ["reproduce", "sweep"])
def test_compose_gives_commands_that_there_are(name: str) -> None:
    service = COMPOSE["services"][name]
    program, *words = [*service["entrypoint"], *service["command"], "--help"]
    assert program == "caffe-prune"
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["scheduler", "worker"])
def test_compose_gives_options_that_dask_has(name: str) -> None:
    dask = pytest.importorskip(f"distributed.cli.dask_{name}")
    service = COMPOSE["services"][name]
    gpu = ON_GPU["services"].get(name, {}).get("command", [])
    program, subcommand, *words = [*service["entrypoint"], *service["command"], *gpu]
    assert (program, subcommand) == ("dask", name)
    context = dask.main.make_context(name, list(words))
    assert context.params["port" if name == "scheduler" else "nthreads"] in ("8786", 1)


def test_workers_and_sweep_look_for_the_scheduler_by_its_name_and_port() -> None:
    services = COMPOSE["services"]
    port = services["scheduler"]["entrypoint"][-2]
    for name in ("worker", "sweep"):
        assert f"tcp://scheduler:{port}" in services[name]["entrypoint"]


def test_gpus_are_for_services_that_there_are() -> None:
    assert ON_GPU["services"].keys() <= COMPOSE["services"].keys()
    for service in ON_GPU["services"].values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_verify_says_what_it_needs_before_it_begins(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docker/verify", "--work", tmp_path / "work"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs root and buildah, bwrap, debootstrap" in done.stderr
    assert not (tmp_path / "work").exists()
