import base64
import csv
import hashlib
import json
import operator
import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import Execution, ExperimentResult, Point
from pycaffe_prune.reports.outputs.html import command, flatten, points_csv, render_html
from pycaffe_prune.reports.paper.judge import judge

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
    found = re.search(r'<script type="application/json" id="run-1-data">(.*?)</script>', text, re.S)
    assert found is not None
    assert not set(found[1]) & set("<>&")  # nothing in it that an HTML parser would act on
    data = json.loads(found[1])
    assert set(data) == {"result", "csv"}
    return data["result"]


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
    plain = hostile.model_dump_json().replace(json.dumps(HOSTILE)[1:-1], len(HOSTILE) * "p")
    page, other = (
        _Page(render_html([result]))
        for result in (hostile, ExperimentResult.model_validate_json(plain))
    )
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in other.tags]
    assert [set(names) for _, names in page.tags] == [set(names) for _, names in other.tags]
    assert HOSTILE in "".join(page.text)
    assert _embedded(render_html([hostile])) == json.loads(hostile.model_dump_json())


@settings(deadline=None, max_examples=30)
@given(name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_the_embedded_data_is_the_result(point: Make, result_of: MakeResult, name: str) -> None:
    result = result_of([point("units", 250_000, 9_500, units={name: 3})], title=name)
    assert _embedded(render_html([result])) == json.loads(result.model_dump_json())


def test_nothing_is_asked_of_the_network(typical: ExperimentResult) -> None:
    page = _Page(render_html([typical]))
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "xlink:href"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, name)
    assert "url(" not in re.sub(r"url\(#", "", render_html([typical]))
    assert "@import" not in render_html([typical])
    policy = next(a for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy["content"].startswith("default-src 'none'")


def test_the_policy_names_the_checksum_of_the_one_script(typical: ExperimentResult) -> None:
    text = render_html([typical])
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert len(scripts) == 1
    checksum = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    wanted = f"script-src 'sha256-{checksum}'"
    assert wanted in [rule.strip() for rule in policy[1].split(";")]


def test_a_sample_is_the_first_thing_on_the_page(
    typical: ExperimentResult, sample: ExperimentResult
) -> None:
    body = render_html([sample]).split("<body>")[1]
    warning = body.index('<div class="warning" role="alert">⚠ SAMPLE DATA, NOT THE REAL DATA SET')
    assert warning < body.index("<header>")
    assert "SAMPLE DATA" not in render_html([typical])


def test_verdicts_rules_and_settings_are_on_the_page(typical: ExperimentResult) -> None:
    text = "".join(_Page(render_html([typical])).text)
    for entry in judge(typical):
        for words in (entry.claim.text, entry.claim.paper, entry.ours, entry.rule):
            assert words in text
    for words in ("connections.alphas", "0.9, 1.2", "A CPU", "1.19.5", "a" * 64, "12 min 34 s"):
        assert words in text
    assert command(typical) in text


def test_several_results_are_told_apart(
    typical: ExperimentResult, sample: ExperimentResult
) -> None:
    page = _Page(render_html([typical, sample]))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    named = {
        a[name] for _, a in page.tags for name in ("aria-labelledby", "data-source") if name in a
    }
    assert targets | named <= set(ids)
    assert {"run-1", "run-2", "run-2-data"} <= set(ids)


def test_headings_step_down_one_at_a_time(typical: ExperimentResult) -> None:
    levels = [
        int(tag[1]) for tag, _ in _Page(render_html([typical])).tags if re.fullmatch("h[1-6]", tag)
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_chart_names_its_table(with_net: ExperimentResult) -> None:
    text = render_html([with_net])
    charts = text.count('<svg class="chart"')
    assert charts == 6  # the paper's axes, own axes, four sizes
    assert text.count("The values as a table.") == charts


def test_the_csv_holds_every_point(typical: ExperimentResult) -> None:
    lines = list(csv.DictReader(StringIO(points_csv(typical))))
    assert len(lines) == len(typical.points)
    assert {line["after %"] for line in lines} == {
        f"{100 * p.accuracy:.2f}" for p in typical.points
    }


def _contrast(first: str, second: str) -> float:
    """WCAG 2's contrast ratio of two colours (#rgb or #rrggbb)."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * sign for sign in colour[1:])
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(map(operator.mul, (0.2126, 0.7152, 0.0722), linear))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_and_marks_stand_out_in_light_and_dark(typical: ExperimentResult, scheme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", render_html([typical]), re.S)[scheme]
    colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", block))
    for name in ("ink", "soft", "accent"):
        assert min(_contrast(colour[name], colour[on]) for on in ("page", "box")) >= 4.5, name
    for name in ("units", "connections", "small", "paper"):
        assert _contrast(colour[name], colour["page"]) >= 4.5, name
    for name in ("good", "bad", "wait"):
        assert _contrast(colour[name], colour[f"{name}-bg"]) >= 4.5, name


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


def test_added_up_times_of_packed_stages_are_not_told_as_time_that_was_spent(
    result_of: MakeResult,
) -> None:
    said = {
        pack: "".join(_Page(render_html([result_of([], execution=Execution(pack=pack))])).text)
        for pack in (1, 6)
    }
    assert all("times of all stages, added up" in text for text in said.values())
    whole = "each stage of a pack has its whole pack's"
    assert [whole in text for text in said.values()] == [False, True]


def test_the_command_tells_the_engine_what_it_was_told(result_of: MakeResult) -> None:
    execution = Execution(device="cuda:1", threads=2, tf32=True, pack=8)
    said = command(result_of([], engine="torch", execution=execution))
    assert "--engine torch" in said
    assert said.endswith("--device cuda:1 --threads 2 --pack 8 --tf32")
