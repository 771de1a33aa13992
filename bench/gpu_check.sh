#!/usr/bin/env bash
# All that waits for a GPU, in one command: `make gpu-check`. Each step goes on only when the one
# before has worked; what is done is not done again, so typing it again goes on. In pieces:
#     LIMIT=540 make gpu-check        ends after so many seconds, wherever it is
# Without Caffe on this machine name runs of it that were made elsewhere (docs/engines.md):
#     TRAJECTORIES=DIR make gpu-check
# On a machine without a GPU it can be tried out, with small numbers:
#     DEVICE=cpu ITERATIONS=3 BENCH_ARGS='--case lenet --turns 1 --packs' EXPERIMENTS= make gpu-check
# Measures and reports go to OUT (results/gpu/CARD), runs to WORK (runs/gpu/CARD).
set -euo pipefail
cd "$(dirname "$0")/.."

BIN=.venv/bin
DEVICE=${DEVICE:-cuda}
ITERATIONS=${ITERATIONS:-1000}
NETWORKS=${NETWORKS-lenet_300_100 lenet}
BENCH_ARGS=${BENCH_ARGS:-}
EXPERIMENTS=${EXPERIMENTS-lenet-300-100 lenet-5}
PRESET=${PRESET:-paper}
PACK=${PACK:-64}
DATA=${DATA:-data/mnist}
TRAJECTORIES=${TRAJECTORIES:-}
LIMIT=${LIMIT:-}
export COLUMNS=100

card=$($BIN/python - "$DEVICE" <<'PYTHON'
import re, sys
import torch
device = torch.device(sys.argv[1])
if device.type == "cuda" and not torch.cuda.is_available():
    sys.exit(f"PyTorch {torch.__version__} sees no CUDA device; `caffe-prune doctor` tells why")
name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
print(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
PYTHON
)
OUT=${OUT:-results/gpu/$card}
WORK=${WORK:-runs/gpu/$card}
mkdir -p "$OUT" "$WORK/done"

step() { # NAME COMMAND…: runs a command once, for as long as there is time
    local name=$1
    shift
    # Another command is another step: a mark holds the one that it stands for.
    if [ -e "$WORK/done/$name" ] && [ "$(cat "$WORK/done/$name")" = "$*" ]; then
        echo "== $name: done before"
        return
    fi
    echo "== $name: $*"
    local within=()
    if [ -n "$LIMIT" ]; then
        local left=$((LIMIT - SECONDS))
        if [ "$left" -le 0 ]; then
            echo "the $LIMIT seconds are over; type it again to go on" >&2
            exit 1
        fi
        within=(timeout --signal=INT --kill-after=60 "$left")
    fi
    "${within[@]}" "$@" | tee "$WORK/$name.txt"
    echo "$*" > "$WORK/done/$name"
}

report() { # NAME: keeps what a step has printed
    cp "$WORK/$1.txt" "$OUT/$1.txt"
}

step data $BIN/caffe-prune data mnist --out "$DATA" ${SOURCE:+--source "$SOURCE"}
step doctor $BIN/caffe-prune doctor
$BIN/python - "$DEVICE" > "$OUT/machine.txt" <<'PYTHON'
import os, platform, sys
import torch
device = torch.device(sys.argv[1])
print(f"Python {platform.python_version()}, PyTorch {torch.__version__}")
print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPU cores")
if device.type == "cuda":
    card = torch.cuda.get_device_properties(device)
    print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, "
          f"cuDNN {torch.backends.cudnn.version()}")
PYTHON
step tests $BIN/pytest -q -p no:cacheprovider tests/engines/torch/test_cuda.py \
    tests/engines/torch/test_recorded.py
report tests

for network in $NETWORKS; do
    place=$WORK/parity/$network
    if [ -n "$TRAJECTORIES" ] && [ ! -e "$place" ]; then
        mkdir -p "$WORK/parity"
        cp -r "$TRAJECTORIES/$network" "$place.partial"
        mv "$place.partial" "$place"
    fi
    step "parity-$network" $BIN/caffe-prune verify --engines caffe,torch --device "$DEVICE" \
        --solver "solvers/$network.prototxt" --data "$DATA" --iterations "$ITERATIONS" \
        --out "$place"
    report "parity-$network"
done

# shellcheck disable=SC2086  # the options are words
step bench $BIN/python bench/engines.py --device "$DEVICE" --data "$DATA" $BENCH_ARGS
report bench

for experiment in $EXPERIMENTS; do
    name=$(basename "$experiment" .toml)-$PRESET
    step "$name" $BIN/caffe-prune reproduce "$experiment" --preset "$PRESET" --engine torch \
        --device "$DEVICE" --pack "$PACK" --data "$DATA" --out "$WORK/$name"
    mkdir -p "$OUT/$name"
    cp "$WORK/$name"/{result.json,report.*,figure.*} "$OUT/$name"
done
echo "all done: $OUT"
