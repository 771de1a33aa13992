# pycaffe-prune with the real Caffe on NVIDIA GPUs: the CPU image, whose libcaffe and pycaffe are
# replaced by ones built with CUDA from Debian 11's source package. From the root of the checkout:
#
#   docker build --file docker/cpu.Dockerfile --tag pycaffe-prune:cpu .
#   docker build --file docker/caffe-cuda.Dockerfile --tag pycaffe-prune:caffe-cuda .
#   docker run --rm --gpus all pycaffe-prune:caffe-cuda doctor
#
# The driver comes from the host (NVIDIA Container Toolkit): 450.80 or later for CUDA 11.2.
# docs/containers.md goes on from there.
ARG DEBIAN=debian:bullseye-slim
ARG CPU_IMAGE=pycaffe-prune:cpu

FROM ${DEBIAN} AS caffe
# A mirror for old releases, once bullseye has left the ordinary ones: its address.
ARG MIRROR=
# Code for Maxwell, Pascal, Volta, Turing and Ampere (8.6 runs on Ada too), and PTX of the last one,
# which drivers compile for later cards (Hopper, Blackwell) when it is first loaded.
ARG CUDA_ARCHS="52 60 61 70 75 80 86"
ARG CUDA_PTX=86
WORKDIR /src
RUN if [ -n "$MIRROR" ]; then echo "deb $MIRROR bullseye main" > /etc/apt/sources.list; fi \
 && sed -i '/^deb .* bullseye main/ s/$/ contrib non-free/' /etc/apt/sources.list \
 && sed -n 's/^deb \(.* bullseye main\)/deb-src \1/p' /etc/apt/sources.list \
        > /etc/apt/sources.list.d/source.list \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        cmake dpkg-dev g++ libblas-dev libboost-filesystem-dev libboost-python-dev \
        libboost-system-dev libboost-thread-dev libgflags-dev libgoogle-glog-dev libhdf5-dev \
        libleveldb-dev liblmdb-dev libopencv-dev libprotobuf-dev libsnappy-dev make \
        nvidia-cuda-toolkit protobuf-compiler python3-dev python3-numpy \
 && apt-get source caffe \
 && rm -rf /var/lib/apt/lists/*
RUN cmake -S caffe-* -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_SKIP_RPATH=TRUE \
        -DCPU_ONLY=OFF -DUSE_CUDNN=OFF -DBLAS=Generic -DBUILD_docs=OFF -DBUILD_matlab=OFF \
        -DBUILD_python=ON -DBUILD_python_layer=ON -Dpython_version=3 \
        -DCUDA_ARCH_NAME=Manual -DCUDA_ARCH_BIN="$CUDA_ARCHS" -DCUDA_ARCH_PTX="$CUDA_PTX" \
 && make --directory build --jobs "$(nproc)" caffe pycaffe
# What differs from the CPU's prefix: Caffe itself, and the CUDA libraries that it needs.
RUN lib=prefix/usr/lib/x86_64-linux-gnu module=prefix/usr/lib/python3/dist-packages/caffe \
 && mkdir --parents $lib $module \
 && cp build/lib/libcaffe.so.1.0.0 $lib \
 && cp build/lib/_caffe.so $module/_caffe.cpython-39-x86_64-linux-gnu.so \
 && strip --strip-unneeded $lib/libcaffe.so.1.0.0 $module/_caffe.*.so \
 && for name in cudart cublas cublasLt curand; do \
        cp --no-dereference /usr/lib/x86_64-linux-gnu/lib$name.so.1* $lib; done

FROM ${CPU_IMAGE}
COPY --from=caffe /src/prefix /opt/caffe
RUN /opt/caffe/bin/caffe-python -c 'import caffe'
# What the driver compiles from PTX is kept beside the other caches; the default size is too small
# for cuBLAS.
ENV CUDA_CACHE_PATH=/data/cache/nv \
    CUDA_CACHE_MAXSIZE=2147483648 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
