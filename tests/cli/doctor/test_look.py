from pathlib import Path

import pytest

from pycaffe_prune.cli.doctor.look import _is_writable, _nearest, container_kind


@pytest.mark.parametrize(
    ("traces", "environment", "kind"),
    [
        ([], {}, None),
        ([".dockerenv"], {}, "docker"),
        (["run/.containerenv"], {}, "podman"),
        (["run/.containerenv", ".dockerenv"], {}, "podman"),
        ([], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ([".dockerenv"], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
    ],
)
def test_a_container_is_told_by_its_traces(
    tmp_path: Path, traces: list[str], environment: dict[str, str], kind: str | None
) -> None:
    (tmp_path / "run").mkdir()
    for trace in traces:
        (tmp_path / trace).touch()
    assert container_kind(tmp_path, environment) == kind


def test_a_folder_yet_to_be_made_is_judged_by_its_nearest_parent(tmp_path: Path) -> None:
    assert _nearest(tmp_path) == tmp_path
    assert _nearest(tmp_path / "a/b") == tmp_path
    assert _is_writable(_nearest(tmp_path / "a/b"))
    assert list(tmp_path.iterdir()) == []  # trying it out leaves nothing


def test_what_refuses_even_root_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not _is_writable(_nearest(tmp_path / "file/cache"))
    assert not _is_writable(Path("/proc"))
