"""``caffe-prune reproduce``."""
