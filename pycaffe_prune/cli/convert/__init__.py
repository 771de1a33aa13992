"""``caffe-prune convert``."""
