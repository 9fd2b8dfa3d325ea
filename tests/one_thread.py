"""Torch with one thread, as Dask's workers have it; to be imported by every process of the tests.

The processes of the tests share the cores. Threads that wait for one another there make the small
calls of tests many times slower.
"""

import torch

torch.set_num_threads(1)
