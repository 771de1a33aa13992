import pytest

from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter
from pycaffe_prune.formats.prototxt_walk import Piece, cut_unknown

NET = NetParameter.DESCRIPTOR
LAYER = (("layer", 0),)


def pieces(text: str) -> list[Piece]:
    return cut_unknown(text, NET)[1]


@pytest.mark.parametrize(
    "field",
    [
        "fork: 1",
        "fork: -1.5e-3",
        "fork : [1, 2, 3]",
        "fork: []",
        'fork: "a } b # c" \'"\'',
        "fork: MKL2017",
        "fork { order: 0 inner < a: '}' > }",
        "fork: { a { } }",
        "fork <\n  # } in a comment\n  a: [ { b: 1 }, < c: 2 > ]\n>",
        "phase: VALIDATION",
        "top { x: 1 }",
        "include: 3",
        "convolution_param: 7",
    ],
)
@pytest.mark.parametrize("opening", ["layer {", "layer: <", "layer: [ {"])
@pytest.mark.parametrize("mark", ["", ",", ";"])
def test_a_field_that_caffe_does_not_know_is_cut_out_of_its_message(
    field: str, opening: str, mark: str
) -> None:
    closing = {"layer {": "}", "layer: <": ">", "layer: [ {": "} ]"}[opening]
    text = f"name: 'n'\n{opening} name: 'a' {field}{mark} type: 'b' # {{\n{closing} state {{ }}"
    rest, found = cut_unknown(text, NET)
    assert found == [Piece(LAYER, field, 2)]
    assert field not in rest
    assert [len(line) for line in rest.split("\n")] == [len(line) for line in text.split("\n")]
    assert "name: 'a'" in rest
    assert "type: 'b'" in rest


@pytest.mark.parametrize(
    "text",
    [
        "layer { phase: TEST convolution_param { pad: [1, 2] pad: 3 engine: CUDNN } }",
        "layer { phase: 1 top: ['a', 'b'] include { } include { } blobs_lr: }",
        "layer { fork: 1 ] }",
        "layer { fork: } }",
        "layer { fork { a: [1 } }",
        "fork: 1 layer {",
        'layer { fork: "not closed }',
        "fork }",
        "} fork: 1",
        "fork 1 2",
    ],
)
def test_nothing_is_cut_where_all_is_known_or_the_grammar_is_broken(text: str) -> None:
    assert cut_unknown(text, NET) == (text, [])


def test_a_field_that_may_stand_once_is_kept_once() -> None:
    text = "layer { name: 'a' name: 'b' pooling_param { pad: 1 } pooling_param { fork: 1 } }"
    assert pieces(text) == [
        Piece(LAYER, "name: 'b'", 1),
        Piece(LAYER, "pooling_param { fork: 1 }", 1),
    ]


def test_a_message_is_found_by_its_place_among_those_of_its_name() -> None:
    text = "layer { } layer: [ { f: 1 }, { param { } param { f: 2 } } ] state { } layer { f: 3 }"
    assert pieces(text) == [
        Piece((("layer", 1),), "f: 1", 1),
        Piece((("layer", 2), ("param", 1)), "f: 2", 1),
        Piece((("layer", 3),), "f: 3", 1),
    ]


def test_the_layers_of_a_solver_s_net_are_walked_too() -> None:
    _, found = cut_unknown("net_param { layer { f: 1 } } larc: true", SolverParameter.DESCRIPTOR)
    assert found == [Piece((("net_param", 0), ("layer", 0)), "f: 1", 1), Piece((), "larc: true", 1)]


def test_a_block_loses_the_indentation_of_its_file() -> None:
    text = "layer {\n    fork {\n      a: 1\n        # deeper\n    }\n}"
    assert pieces(text) == [Piece(LAYER, "fork {\n  a: 1\n    # deeper\n}", 2)]


def test_escapes_of_bytes_that_are_not_utf8_are_written_out() -> None:
    rest, _ = cut_unknown(r"name: 'caf\351 \346\226\207 \xe9\\351' fork: 1", NET)
    assert (
        rest.split(" fork")[0].rstrip() == "name: 'caf\U0010ffe9 \\346\\226\\207 \U0010ffe9\\\\351'"
    )
