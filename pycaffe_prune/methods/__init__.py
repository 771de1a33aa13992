"""Ways to shrink a net, one module each: the bench that `pycaffe_prune.methods.base` describes."""
