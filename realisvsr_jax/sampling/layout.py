"""What frames of one size become: sizes on the way, tiles in space, windows in time."""

import math
from dataclasses import dataclass

from realisvsr_jax.errors import InputError
from realisvsr_jax.sampling.frames import Sides, plan_geometry
from realisvsr_jax.sampling.options import Options
from realisvsr_jax.sampling.tiles import Tiling, latent_tile, plan_tiles
from realisvsr_jax.sampling.windows import OVERLAP, SIZE, Span, Window, frames_of, plan_spans
from realisvsr_jax.weights.release import ReleaseCard


@dataclass(frozen=True)
class Layout:
    """Of frames of one size, whatever the number of frames.

    `size` (h, w) is the result's, `padded` that of the VAE's frames, `latent` their latent's.
    `window` and `overlap` count latent frames; `tile` and `shared` are latent (h, w). `factor` is
    the VAE's in time, `whole` the network's patch in time.
    """

    size: Sides
    padded: Sides
    latent: Sides
    window: int
    overlap: int
    tile: Sides
    shared: Sides
    factor: int
    whole: int

    def latents(self, frames: int) -> int:
        """Latent frames of a scene; the last may stand for fewer frames than the VAE's factor."""
        return 1 + math.ceil((frames - 1) / self.factor)

    def spans(self, frames: int) -> list[Span]:
        """The windows of a scene in latent frames."""
        return plan_spans(self.latents(frames), self.window, self.overlap, self.whole)

    def windows(self, frames: int) -> list[Window]:
        """The windows of a scene in frames; what a window reads it also writes."""
        found = []
        for i, span in enumerate(self.spans(frames)):
            new = frames_of(range(span.start + span.known, span.end), self.factor)
            read = range(new.start, min(new.stop, frames))
            found.append(Window(i, read, read))
        return found

    def tiling(self, latents: int) -> Tiling:
        """The tiles of a window of so many latent frames; each spans all of them."""
        return plan_tiles((latents, *self.latent), (latents, *self.tile), (0, *self.shared))


def make_layout(card: ReleaseCard, height: int, width: int, options: Options) -> Layout:
    """For frames of `height`×`width` pixels. Raises InputError for options that do not fit.

    Where the release has no tile, windows have SIZE latent frames and share OVERLAP, and tiles
    that the options ask for share a quarter.
    """
    assert card.vae is not None
    assert card.model is not None
    patch = card.model.dit.patch_size
    geometry = plan_geometry((1, height, width, 3), float(options.scale), card.vae, patch)
    latent = geometry.latent[1:]
    factors = (card.vae.temporal_factor, card.vae.spatial_factor)
    released = latent_tile(card.tile, card.overlap, factors, patch)
    (window, *tile), (overlap, *shared) = released or ((SIZE, *latent), (OVERLAP, 0, 0))
    if released is not None and card.overlap[0]:
        overlap = max(overlap, 1)
    if options.window is not None:
        window = 1 + (options.window - 1) // factors[0]
        if window < patch[0]:
            raise InputError(
                f"window is {options.window}; the network's patch takes "
                f"{1 + (patch[0] - 1) * factors[0]} frames or more"
            )
        overlap = min(overlap, window - 1)
    if options.tile is not None:
        asked = latent_tile((1, *options.tile), (0, 0, 0), factors, (1, *patch[1:]))
        assert asked is not None
        tile = asked[0][1:]
        if released is None:
            shared = [side // 4 for side in tile]
        shared = [min(pair) for pair in zip(shared, (side - 1 for side in tile))]
    return Layout(
        size=geometry.size,
        padded=geometry.padded,
        latent=latent,
        window=window,
        overlap=overlap,
        tile=(tile[0], tile[1]),
        shared=(shared[0], shared[1]),
        factor=factors[0],
        whole=patch[0],
    )
