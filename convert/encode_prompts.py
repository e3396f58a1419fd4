"""`python -m convert.encode_prompts`; see `realisvsr_jax.convert.encode_prompts`."""

from realisvsr_jax.convert.encode_prompts import run

if __name__ == "__main__":
    run()
