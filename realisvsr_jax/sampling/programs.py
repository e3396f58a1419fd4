"""The device programs of a restoration, from the networks and settings of one release.

Each is compiled once a size of frames; what else a user may choose are arguments.
"""

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent, TextStates, Video
from realisvsr_jax.errors import InputError
from realisvsr_jax.mesh import MeshConfig, make_mesh
from realisvsr_jax.sampling.denoise import Known, continued, make_velocity, repeated
from realisvsr_jax.sampling.solvers import Schedule
from realisvsr_jax.sampling.tiles import Tiling, fuse
from realisvsr_jax.text.encoding import TextEncoder
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.vae.wan_vae import WanVAE
from realisvsr_jax.weights.release import Release

log = logging.getLogger(__name__)


class Programs:
    """The networks of one release, what they are given as text, and their compiled programs."""

    def __init__(self, release: Release, text_encoder: TextEncoder | None = None):
        """`release` has a transformer; with a VAE alone there is nothing to sample from.

        `text_encoder` encodes what the release's prompts lack.
        """
        assert release.model is not None
        assert release.card.model is not None
        assert release.vae is not None
        assert release.card.vae is not None
        assert release.prompts is not None
        self.card = release.card
        self.vae_config = release.card.vae
        self.dit_config = release.card.model.dit
        self.prompts = release.prompts
        self.text_encoder = text_encoder
        self.patch = self.dit_config.patch_size
        self.devices: list[Any] = jax.local_devices()
        """Those that tiles are spread over."""
        self.on_step: Callable[[], object] = lambda: None
        """Called after each step of the sampler."""
        vae: WanVAE = release.vae
        self._vae_graph, self._vae = nnx.split(vae)
        self._model_graph, self._model = nnx.split(release.model)
        self._encode = jax.jit(self._encode_chunk)
        self._decode = jax.jit(self._decode_chunk)
        self._sample = jax.jit(self._sample_latent, static_argnames=("tiling", "batch", "fusing"))
        self._replicated: tuple[Mesh, Any] | None = None
        self._compiled: dict[Any, Any] = {}

    @property
    def vae(self) -> WanVAE:
        """The VAE by itself."""
        return nnx.merge(self._vae_graph, self._vae)

    def encode(self, video: Video, cache: Any) -> tuple[Latent, Any]:
        """The next frames of a stream, as `WanVAE.encode_chunk`."""
        return self._encode(self._vae, video, cache)

    def decode(self, latent: Any, cache: Any) -> tuple[Video, Any]:
        """The next latent frames of a stream, as `WanVAE.decode_chunk`."""
        return self._decode(self._vae, latent, cache)

    def sample(
        self,
        condition: Any,
        noise: Any,
        known: Known,
        texts: tuple[Any, Any],
        scales: tuple[float, float],
        schedule: Schedule,
        *,
        tiling: Tiling,
        batch: int = 1,
        fusing: str = "steps",
    ) -> Latent:
        """x0 [b, t, h, w, c] of a window, from its low-quality latent and its noise.

        `texts` are the states of the prompt and, or None, of the negative one; `scales` are
        guidance and condition scale. Several devices share the tiles, or the tokens of few.
        """
        arguments = _prepared(condition, noise, known, texts, scales, schedule)
        options = {"tiling": tiling, "batch": batch, "fusing": fusing}
        with self._spread(tiling.count) as model:
            compiled = self._compiled.get(_key(arguments, options))
            if compiled is not None:
                return compiled(model, *arguments)
            return self._sample(model, *arguments, **options)

    def sample_bytes(
        self,
        condition: Any,
        noise: Any,
        known: Known,
        texts: tuple[Any, Any],
        scales: tuple[float, float],
        schedule: Schedule,
        *,
        tiling: Tiling,
        batch: int,
        fusing: str = "steps",
    ) -> int:
        """What `sample` takes on one device, weights included; the compiler says it.

        Latents may be shapes without numbers. What is compiled serves `sample` afterwards.
        """
        arguments = _prepared(condition, noise, known, texts, scales, schedule)
        options = {"tiling": tiling, "batch": batch, "fusing": fusing}
        key = _key(arguments, options)
        if key not in self._compiled:
            with self._spread(tiling.count) as model:
                lowered = self._sample.lower(model, *arguments, **options)
                self._compiled = {key: lowered.compile()}  # the last alone
        memory = self._compiled[key].memory_analysis()
        return (
            memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        )

    @contextlib.contextmanager
    def _spread(self, tiles: int) -> Iterator[Any]:
        """The transformer's weights where so many tiles need them, with that mesh in use."""
        mesh = self.mesh(tiles)
        if mesh is None:
            yield self._model
        else:
            with jax.set_mesh(mesh):
                yield self._on(mesh)

    def mesh(self, tiles: int) -> Mesh | None:
        """All devices: as many tiles at once as divide them, tokens over the rest; None for one."""
        count = len(self.devices)
        if count == 1:
            return None
        data = tiles_at_once(count, tiles)
        config = MeshConfig(data=data, fsdp=1, seq=count // data, tensor=1)
        return make_mesh(config, self.dit_config.num_heads, self.devices)

    def texts(
        self, prompt: str | None, negative_prompt: str, guidance: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """States of both prompts [1, s, e]; the second None where it would change nothing."""
        prompt = self.card.prompt if prompt is None else prompt
        known = None if self.text_encoder is not None else self.prompts
        check_prompts(known, prompt, negative_prompt, guidance)
        text = self._states(prompt)
        if guidance == 1:
            return text, None
        negative = self._states(negative_prompt)
        if np.array_equal(text, negative):
            log.warning("guidance %g has no effect: both prompts are %r", guidance, prompt)
            return text, None
        return text, negative

    def _states(self, prompt: str) -> np.ndarray:
        """[1, s, e]; encoded here, once, where the cache lacks them."""
        encoder = self.text_encoder
        if prompt not in self.prompts and encoder is not None:
            log.info("encoding the prompt %r", prompt)
            self.prompts.check_encoder(encoder.fingerprint, "the weights' prompt cache")
            self.prompts = self.prompts.joined(encoder.encode([prompt]), encoder.fingerprint)
        return self.prompts.lookup(prompt)[None]

    def _on(self, mesh: Mesh) -> Any:
        """The transformer on every device, moved there once."""
        if self._replicated is None or self._replicated[0] != mesh:
            everywhere = NamedSharding(mesh, PartitionSpec())
            self._replicated = mesh, jax.device_put(self._model, everywhere)
        return self._replicated[1]

    def _encode_chunk(self, vae: Any, video: Video, cache: Any) -> tuple[Latent, Any]:
        return nnx.merge(self._vae_graph, vae).encode_chunk(video, cache)

    def _decode_chunk(self, vae: Any, latent: Latent, cache: Any) -> tuple[Video, Any]:
        return nnx.merge(self._vae_graph, vae).decode_chunk(latent, cache)

    def _sample_latent(
        self,
        model: Any,
        condition: Latent,
        texts: tuple[TextStates, TextStates | None],
        scales: tuple[Float[Array, ""], Float[Array, ""]],
        schedule: Schedule,
        noise: Latent,
        known: Known,
        tiling: Tiling,
        batch: int,
        fusing: str,
    ) -> Latent:
        """One program from noise to x0; options are arguments, so that none compiles again."""
        network = nnx.merge(self._model_graph, model)

        def sampled(
            condition: Latent, noise: Latent, x0: Latent, *, tiling: Tiling, batch: int
        ) -> Latent:
            text, negative = (
                None if one is None else repeated(one, condition.shape[0]) for one in texts
            )
            assert text is not None
            velocity = make_velocity(
                network,
                condition,
                text,
                tiling,
                negative=negative,
                guidance=scales[0],
                condition_scale=scales[1],
                batch=batch,
            )

            def reporting(z: Latent, timestep: Float[Array, ""]) -> Latent:
                v = velocity(z, timestep)
                jax.debug.callback(self._on_step, v[0, 0, 0, 0, 0])
                return v

            return continued(reporting, noise, Known(x0, known.mask), schedule)

        if fusing == "steps":
            return sampled(condition, noise, known.latent, tiling=tiling, batch=batch)
        alone = Tiling(tiling.size, ((0,), (0,), (0,)))
        one = functools.partial(sampled, tiling=alone, batch=1)
        return fuse(one, tiling, condition, noise, known.latent, batch=batch)

    def _on_step(self, _: Any) -> None:
        self.on_step()


def _prepared(
    condition: Any,
    noise: Any,
    known: Known,
    texts: tuple[Any, Any],
    scales: tuple[float, float],
    schedule: Schedule,
) -> tuple[Any, ...]:
    numbers = tuple(map(np.float32, scales)), jax.tree.map(np.float32, schedule)
    return condition, texts, *numbers, noise, known


def _key(arguments: Any, options: dict[str, Any]) -> tuple[Any, ...]:
    shapes = (np.shape(leaf) for leaf in jax.tree.leaves(arguments))
    return jax.tree.structure(arguments), *shapes, *options.values()


def tiles_at_once(devices: int, tiles: int) -> int:
    """The largest number of tiles that divides the devices and of which there are as many."""
    return max(d for d in range(1, devices + 1) if devices % d == 0 and d <= tiles)


def tiles_per_call(batch: int, devices: int, tiles: int) -> int:
    """`batch` of `Options` for so many devices: a multiple of the tiles at once, no more than all.

    0 is as many as there are at once.
    """
    least = tiles_at_once(devices, tiles)
    return least * max(1, math.ceil(min(batch, tiles) / least))


def check_prompts(
    known: PromptCache | None, prompt: str, negative_prompt: str, guidance: float
) -> None:
    """Raises InputError for prompts that are not `known`, and for a negative one without guidance.

    None: whatever is asked for can be encoded.
    """
    if guidance == 1 and negative_prompt:
        raise InputError(
            f"the negative prompt {negative_prompt!r} needs a guidance above 1, which is without; "
            "give one (--guidance 3), or leave the prompt out"
        )
    if known is None:
        return
    for one in [prompt] if guidance == 1 else [prompt, negative_prompt]:
        if one not in known:
            names = ", ".join(map(repr, sorted(known.states)[:5])) or "none"
            raise InputError(
                f"the weights bring no states of the prompt {one!r} (they have: {names}); give "
                "--text-encoder PATH, which encodes it"
            )
