"""``caffe-prune inspect``."""
