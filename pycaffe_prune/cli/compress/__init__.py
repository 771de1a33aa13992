"""``caffe-prune compress``."""
