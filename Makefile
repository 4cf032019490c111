# Everything runs in an environment of its own; the first command that needs it makes it.
PYTHON ?= python3
VENV   ?= .venv
PEERS  ?= .venv-peers
PPO    ?= .venv-trl-ppo
BIN    := $(VENV)/bin
# Compiled modules are kept, whatever the shell says: the tests start hundreds of processes.
ENV    := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
JOBS   ?= 3

.PHONY: run install test check format smollm2 test-real test-peers test-learning test-faults bench bench-peers docs picture clean

run: $(VENV)/.installed
	@$(BIN)/workbench run

install: $(VENV)/.installed

# torch comes first and alone: constraints.txt pins it, and pip then keeps that build for everything else.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# In parallel, and one more than two cores: many tests wait for a process, a socket or a timer. Then what other tests
# would disturb, alone.
test: $(VENV)/.installed
	$(ENV) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not serial and not real and not peers and not learning and not faults" tests
	$(ENV) $(BIN)/python -m pytest -m "serial and not real and not faults" tests

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(ENV) $(BIN)/python -m pytest tests/test_walls.py

format: $(VENV)/.installed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

smollm2: $(VENV)/.installed
	$(BIN)/workbench fetch smollm2

# make test-real GSM8K=/path/to/train.jsonl
test-real: smollm2
	$(ENV) GSM8K="$(GSM8K)" $(BIN)/python -m pytest -m real tests

# The formulas beside TRL's and stable-baselines3's own code, in an environment that has them.
$(PEERS)/.installed: tests/peers/requirements.txt constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt torch
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -r tests/peers/requirements.txt
	@touch $@

# Their warnings are not ours to mend.
test-peers: $(PEERS)/.installed
	$(ENV) $(PEERS)/bin/python -m pytest -W default -m peers tests/peers

# The last TRL with PPO, which does not go with the one above.
$(PPO)/.installed: benchmarks/peers/requirements-ppo.txt constraints.txt
	$(PYTHON) -m venv $(PPO)
	$(PPO)/bin/python -m pip install --quiet --upgrade pip
	$(PPO)/bin/python -m pip install --quiet -c constraints.txt torch
	$(PPO)/bin/python -m pip install --quiet -c constraints.txt -r benchmarks/peers/requirements-ppo.txt
	@touch $@

# The short forms of everything, in under ten minutes; a table of the promises in benchmarks/results/README.md.
bench: $(VENV)/.installed $(PEERS)/.installed $(PPO)/.installed
	$(ENV) $(BIN)/python -m benchmarks.grpo_vs_trl --short --peer-python $(PEERS)/bin/python
	$(ENV) $(BIN)/python -m benchmarks.ppo_vs_trl --short --peer-python $(PPO)/bin/python
	$(ENV) $(BIN)/python -m benchmarks.engine_overhead --short
	$(ENV) $(BIN)/python -m benchmarks.screen --short
	$(ENV) $(BIN)/python -m benchmarks.replay --short
	$(ENV) $(BIN)/python -m benchmarks.scaling --short
	$(ENV) $(BIN)/python -m benchmarks.summary

# GRPO and PPO beside TRL's, in full: an hour and a half; SmolLM2 only where `make smollm2` has been run.
bench-peers: $(VENV)/.installed $(PEERS)/.installed $(PPO)/.installed
	$(ENV) $(BIN)/python benchmarks/grpo_vs_trl.py --peer-python $(PEERS)/bin/python
	$(ENV) $(BIN)/python benchmarks/ppo_vs_trl.py --peer-python $(PPO)/bin/python

# Everything that can go wrong, in full: about a quarter of an hour; its counts go to build/faults.json.
test-faults: $(VENV)/.installed
	@mkdir -p build
	$(ENV) FAULTS_SUMMARY=build/faults.json $(BIN)/python -m pytest tests/faults tests/test_security.py tests/engine/test_resuming_at_random.py tests/engine/test_resuming_brought.py

# Every algorithm and preset at full size from three seeds, to its bar: a few minutes.
test-learning: $(VENV)/.installed
	$(ENV) $(BIN)/python -m pytest -n $(JOBS) -m learning -s --timeout 1800 tests

docs: $(VENV)/.installed
	$(BIN)/python -m workbench.reference docs

# The picture of the README, from a live session; needs Chromium.
picture: $(VENV)/.installed
	sh docs/picture.sh $(abspath $(BIN))/python

clean:
	rm -rf $(VENV) $(PEERS) $(PPO) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
