from pathlib import Path

from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.compressed.file import write_compressed
from pycaffe_prune.formats.sparse import write_sparse
from pycaffe_prune.formats.storage import storage_sizes


def test_the_pruned_squeezenet_takes_two_fifths_of_its_dense_size_sparse_and_a_ninth_compressed(
    data_dir: Path, tmp_path: Path
) -> None:
    path = data_dir / "zoo" / "squeezenet" / "squeezenet_v1.0_pruned.caffemodel"
    sizes = storage_sizes(path)
    write_sparse(tmp_path / "a.sparse.npz", read_caffemodel(path))
    write_compressed(tmp_path / "a.cpz", read_caffemodel(path))
    assert sizes.dense == path.stat().st_size
    assert sizes.sparse == (tmp_path / "a.sparse.npz").stat().st_size
    assert sizes.compressed == (tmp_path / "a.cpz").stat().st_size
    assert 0.38 < sizes.sparse / sizes.dense < 0.42
    assert sizes.sparse_zip < sizes.dense_zip < sizes.sparse
    assert sizes.dense > 9 * sizes.compressed
    assert sum(layer.values for layer in sizes.layers) == 1_248_424
    assert sum(layer.non_zeros for layer in sizes.layers) == 419_897
    assert len(sizes.layers) == 26
