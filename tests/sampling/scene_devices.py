"""A clip restored on eight virtual devices and on one of them: `python -m … RELEASE`.

Two tiles, so that each is shared by four devices. Prints a line of JSON.
"""

import dataclasses
import json
import sys

import jax
import numpy as np

from realisvsr_jax.sampling.restore import Restorer
from realisvsr_jax.sampling.scene import Options, SceneRestorer
from realisvsr_jax.weights.release import load_release


def restored(
    model: Restorer, fuse: str, *, width: int = 12, memory: int | None = None
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The clip, and what progress was told."""
    frames = np.random.default_rng(0).uniform(-1, 1, (3, 8, width, 3)).astype(np.float32)
    options = Options(scale=2, color="none", prompt="sharp", tile=(16, 16), fuse=fuse)
    scene = SceneRestorer(model, 8, width, dataclasses.replace(options, sampler_memory=memory))
    (window,) = scene.windows(3)
    ticks: list[tuple[int, int]] = []
    given = {"frames_in_scene": 3, "first_frame": 0}
    clip, _ = scene.restore(window, frames, None, **given, progress=lambda *n: ticks.append(n))
    return clip, ticks


def main() -> None:
    """Compares both ways of fusing."""
    release = load_release(sys.argv[1])
    card = dataclasses.replace(release.card, tile=(5, 16, 16), overlap=(2, 8, 8))
    model = Restorer(dataclasses.replace(release, card=card))
    found = {"devices": len(model.devices)}
    for fuse in ("steps", "end"):
        model.devices = jax.local_devices()
        mesh = model.mesh(2)
        assert mesh is not None
        many, ticks = restored(model, fuse)
        model.devices = model.devices[:1]
        one, _ = restored(model, fuse)
        error = float(np.abs(many - one).max())
        shape = {name: size for name, size in mesh.shape.items() if size > 1}
        found[fuse] = {"error": error, "ticks": ticks, "mesh": shape}
    # Four tiles in one call, two on each of two devices, by the program whose memory was asked for.
    model.devices = jax.local_devices()[:2]
    many, _ = restored(model, "steps", width=20, memory=2**30)
    (options,) = (key[-3:] for key in model._compiled)
    model.devices = model.devices[:1]
    one, _ = restored(model, "steps", width=20)
    found["together"] = {"error": float(np.abs(many - one).max()), "batch": options[1]}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
