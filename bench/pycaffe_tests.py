"""BVLC's own tests of pycaffe against pycaffe on the engine torch.

They are not part of this project: name a checkout of theirs. They need six, and for the pictures of
nets pydot and Graphviz. Run with: .venv/bin/python bench/pycaffe_tests.py --pycaffe-tests DIR
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import unittest
from pathlib import Path

from pycaffe_prune.caffe_name.finder import installed

OLD_NAMES = {"assertEquals": "assertEqual", "assertRaisesRegexp": "assertRaisesRegex"}
"""What they call, by the names that unittest had up to Python 3.11."""


def main() -> None:
    """Run the tests, and exit with 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pycaffe-tests",
        type=Path,
        required=True,
        metavar="DIR",
        help="a checkout of BVLC/caffe, or its python/caffe/test",
    )
    parser.add_argument("--only", default="test_*.py", help="files, by a pattern")
    options = parser.parse_args()
    folder = folder_of(options.pycaffe_tests.resolve())
    if importlib.util.find_spec("six") is None:
        sys.exit("the tests import six: pip install six")
    for old, new in OLD_NAMES.items():
        setattr(unittest.TestCase, old, getattr(unittest.TestCase, new))
    with tempfile.TemporaryDirectory() as scratch, installed():
        os.chdir(scratch)  # snapshots come here
        suite = unittest.defaultTestLoader.discover(str(folder), options.only)
        result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
        os.chdir(folder)
    failed = [str(test) for test, _ in (*result.failures, *result.errors)]
    print(f"{result.testsRun - len(failed)} of {result.testsRun} passed")
    sys.exit(bool(failed) or not result.testsRun)


def folder_of(checkout: Path) -> Path:
    """Return the folder of the tests in a checkout, or the folder itself."""
    for folder in (checkout / "python/caffe/test", checkout):
        if any(folder.glob("test_*.py")):
            return folder
    sys.exit(f"{checkout}: has no tests of pycaffe (python/caffe/test)")


if __name__ == "__main__":
    main()
