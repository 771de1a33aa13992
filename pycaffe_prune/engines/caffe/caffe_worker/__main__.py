"""Where Python begins when it is given the folder's path."""

import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1

# Never outlive the engine: before anything that takes its time is imported. An engine that was gone
# before it could be asked for is told by standard input: it holds the other end.
ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
if select.select([0], [], [], 0)[0]:
    sys.exit("the engine is gone")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

# For this one import: with `engines/` on the path for good, its modules would hide others.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
from caffe_worker.tasks import main  # noqa: E402  (see above)

del sys.path[0]
main(*sys.argv[1:])
