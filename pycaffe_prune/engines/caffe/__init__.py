"""The real Caffe: its installation, its worker, and the engine that drives it."""
