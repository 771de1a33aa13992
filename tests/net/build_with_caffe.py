"""Build a net in the real Caffe in several states and print each one's layers as a JSON list.

Runs under Caffe's own Python, which may be much older than ours:
build_with_caffe.py NET.prototxt STATES.json, where each state is [phase, level, [stage, ...]].
"""

import json
import sys
from pathlib import Path

import caffe

states = json.loads(Path(sys.argv[2]).read_text())
found = []
for phase, level, stages in states:
    net = caffe.Net(sys.argv[1], phase, level=level, stages=stages)
    # Caffe inserts layers that copy a blob to each of its readers.
    found.append([name for name in net._layer_names if not name.endswith("_split")])
sys.stdout.write(json.dumps(found))
