"""Print what pycaffe-prune and some of its extras need, without its own files being there.

For images: what is installed from this stays in its layer when a source file changes.
usage: python3 requirements.py [EXTRA...] < pyproject.toml
"""

import sys
import tomllib

project = tomllib.load(sys.stdin.buffer)["project"]
print(*project["dependencies"], sep="\n")
for extra in sys.argv[1:]:
    print(*project["optional-dependencies"][extra], sep="\n")
