"""What lets ``import caffe`` mean `pycaffe_prune.pycaffe`; PyTorch is not imported before that."""
