"""Trains and tests in a process of its own, the only one that imports caffe.

Runs under Python 3.6 to 3.9 with NumPy and pycaffe, whatever Python that pycaffe was built for, and
without the rest of this project: the engine (`caffe_engine.py`) starts this folder by its path, as
``python FOLDER TASK JOB.json``. What it does comes back as JSON lines on standard output; Caffe's
own messages go to standard error. The torch engine's worker uses `loop`, `snapshots` and `testing`
too.

A failed CHECK in Caffe ends this process (SIGABRT) and no other.
"""
