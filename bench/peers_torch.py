"""PyTorch's side of `peers.py`: what its user writes, with torch.nn.utils.prune and Torch-Pruning.

store WEIGHTS.npz OUT.pt makes a checkpoint of what the others read from a caffemodel.
train NETWORK DATA WEIGHTS.pt ITERATIONS [MASKS] trains and tests.
delete prune|torch-pruning NETWORK WEIGHTS.pt OUT.pt LAYER... deletes half of each layer's units.
compare ONE.pt OTHER.pt tells whether both hold the same values.
"""

import json
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from peers_tasks import BATCH, IMAGES, SEQUENCES, TEST_BATCHES
from torch import Tensor, nn
from torch.nn.utils import prune

State = Mapping[str, Tensor]


def network(name: str, state: State) -> nn.Sequential:
    """Return a network as wide as some weights."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for layer, kind, told in SEQUENCES[name]:
        if kind == "pool":
            modules[layer] = nn.MaxPool2d(*told, ceil_mode=True)
        elif kind == "lrn":
            modules[layer] = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        elif kind == "flatten":
            modules[layer] = nn.Flatten()
        elif kind == "relu":
            modules[layer] = nn.ReLU(inplace=True)
        elif kind == "linear":
            outputs, inputs = state[f"{layer}.weight"].shape
            modules[layer] = nn.utils.skip_init(nn.Linear, inputs, outputs)
        else:
            outputs, inputs, kernel, _ = state[f"{layer}.weight"].shape
            stride, pad, groups = told
            sizes = (inputs * groups, outputs, kernel, stride, pad)
            modules[layer] = nn.utils.skip_init(nn.Conv2d, *sizes, groups=groups)
    net = nn.Sequential(modules)
    net.load_state_dict(state)
    return net


def store(arrays: str, out: str) -> None:
    """Write ``name.weight`` and ``name.bias`` of a .npz as a checkpoint."""
    with np.load(arrays) as held:
        torch.save({name: torch.from_numpy(held[name]) for name in held.files}, out)


def train(name: str, data: str, weights: str, iterations: str, masks: str | None = None) -> None:
    """Train by Caffe's settings and test; print what that took and gave as JSON."""
    net = network(name, torch.load(weights))
    if masks:
        with np.load(masks) as held:
            for layer in held.files:
                mask = torch.from_numpy(held[layer].astype(np.float32))
                prune.custom_from_mask(net.get_submodule(layer), "weight", mask)
    groups = [
        {"params": [value for key, value in net.named_parameters() if "weight" in key]},
        {"params": [value for key, value in net.named_parameters() if "bias" in key], "lr": 0.02},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=0.0005)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: (1 + 1e-4 * done) ** -0.75)
    batches = _batches(Path(data) / "train.npz", BATCH)
    wall, processors = time.perf_counter(), time.process_time()
    for _ in range(int(iterations)):
        images, labels = next(batches)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
        rate.step()
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - processors}
    if masks:
        for layer in held.files:
            prune.remove(net.get_submodule(layer), "weight")
    torch.save(net.state_dict(), Path(weights).with_name("trained.pt"))
    kept = sum(int(torch.count_nonzero(value)) for value in net.parameters())
    print(json.dumps({**took, "accuracy": _accuracy(net, Path(data)), "weights": kept}))


def _batches(path: Path, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches in the order of the file, round and round, pixels times 1/256."""
    with np.load(path) as held:
        images, labels = torch.from_numpy(held["images"]), torch.from_numpy(held["labels"])
    at = 0
    while True:
        places = torch.arange(at, at + size) % len(images)
        yield images[places].float().mul_(1 / 256), labels[places]
        at += size


@torch.no_grad()
def _accuracy(net: nn.Module, data: Path) -> float:
    batches = _batches(data / "test.npz", 100)
    right = 0
    for _ in range(TEST_BATCHES):
        images, labels = next(batches)
        right += int((net(images).argmax(dim=1) == labels).sum())
    return right / (100 * TEST_BATCHES)


def delete(way: str, name: str, weights: str, out: str, *layers: str) -> None:
    """Delete half of the units of layers; print how many weights are left as JSON."""
    net = network(name, torch.load(weights))
    if way == "prune":
        _by_prune(net, layers)
    else:
        _by_torch_pruning(net, torch.zeros(1, *IMAGES[name]), layers)
    torch.save(net.state_dict(), out)
    print(json.dumps({"weights": sum(value.numel() for value in net.parameters())}))


def _by_prune(net: nn.Sequential, layers: Iterable[str]) -> None:
    """torch.nn.utils.prune finds the units and puts zeros there; the rest is done by hand."""
    weighted = [key for key, module in net.named_children() if hasattr(module, "weight")]
    kept = {}
    for layer in layers:
        module = net.get_submodule(layer)
        prune.ln_structured(module, "weight", amount=0.5, n=1, dim=0)
        kept[layer] = module.weight_mask.flatten(1).any(dim=1).nonzero().flatten()
        prune.remove(module, "weight")
    for layer, rows in kept.items():
        module, after = (net.get_submodule(weighted[weighted.index(layer) + far]) for far in (0, 1))
        wide = after.weight.data.reshape(len(after.weight), len(module.bias), -1)[:, rows]
        module.weight = nn.Parameter(module.weight.data[rows])
        module.bias = nn.Parameter(module.bias.data[rows])
        after.weight = nn.Parameter(wide.reshape(len(wide), -1, *after.weight.shape[2:]))


def _by_torch_pruning(net: nn.Sequential, image: Tensor, layers: Iterable[str]) -> None:
    import torch_pruning  # only this peer needs it

    chosen = {net.get_submodule(layer): 0.5 for layer in layers}
    weighted = [module for module in net.children() if hasattr(module, "weight")]
    torch_pruning.pruner.BasePruner(
        net,
        image,
        importance=torch_pruning.importance.MagnitudeImportance(
            p=1, group_reduction="first", normalizer=None
        ),
        pruning_ratio_dict=chosen,
        ignored_layers=[module for module in weighted if module not in chosen],
    ).step()


def compare(one: str, other: str) -> None:
    """Print whether two checkpoints hold the same values as JSON."""
    first, second = torch.load(one), torch.load(other)
    same = first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )
    print(json.dumps({"same": same}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"store": store, "train": train, "delete": delete, "compare": compare}[sys.argv[1]](
        *sys.argv[2:]
    )
