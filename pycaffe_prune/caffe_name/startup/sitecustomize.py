"""What Python reads as it starts under ``caffe-prune python``: ``caffe`` is pycaffe_prune's.

The folder of this file stands first in ``PYTHONPATH``, so that the processes which a script starts
read it too. The environment's own ``sitecustomize`` is read after it.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path

_HERE = Path(__file__).parent

if find_spec("pycaffe_prune") is not None:  # or it is another environment's Python
    from pycaffe_prune.caffe_name.finder import install

    install()
sys.path[:] = [folder for folder in sys.path if Path(folder) != _HERE]  # as python leaves it
_own = PathFinder.find_spec("sitecustomize")
if _own is not None and _own.loader is not None:
    sys.modules["sitecustomize"] = module_from_spec(_own)
    _own.loader.exec_module(sys.modules["sitecustomize"])
