"""Where Python begins when it is given the folder's path."""

import os
import sys

# For this one import: with `engines/` on the path for good, its modules would hide others.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
from caffe_worker.tasks import main  # noqa: E402  (see above)

del sys.path[0]
main(*sys.argv[1:])
