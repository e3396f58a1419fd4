"""`python -m convert.from_torch`; see `realisvsr_jax.convert.from_torch`."""

from realisvsr_jax.convert.from_torch import run

if __name__ == "__main__":
    run()
