"""``python -m pycaffe_prune``: the same as the command ``caffe-prune``."""

from pycaffe_prune.cli import main

if __name__ == "__main__":
    main()
