"""`python -m convert.to_torch`; see `realisvsr_jax.convert.to_torch`."""

from realisvsr_jax.convert.to_torch import run

if __name__ == "__main__":
    run()
