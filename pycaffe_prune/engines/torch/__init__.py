"""The engine ``torch``: Caffe's nets, solvers and data layers on PyTorch, on a CPU or with CUDA."""
