"""Arrays to Caffe's messages and back."""

import caffe
import numpy as np
from twin import show

rng = np.random.RandomState(1)
image = rng.randint(0, 256, (3, 4, 5)).astype(np.uint8)
show("datum", caffe.io.array_to_datum(image, 7))
back = caffe.io.datum_to_array(caffe.io.array_to_datum(image))
show("bytes", back)
show("dtype", str(back.dtype))

values = rng.randn(2, 3, 4)
back = caffe.io.datum_to_array(caffe.io.array_to_datum(values))
show("floats", back)
show("dtype", str(back.dtype))
try:
    caffe.io.array_to_datum(values[0])
except ValueError:
    show("not three axes", "refused")

blob = caffe.io.array_to_blobproto(values, diff=-values)
show("blob", blob)
show("data", caffe.io.blobproto_to_array(blob))
show("diff", caffe.io.blobproto_to_array(blob, return_diff=True))
legacy = caffe.proto.caffe_pb2.BlobProto(num=1, channels=2, height=1, width=2, data=[1, 2, 3, 4])
show("legacy", caffe.io.blobproto_to_array(legacy))

text = caffe.io.arraylist_to_blobprotovector_str([values, values[0, 0]])
show("vector", [array.tolist() for array in caffe.io.blobprotovector_str_to_arraylist(text)][1])
show("length", len(text))
