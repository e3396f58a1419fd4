"""Axis letters, once for the whole project.

Pixels `B T H W 3` in [−1, 1], RGB; latents `b t h w c`, normalised; tokens `b l d`;
heads `n k`; text states `b s e`. Channels are last everywhere; PyTorch's order exists
only in `weights/`.
"""

from jaxtyping import Array, Float, UInt8

Video = Float[Array, "B T H W 3"]
ByteVideo = UInt8[Array, "B T H W 3"]
Latent = Float[Array, "b t h w c"]
Tokens = Float[Array, "b l d"]
TextStates = Float[Array, "b s e"]
