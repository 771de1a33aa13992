import json
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import Execution, ExperimentResult, Point
from pycaffe_prune.reports.compare import judge
from pycaffe_prune.reports.html import chart, command, flatten, render_html
from pycaffe_prune.reports.plot import own_plot, plot_of

Make = Callable[..., Point]
MakeResult = Callable[..., ExperimentResult]
Results = st.SearchStrategy[ExperimentResult]


class _Page(HTMLParser):
    """Every tag with its attributes, and the text of elements by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _embedded(text: str) -> object:
    found = re.search(r'<script type="application/json" id="result">(.*?)</script>', text, re.S)
    assert found is not None
    assert not set(found[1]) & set("<>&")  # nothing in it that an HTML parser would act on
    return json.loads(found[1])


HOSTILE = "</script </script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--"


def test_hostile_names_stay_text(point: Make, result_of: MakeResult) -> None:
    hostile = result_of(
        [point("baseline", 0, 9_800), point("units", 250_000, 9_500, units={HOSTILE: 3})],
        title=HOSTILE,
        preset=HOSTILE,
        engine=HOSTILE,
        versions={HOSTILE: HOSTILE},
        settings={HOSTILE: {HOSTILE: [HOSTILE]}},
    )
    plain = hostile.model_dump_json().replace(json.dumps(HOSTILE)[1:-1], "plain")
    page, other = (
        _Page(render_html(result))
        for result in (hostile, ExperimentResult.model_validate_json(plain))
    )
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in other.tags]
    assert [set(names) for _, names in page.tags] == [set(names) for _, names in other.tags]
    assert HOSTILE in "".join(page.text)
    assert _embedded(render_html(hostile)) == json.loads(hostile.model_dump_json())


@settings(deadline=None, max_examples=30)
@given(name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_the_embedded_data_is_the_result(point: Make, result_of: MakeResult, name: str) -> None:
    result = result_of([point("units", 250_000, 9_500, units={name: 3})], title=name)
    assert _embedded(render_html(result)) == json.loads(result.model_dump_json())


def test_nothing_is_asked_of_the_network(typical: ExperimentResult) -> None:
    page = _Page(render_html(typical))
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "xlink:href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, name)
    assert "url(" not in re.sub(r"url\(#", "", render_html(typical))
    assert "@import" not in render_html(typical)
    policy = next(a for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy["content"].startswith("default-src 'none'")


def test_a_sample_is_the_first_thing_on_the_page(
    typical: ExperimentResult, sample: ExperimentResult
) -> None:
    body = render_html(sample).split("<body>")[1].lstrip()
    assert body.startswith('<div class="warning" role="alert">⚠ SAMPLE DATA, NOT MNIST')
    assert "SAMPLE DATA" not in render_html(typical)


def test_verdicts_rules_and_settings_are_on_the_page(typical: ExperimentResult) -> None:
    text = "".join(_Page(render_html(typical)).text)
    for entry in judge(typical):
        for words in (entry.claim.text, entry.claim.paper, entry.ours, entry.rule):
            assert words in text
    for words in ("connections.alphas", "0.9, 1.2", "A CPU", "1.19.5", "a" * 64, "12 min 34 s"):
        assert words in text
    assert command(typical) in text


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_every_point_in_the_axes_is_a_focusable_mark_inside_them(
    any_result: Results, data: st.DataObject
) -> None:
    result = data.draw(any_result)
    plot = plot_of(result)
    placed = chart(plot)
    marks = [mark for line in placed.lines for mark in line.marks]
    assert len(marks) == len(plot.inside)
    for mark in marks:
        assert placed.left <= mark.x <= placed.right
        assert placed.top <= mark.y <= placed.bottom
    points = [
        attributes
        for tag, attributes in _Page(render_html(result)).tags
        if tag == "g" and attributes.get("class", "").startswith("point ")
    ]
    assert all(point["tabindex"] == "0" and point["aria-label"] for point in points)
    labels = [point["aria-label"] for point in points]
    assert all(mark.label in labels for mark in marks)


def test_points_outside_the_papers_axes_have_a_second_chart(
    typical: ExperimentResult, result_of: MakeResult, point: Make
) -> None:
    plot = plot_of(typical)
    assert plot.outside
    shown = [mark for line in chart(plot).lines for mark in line.marks]
    assert len(shown) == len(plot.inside) == 11
    assert render_html(typical).count('<svg class="chart"') == 2
    assert len([m for line in chart(own_plot(typical)).lines for m in line.marks]) == 14
    inside = result_of([point("connections", 250_000, 9_500, alpha=1.5)])
    assert render_html(inside).count('<svg class="chart"') == 1


def test_higher_accuracy_is_drawn_higher_and_more_reduction_further_right(
    typical: ExperimentResult,
) -> None:
    for curve, line in zip(own_plot(typical).curves, chart(own_plot(typical)).lines, strict=True):
        by_x = sorted(zip(line.marks, curve.points, strict=True), key=lambda pair: pair[0].x)
        assert [row for _, row in by_x] == sorted(curve.points, key=lambda row: row.reduction)
        by_y = sorted(zip(line.marks, curve.points, strict=True), key=lambda pair: -pair[0].y)
        assert [row for _, row in by_y] == sorted(curve.points, key=lambda row: row.after)


def test_settings_are_flattened_to_dotted_names() -> None:
    nested = {"a": 1, "b": {"c": [1, 2], "d": {"e": None}}}
    assert list(flatten(nested)) == [("a", "1"), ("b.c", "1, 2"), ("b.d.e", "None")]


@pytest.mark.parametrize("preset", ["quick", "it's; rm -rf"])
def test_the_command_can_be_pasted(result_of: MakeResult, preset: str) -> None:
    import shlex

    words = shlex.split(command(result_of([], preset=preset)))
    assert words[:3] == ["caffe-prune", "reproduce", "lenet-300-100"]
    assert words[words.index("--preset") + 1] == preset
    assert words[-4:] == ["--engine", "caffe", "--jobs", "2"]


def test_the_command_tells_the_engine_what_it_was_told(result_of: MakeResult) -> None:
    execution = Execution(device="cuda:1", threads=2, tf32=True, pack=8)
    said = command(result_of([], engine="torch", execution=execution))
    assert "--engine torch" in said
    assert said.endswith("--device cuda:1 --threads 2 --pack 8 --tf32")
