"""``caffe-prune prune``."""
