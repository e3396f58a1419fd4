"""Shapes in signatures are checked while tests run, and only then."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests compile far more than they compute; XLA's back end at -O0 halves their time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# What one test compiled is not compiled again, nor by the processes that tests start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    programs = tempfile.mkdtemp(prefix="jax-programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
    atexit.register(shutil.rmtree, programs, ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

from jaxtyping import install_import_hook

install_import_hook("realisvsr_jax", "beartype.beartype")

import pytest  # noqa: E402


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Calls a program, a module with `main` and FLAGS, here: exit status and lines of stderr."""
    import sys

    from realisvsr_jax.errors import run_flags

    def call(program, *arguments):
        for name in program.FLAGS:
            program.FLAGS[name].unparse()
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        status = run_flags(program.main, program.FLAGS)
        return status, capsys.readouterr().err.splitlines()

    return call


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory):
    """The folder of a release with random weights: 4× in space, 2× in time, patch (1, 2, 2).

    Its prompts are '' and 'sharp'; its control branch is not the zero of a new one.
    """
    import dataclasses

    import numpy as np
    from flax import nnx
    from random_networks import drawn, random

    from realisvsr_jax.model.cpc import CPCConfig
    from realisvsr_jax.model.realisvsr import RealisVSR, RealisVSRConfig
    from realisvsr_jax.model.wan_dit import DiTConfig
    from realisvsr_jax.sampling.solvers import SamplerConfig
    from realisvsr_jax.text.prompt_cache import PromptCache
    from realisvsr_jax.vae.wan_vae import TINY_VAE, WanVAE
    from realisvsr_jax.weights.release import Release, ReleaseCard, save_release

    vae = dataclasses.replace(
        TINY_VAE,
        base_dim=4,
        multipliers=(1, 2, 2),
        decoder_blocks=1,
        z_dim=4,
        mean=(0.1, -0.2, 0.0, 0.3),
        std=(1.1, 0.9, 1.0, 1.2),
    )
    dit = DiTConfig(
        dim=32,
        ffn_dim=64,
        num_heads=2,
        num_layers=2,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        text_length=4,
        freq_dim=32,
    )
    config = RealisVSRConfig(dit, CPCConfig(num_blocks=1))
    states = {"": np.zeros((1, 8), np.float32), "sharp": np.asarray(random(3, 8))}
    release = Release(
        ReleaseCard(vae, config, SamplerConfig(steps=2)),
        drawn(lambda: WanVAE(vae, rngs=nnx.Rngs(0))),
        drawn(lambda: RealisVSR(config, rngs=nnx.Rngs(0))),
        PromptCache(states, 4, 8),
    )
    folder = tmp_path_factory.mktemp("release") / "tiny"
    save_release(folder, release)
    return folder
