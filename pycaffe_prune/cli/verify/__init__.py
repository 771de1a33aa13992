"""``caffe-prune verify``."""
