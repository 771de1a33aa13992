"""One thread: several processes of these tests share few cores."""

import torch

torch.set_num_threads(1)
