import pytest

from pycaffe_prune.reports.paper.claims import CLAIMS, CROSS_CLAIMS, NOTES
from pycaffe_prune.reports.paper.figures_and_tables import (
    BASELINES,
    FIGURES,
    NETWORKS,
    TABLE_1,
    TABLE_5,
)
from pycaffe_prune.reports.plot import ticks


@pytest.mark.parametrize("name", list(NETWORKS))
def test_shares_of_tables_2_to_4_follow_from_their_weights(name: str) -> None:
    network = NETWORKS[name]
    for layer in network.layers:
        # printed with two decimals; the CaffeNet's are from rounded weights
        assert 100 * layer.weights / network.weights == pytest.approx(layer.share, abs=0.011)
    assert set(network.fully_connected) <= {layer.layer for layer in network.layers}


@pytest.mark.parametrize(
    ("name", "weights", "fc_weights"),
    [
        ("lenet-300-100", 266_200, 266_200),
        ("lenet-5", 430_500, 405_000),
        ("caffenet-oxford102", 57_276_448, 54_943_744),
    ],
)
def test_totals_are_the_printed_ones(name: str, weights: int, fc_weights: int) -> None:
    assert (NETWORKS[name].weights, NETWORKS[name].fc_weights) == (weights, fc_weights)


def test_all_fc_of_table_5_is_the_weighted_mean_of_its_layers() -> None:
    network = NETWORKS["caffenet-oxford102"]
    weights = {layer.layer: layer.weights for layer in network.layers}
    for row in TABLE_5:
        removed = (
            row.fc6 * weights["fc6"] + row.fc7 * weights["fc7"] + row.fc8 * weights["fc8"]
        ) / network.fc_weights
        assert removed == pytest.approx(row.all_fc, abs=0.011)


def test_accuracies_of_table_5_are_whole_numbers_of_6200_images() -> None:
    # test_iter 124 times batch 50
    for row in TABLE_5:
        correct = round(row.accuracy * 62)
        assert round(correct / 62, 2) == row.accuracy


def test_table_5_is_by_rising_alpha_and_reduction() -> None:
    assert [row.alpha for row in TABLE_5] == sorted({row.alpha for row in TABLE_5})
    assert [row.all_fc for row in TABLE_5] == sorted({row.all_fc for row in TABLE_5})


@pytest.mark.parametrize("name", list(FIGURES))
def test_ticks_run_from_end_to_end(name: str) -> None:
    for axis in (FIGURES[name].x, FIGURES[name].y):
        values = ticks(axis)
        assert values[0] == axis.low
        assert values[-1] == axis.high


def test_small_models_are_in_the_lenets_figures_only() -> None:
    assert [name for name, figure in FIGURES.items() if "small" in figure.curves] == [
        "lenet-300-100",
        "lenet-5",
    ]


def test_every_table_knows_the_same_experiments() -> None:
    assert set(NETWORKS) == set(FIGURES) == set(BASELINES)
    transfer = {"transfer_squeezenet_oxford102"}  # ours, not the paper's
    assert set(CLAIMS) - set(NETWORKS) == transfer == set(NOTES)
    assert all(set(names) <= set(CLAIMS) for names in CROSS_CLAIMS.values())


def test_table_1_gives_the_lenets_the_totals_of_tables_2_and_3() -> None:
    printed = {row.network: row.parameters for row in TABLE_1}
    for name in ("lenet-300-100", "lenet-5"):
        network = NETWORKS[name]
        # in thousands; LeNet-5's 430.5K is printed as 431K
        assert abs(printed[network.title] - network.weights) <= 500
