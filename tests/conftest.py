"""Shapes in signatures are checked while tests run, and only then."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("realisvsr_jax", "beartype.beartype")
