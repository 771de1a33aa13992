"""``caffe-prune doctor``."""
