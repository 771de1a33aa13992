# Two commands: `make reproduce` and `make test`. Both set up what they need:
# a virtual environment here (`make environment`), and the real Caffe in a cache folder that several
# checkouts share (`make setup` does both). `make reproduce ENGINE=torch` needs no Caffe.

IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c '$(IS_NEW_ENOUGH)' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXPERIMENT ?= lenet-300-100
PRESET ?= quick
ENGINE ?= auto
REPRODUCE_ARGS ?=
EXTRAS ?= dev,sample,flowers,convert,torch,cluster
PYTEST_ARGS ?= -n auto
# Each of pytest's processes has a core: more threads would wait for one another.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help environment setup test check docs reproduce bench gpu-check images schema fields pycaffe-names constraints clean

help:
	@echo "make reproduce   LeNet-300-100 on MNIST with the real Caffe, in minutes: table, figure, report"
	@echo "                 (ENGINE=torch: without Caffe; REPRODUCE_ARGS='--device cuda' for more)"
	@echo "make test        lint, types and all tests (PYTEST_ARGS='-n 2 -k mask' to choose)"
	@echo "make docs        the documentation site, in build/docs"
	@echo "make setup       virtual environment and the private Caffe prefix only"
	@echo "make environment virtual environment only"
	@echo "make bench       side-by-side benchmarks (minutes)"
	@echo "make gpu-check   all that waits for a GPU: parity, speed, experiments (resumable; hours)"
	@echo "make images      the container images, with Docker (docs/containers.md)"
	@echo "make schema      compile caffe.proto and forks.proto again"
	@echo "make fields      docs/fields.md from the table of fields"
	@echo "make pycaffe-names docs/pycaffe-names.md from the real pycaffe and ours"
	@echo "make constraints write the installed versions to constraints.txt"
	@echo "make clean       remove the virtual environment and all caches of this checkout"

environment: $(INSTALLED)

setup: environment
	@$(BIN)/caffe-prune doctor --install-caffe

# Debian's python3 has no ensurepip unless python3-venv is installed: pip then comes from the host's.
# pip compiles what it copies, not what stays here; where PYTHONDONTWRITEBYTECODE is set nothing else
# would.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(IS_NEW_ENOUGH)' || \
		{ echo "Python 3.11 or later is needed; name one with PYTHON=…" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) 2>/dev/null || \
		{ $(PYTHON) -m venv --clear --without-pip $(VENV) && \
		  $(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	@$(BIN)/python -m compileall -q pycaffe_prune data_prep
	@touch $@

reproduce: environment
	@engine=$(ENGINE); \
	if [ "$$engine" != torch ] && ! $(BIN)/caffe-prune doctor --install-caffe; then \
		[ "$$engine" = auto ] || exit 1; \
		echo "THE REAL CAFFE CANNOT BE HAD ON THIS MACHINE (the reason is above)." >&2; \
		echo "GOING ON WITH THE ENGINE TORCH, which gives Caffe's answers (docs/engines.md)." >&2; \
		engine=torch; \
	fi; \
	set -x; \
	$(BIN)/caffe-prune reproduce $(EXPERIMENT) --preset $(PRESET) --engine $$engine $(REPRODUCE_ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint --config .hadolint.yaml docker/*.Dockerfile
	$(BIN)/python docs/site/build.py

docs: $(INSTALLED)
	$(BIN)/python docs/site/build.py
	@echo "build/docs/index.html"

test: setup check
	$(ONE_THREAD) $(BIN)/pytest $(PYTEST_ARGS)

bench: setup
	$(BIN)/python bench/model_io.py
	$(BIN)/python bench/surgery.py
	$(BIN)/python bench/peers.py
	$(BIN)/python bench/worth.py
	$(BIN)/python bench/selection.py
	$(BIN)/python bench/masking.py
	$(BIN)/python bench/data_sets.py
	$(BIN)/python bench/engines.py
	$(BIN)/python bench/sweep.py
	$(BIN)/python bench/sweep_versions.py
	$(BIN)/python bench/reports.py

gpu-check: environment
	@bench/gpu_check.sh

images:
	docker build --file docker/cpu.Dockerfile --tag pycaffe-prune:cpu .
	docker build --file docker/caffe-cuda.Dockerfile --tag pycaffe-prune:caffe-cuda .
	docker build --file docker/torch-cuda.Dockerfile --tag pycaffe-prune:torch-cuda .

schema: $(INSTALLED)
	cd pycaffe_prune/formats && ../../$(BIN)/python -m grpc_tools.protoc -I. \
		--descriptor_set_out=caffe.fds --pyi_out=. caffe.proto
	cd pycaffe_prune/formats && ../../$(BIN)/python -m grpc_tools.protoc -I. \
		--descriptor_set_out=forks.fds forks.proto

fields: $(INSTALLED)
	$(BIN)/python -m pycaffe_prune.formats.field_page > docs/fields.md

pycaffe-names: $(INSTALLED)
	$(BIN)/caffe-prune python --engine caffe tests/pycaffe/real_names.py > real_names.json
	$(BIN)/python -m tests.pycaffe.names_page < real_names.json > docs/pycaffe-names.md
	rm real_names.json

constraints: $(INSTALLED)
	{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } \
		> constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -r {} +
