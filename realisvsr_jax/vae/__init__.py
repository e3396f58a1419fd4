"""The causal 3D video VAE of Wan2.1."""
