"""Matrix products and forks side by side: none waits for ever, and the limit is lifted."""

import os
import threading

import numpy as np
from threadpoolctl import threadpool_info

from pycaffe_prune.experiments.blas import one_blas_thread
from pycaffe_prune.formats.confined import forked


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_products_end_while_another_thread_forks():
    symmetric = np.random.default_rng(1).normal(size=(300, 300))
    symmetric += symmetric.T
    done = threading.Event()

    def decompose() -> None:
        with one_blas_thread():
            for _ in range(5):
                np.linalg.eigh(symmetric)
        done.set()

    with one_blas_thread():
        threading.Thread(target=decompose, daemon=True).start()
        for _ in range(10_000):
            child = forked()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            if done.wait(0.001):
                break
    assert done.is_set()


def test_the_limit_holds_until_the_last_one_leaves():
    before = blas_threads()
    with one_blas_thread():
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
