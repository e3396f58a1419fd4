"""What the processes of a run agree on after each step: whether to stop, how many pairs failed.

Each says its part in one small program dispatched behind the step, and all read the answer with
that step's losses, so nothing waits for it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from realisvsr_jax import cluster

Answer = Callable[[], tuple[bool, int]]


class Together:
    """One process among those of a mesh, or alone."""

    def __init__(self, mesh: Mesh | None = None):
        self.alone = cluster.is_alone()
        if mesh is None or self.alone:
            return
        self._where = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._devices = mesh.size
        local = self._where.addressable_devices_indices_map((mesh.size,)).values()
        self._row = min(index[0].start or 0 for index in local if index)
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._sum = jax.jit(lambda said: jnp.sum(said, axis=0), out_shardings=everywhere)

    def say(self, stop: bool, failed: int) -> Answer:
        """Whether any process said `stop`, and the sum of `failed`, once they are asked for."""
        if self.alone:
            return lambda: (stop, failed)
        rows = np.zeros((self._devices, 2), np.int32)
        rows[self._row] = stop, failed
        said = jax.make_array_from_callback(rows.shape, self._where, lambda index: rows[index])
        answer = self._sum(said)

        def read() -> tuple[bool, int]:
            stops, failures = np.asarray(answer)
            return bool(stops), int(failures)

        return read
