# Two commands set up everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
KOTLIN := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/edgeopt/kotlin
ADBD := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/edgeopt/adbd
# Python compiles what is imported when it is: a tenth of what is installed, which pip would compile whole, in a minute.
# Where it may not keep that, each process compiles torch anew, which doubles its start
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test checks programs browser kotlin sshd adb lint types format docs benchmarks results model-matrix test-arm64 test-mcu clean

demo: $(VENV)/.demo  ## the main job on real images, to a finished report
	$(BIN)/edgeopt run recipes/mobilenetv3_qat_android.toml

test:  ## lint, types, import rules and all tests; the system's programs are fetched beside Python's packages
	$(MAKE) --no-print-directory --jobs 2 programs $(VENV)/.dev
	$(MAKE) --no-print-directory checks

checks: lint  ## types in what the tests leave of the processors; threads of their processes would wait for one another; the third works while others wait
	nice $(BIN)/mypy >$(VENV)/types.txt 2>&1 & types=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist worksteal; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/types.txt; test $$tests = 0 && test $$types = 0

programs:  ## those of the system that tests use, one after the other: apt does one thing at a time
	for name in browser kotlin sshd adb; do $(MAKE) --no-print-directory $$name || exit 1; done

browser:  ## Chromium, for the tests of the page; without root or apt they are skipped and say so
	command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; } || echo "no Chromium: the tests of the page are skipped"

kotlin:  ## Java and a Kotlin compiler in the user's cache, for the tests of apps; without them these are skipped and say so
	command -v java >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends default-jre-headless >/dev/null; } || echo "no Java: Kotlin is not compiled"
	test -f $(KOTLIN)/node_modules/kotlin-compiler/lib/kotlin-compiler.jar || { command -v npm >/dev/null && npm install --silent --no-audit --no-fund --fetch-retries 0 --fetch-timeout 60000 --prefix $(KOTLIN) kotlin-compiler@2.4.20; } || echo "no Kotlin compiler: its tests are skipped"

sshd:  ## an ssh server, for the tests of devices; without root or apt they are skipped and say so
	command -v sshd >/dev/null || test -x /usr/sbin/sshd || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends openssh-server >/dev/null; } || echo "no sshd: the tests of devices behind ssh are skipped"

adb:  ## Android's adb, and an adbd in the user's cache, for the tests of phones; without them these are skipped and say so
	command -v adb >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends adb >/dev/null; } || echo "no adb: the tests of phones are skipped"
	tests/plugins/fetch_adbd.sh $(ADBD) 2>/dev/null || echo "no adbd of Debian: phones are tested with the tests' own alone"

test-arm64: $(VENV)/.dev  ## the files of all mobile runtimes under emulated ARM64; see docs/arm64.md
	$(BIN)/python tests/arm64

test-mcu: $(VENV)/.dev  ## an int8 file in an emulated Cortex-M3, TFLM_SOURCE=folder of tflite-micro; see docs/microcontrollers.md
	$(BIN)/python tests/mcu $(if $(TFLM_SOURCE),--source "$(TFLM_SOURCE)")

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.dev  ## the pages that are generated from the code
	$(BIN)/python -m edgeopt.describe docs/reference.md

benchmarks: $(VENV)/.dev  ## every speed bar; exits 1 when one is missed
	for name in startup overhead qat_step runtimes exports agreement idioms sensitivity compression kills busy deploy web_runtimes detection_scores microcontrollers; do $(BIN)/python benchmarks/$$name.py || exit 1; done

results: $(VENV)/.dev  ## docs/results.md, from the runs below runs/
	$(BIN)/python benchmarks/results.py

model-matrix: $(VENV)/.dev  ## every model of torchvision in each runtime, see docs/model_matrix.md and task_matrix.md; hours, goes on where it ended
	$(BIN)/python benchmarks/model_matrix.py
	$(BIN)/python benchmarks/task_matrix.py

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[vision,executorch,onnx]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt  # whoever tests needs no demo's environment first: packages are sought once
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dev]'
	touch $(VENV)/.demo $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
