"""The diffusion transformer, its control branch, and both together."""
