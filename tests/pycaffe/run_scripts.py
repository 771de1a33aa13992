"""Run pycaffe scripts one after another in this process: FOLDER SCRIPT... (Python 3.6 on).

Each runs in FOLDER/<its name>, where its output goes to stdout.txt and its traceback, should it
raise, to error.txt. What it may import lies in helpers/ beside this file.
"""

import contextlib
import os
import runpy
import sys
import traceback


def run(script, folder):
    os.chdir(folder)
    with open("stdout.txt", "w") as output, contextlib.redirect_stdout(output):
        try:
            runpy.run_path(script, run_name="__main__")
        except Exception:
            with open("error.txt", "w") as error:
                traceback.print_exc(file=error)


if __name__ == "__main__":
    folder, scripts = os.path.abspath(sys.argv[1]), [os.path.abspath(name) for name in sys.argv[2:]]
    sys.path[0] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "helpers")
    for script in scripts:
        run(script, os.path.join(folder, os.path.splitext(os.path.basename(script))[0]))
