import json

from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.outputs.summary import report_json
from pycaffe_prune.reports.paper.judge import judge


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_the_json_has_every_point_and_verdict(
    any_result: st.SearchStrategy[ExperimentResult], data: st.DataObject
) -> None:
    result = data.draw(any_result)
    (found,) = json.loads(report_json([result]))["results"]
    assert len(found["points"]) == len(result.points)
    assert [(entry["name"], entry["verdict"], entry["ours"]) for entry in found["claims"]] == [
        (entry.claim.name, entry.verdict, entry.ours) for entry in judge(result)
    ]


def test_results_stand_in_their_order_with_their_sizes(
    typical: ExperimentResult, with_net: ExperimentResult
) -> None:
    found = json.loads(report_json([typical, with_net]))
    assert [bool(result["sizes"]) for result in found["results"]] == [False, True]
    assert [entry["verdict"] for entry in found["claims_about_two_networks"]] == ["not run"]
