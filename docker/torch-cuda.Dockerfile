# pycaffe-prune with the engine torch on NVIDIA GPUs, without Caffe. From the root of the checkout:
#
#   docker build --file docker/torch-cuda.Dockerfile --tag pycaffe-prune:torch-cuda .
#   docker run --rm --gpus all pycaffe-prune:torch-cuda doctor
#   docker run --rm --gpus all --volume "$PWD":/work --workdir /work --entrypoint python \
#       pycaffe-prune:torch-cuda SCRIPT.py    # a pycaffe script: `import caffe` is the toolkit's
#
# The base brings Python, PyTorch and CUDA; the driver comes from the host (NVIDIA Container
# Toolkit). For cards that CUDA 12.6 does not know (Blackwell) take a base with a newer one.
# docs/containers.md goes on from there.
ARG TORCH_IMAGE=pytorch/pytorch:2.13.0-cuda12.6-cudnn9-runtime

FROM ${TORCH_IMAGE} AS toolkit
WORKDIR /src
COPY pyproject.toml constraints.txt docker/requirements.py ./
# An environment on top of the base's packages: its PyTorch is used, and none of them replaced.
# Modules are compiled here: where nothing can be written each start would do it again, in seconds.
RUN python3 -m venv --without-pip --system-site-packages /opt/pycaffe-prune \
 && python3 requirements.py sample flowers convert cluster < pyproject.toml > requirements.txt \
 && python3 -m pip --python /opt/pycaffe-prune/bin/python install --no-cache-dir \
        --constraint constraints.txt --requirement requirements.txt
COPY . .
RUN python3 -m pip --python /opt/pycaffe-prune/bin/python install --no-cache-dir \
        --no-deps . \
 && /opt/pycaffe-prune/bin/caffe-prune python --install

FROM ${TORCH_IMAGE}
COPY --from=toolkit /opt/pycaffe-prune /opt/pycaffe-prune
RUN install --directory --mode 1777 /data /runs \
 && ln -s /opt/pycaffe-prune/lib/python3*/site-packages/pycaffe_prune/share/* / \
 && /opt/pycaffe-prune/bin/python -c 'import torch; print(torch.__version__, torch.version.cuda)'
WORKDIR /
ENV PATH=/opt/pycaffe-prune/bin:$PATH \
    PYCAFFE_PRUNE_CACHE=/data/cache \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
VOLUME ["/data", "/runs"]
ENTRYPOINT ["caffe-prune"]
CMD ["--help"]
