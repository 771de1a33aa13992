# pycaffe-prune with the real Caffe, for the CPU. From the root of the checkout:
#
#   docker build --file docker/cpu.Dockerfile --tag pycaffe-prune:cpu .
#   docker run --rm pycaffe-prune:cpu doctor
#
# docs/containers.md goes on from there. x86-64 only, as Debian 11's Caffe is.
ARG DEBIAN=debian:bookworm-slim

FROM ${DEBIAN} AS toolkit
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/pycaffe-prune
WORKDIR /src
# pip compiles modules: where nothing can be written each start would do it again, in seconds.
# First what the toolkit needs: this layer stays when only its own files change.
COPY pyproject.toml constraints.txt docker/requirements.py ./
RUN python3 requirements.py sample flowers convert cluster < pyproject.toml > requirements.txt \
 && /opt/pycaffe-prune/bin/pip install --no-cache-dir \
        --constraint constraints.txt --requirement requirements.txt \
 && find /opt/pycaffe-prune -depth -name tests -exec rm -r {} +
COPY . .
RUN /opt/pycaffe-prune/bin/pip install --no-cache-dir --no-deps .

# Debian 11's Caffe as `doctor --install-caffe` unpacks it, less what `import caffe` never opens.
FROM toolkit AS caffe
RUN /opt/pycaffe-prune/bin/caffe-prune doctor --install-caffe --prefix /opt/caffe
WORKDIR /opt/caffe
RUN rm -r usr/bin/perl* usr/share/fonts usr/share/gdcm-3.0 usr/share/perl usr/share/proj \
        usr/share/zoneinfo usr/lib/x86_64-linux-gnu/perl* usr/lib/x86_64-linux-gnu/libperl.so* \
 && for unused in Cython IPython jedi pandas prompt_toolkit pygments; do \
        rm -r "usr/lib/python3/dist-packages/$unused"; done \
 && find . -depth -name tests -exec rm -r {} + \
 && bin/caffe-python -c 'import caffe' \
 && /opt/pycaffe-prune/bin/pip uninstall --yes pip setuptools

FROM ${DEBIAN}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --no-create-home --home-dir /tmp caffe \
 && install --directory --mode 1777 /data /runs
COPY --from=caffe /opt/pycaffe-prune /opt/pycaffe-prune
COPY --from=caffe /opt/caffe /opt/caffe
# From / the paths of the documentation are what they are in a checkout: solvers/lenet.prototxt,
# data/mnist, runs/lenet-5-quick.
RUN ln -s /opt/pycaffe-prune/lib/python3.11/site-packages/pycaffe_prune/share/* /
WORKDIR /
ENV PATH=/opt/pycaffe-prune/bin:$PATH \
    CAFFE_PYTHON=/opt/caffe/bin/caffe-python \
    PYCAFFE_PRUNE_CACHE=/data/cache \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
VOLUME ["/data", "/runs"]
ENTRYPOINT ["caffe-prune"]
CMD ["--help"]
