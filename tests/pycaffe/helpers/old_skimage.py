"""pycaffe's load_image asks scikit-image for ``as_grey``, which became ``as_gray`` in 0.16."""

try:
    import skimage.io
except ImportError:
    pass  # ours needs none
else:
    _imread = skimage.io.imread
    if not hasattr(_imread, "knows_as_grey"):

        def imread(name, as_grey=False):
            return _imread(name, as_gray=as_grey)

        imread.knows_as_grey = True
        skimage.io.imread = imread
