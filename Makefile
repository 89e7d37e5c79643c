# `make demo` and `make test` build their own environment, with the interpreter PYTHON. FLAGS are flags of the demo:
# `make demo FLAGS=--full`.
PYTHON ?= python3
NEWEST ?= python3.13
BIN := .venv/bin
.PHONY: demo test test-fast test-newest lint docs bench
# JAX=oldest tests with the oldest release that pyproject.toml allows.
JAX ?= newest
JAX_oldest := "jax==0.10.0" "jaxlib==0.10.0"

demo: .venv/ready
	$(BIN)/python -m elements_jax.cli.demo out/demo $(FLAGS)

# The tests of a file run in one process, which makes their networks once; a process may take 8 GB.
test: .venv/ready .venv/libtpu
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Tests without training, PyTorch references or a browser: pure functions, files, formats, arguments, documents.
FAST := test_architecture.py test_documents.py test_elements.py test_progress.py test_public.py checkpoints data \
  diffusion/test_schedule.py editing evaluation/study evaluation/test_results.py metrics/test_image_quality.py \
  models/test_functional.py partition/test_assignment.py partition/test_coco_file.py partition/test_components.py \
  partition/test_masks.py partition/test_photos.py photograph/test_colour.py photograph/test_file.py \
  photograph/test_window.py train/test_config.py

test-fast: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile $(addprefix tests/,$(FAST))

docs: .venv/ready
	$(BIN)/mkdocs build --strict --quiet --config-file .mkdocs.yml --site-dir out/docs

# The same code with a newer Python, NEWEST, and the newest JAX, without PyTorch: tests against it skip.
test-newest: .venv-newest/ready
	.venv-newest/bin/python -m pytest -n 2 --dist loadfile --ignore tests/parity --ignore tests/partition \
	  --ignore tests/evaluation --ignore tests/editor --ignore tests/browser --ignore tests/multihost --ignore tests/metrics \
	  --ignore tests/object_stores --ignore tests/test_documents.py --ignore tests/test_fuzz_commands.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready .venv/diffusers-0.39
	$(BIN)/python tests/benchmarks/attention.py
	$(BIN)/python tests/benchmarks/arithmetic.py
	$(BIN)/python tests/benchmarks/extraction.py
	$(BIN)/python tests/benchmarks/stable_diffusion.py
	$(BIN)/python tests/benchmarks/compile_time.py
	$(BIN)/python tests/benchmarks/loading.py
	$(BIN)/python tests/benchmarks/segmentation/partition_throughput.py
	$(BIN)/python tests/benchmarks/segmentation/superpixels_bsds.py
	$(BIN)/python tests/benchmarks/input_pipeline.py
	$(BIN)/python -m tests.benchmarks.photographs.editor_page

# uv resolves all extras in seconds, for which pip takes ten minutes. Unlike pip, it compiles bytecode only if asked:
# without, importing torch takes eight seconds more where Python may not write any.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable ".[dev]" $(JAX_$(JAX))
	touch $@

.venv-newest/ready: pyproject.toml
	$(NEWEST) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet uv
	.venv-newest/bin/uv pip install --quiet --compile-bytecode --python .venv-newest/bin/python --editable ".[editor,eval]" \
	  beartype hypothesis jsonschema pytest pytest-xdist tensorboardX
	touch $@

# The TPU's compiler, in a separate folder: among the packages it would look for TPUs at every start of JAX.
.venv/libtpu: .venv/ready
	$(BIN)/pip install --quiet --no-deps --target $@ "libtpu==0.0.42.*"
	touch $@

# The last diffusers with Flax classes, without its dependencies: the benchmark puts it before the environment's own.
.venv/diffusers-0.39: .venv/ready
	$(BIN)/pip install --quiet --no-deps --target $@ diffusers==0.39.0
	touch $@
