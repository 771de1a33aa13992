"""Nets of one layer and its inputs."""

from collections.abc import Sequence


def input_layer(name: str, shape: Sequence[int]) -> str:
    dims = " ".join(f"dim: {extent}" for extent in shape)
    return (
        f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        f"input_param {{ shape {{ {dims} }} }} }}"
    )


def net_around(kind: str, bottoms: Sequence[Sequence[int]], settings: str, tops: int = 1) -> str:
    """A net of one layer and its inputs."""
    inputs = [input_layer(f"in{number}", shape) for number, shape in enumerate(bottoms)]
    reads = " ".join(f'bottom: "in{number}"' for number in range(len(bottoms)))
    writes = " ".join(f'top: "out{number}"' for number in range(tops))
    return "\n".join([*inputs, f'layer {{ name: "x" type: "{kind}" {reads} {writes} {settings} }}'])
