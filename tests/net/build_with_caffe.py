"""Build a net in the real Caffe in several states and print each one's layers as a JSON list.

Runs under Caffe's own Python, which may be much older than ours:
build_with_caffe.py NET.prototxt STATES.json, where each state is [phase, level, [stage, ...]].
"""

import json
import re
import sys

import caffe

with open(sys.argv[2]) as file:
    states = json.load(file)
found = []
for phase, level, stages in states:
    net = caffe.Net(sys.argv[1], phase, level=level, stages=stages)
    # Caffe inserts layers that copy a blob to each of its readers.
    found.append([name for name in net._layer_names if not re.search(r"_split$", name)])
print(json.dumps(found))
