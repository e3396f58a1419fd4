"""The step's program of each bucket, compiled before its first batch comes.

The first bucket is compiled at once, the others behind the steps; a batch whose program is not
ready waits for it. No shape but the buckets' is ever compiled.
"""

import concurrent.futures
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from realisvsr_jax.training import sharding

Shapes = Mapping[str, Any]
Compile = Callable[[Any, Any, Shapes], Any]


class BucketPrograms:
    """Called as the step function; takes the compiled program of the batch's shapes."""

    def __init__(
        self, step: Any, state: Any, frozen: Any, batches: Sequence[Shapes], mesh: Mesh | None
    ):
        """`batches`: shapes and places of each bucket's arrays, in the order of their first use."""
        self._step, self._mesh = step, mesh
        self._programs: dict[Any, concurrent.futures.Future[Any]] = {}
        waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for shapes in batches:
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            if self._programs.setdefault(_key(shapes), future) is future:
                waiting.put((future, shapes))
        waiting.put(None)
        abstract = _abstract(state, mesh), _abstract(frozen, mesh)
        # A daemon: a run that is stopped does not wait for a compilation.
        threading.Thread(target=self._compile, args=(waiting, abstract), daemon=True).start()

    def _compile(self, waiting: Any, abstract: tuple[Any, Any]) -> None:
        while (item := waiting.get()) is not None:
            future, shapes = item
            try:
                with sharding.in_use(self._mesh):
                    future.set_result(self._step.lower(*abstract, dict(shapes)).compile())
            except BaseException as error:  # shown by the step that wanted it
                future.set_exception(error)

    def __call__(self, state: Any, frozen: Any, batch: Any) -> Any:
        """One step; raises what the compilation raised."""
        return self._programs[_key(batch)].result()(state, frozen, batch)


def _key(arrays: Shapes) -> Any:
    return tuple(sorted((name, tuple(array.shape)) for name, array in arrays.items()))


def _abstract(tree: Any, mesh: Mesh | None) -> Any:
    """Shapes, and places on the mesh: the arrays themselves are gone after the next step."""

    def of(leaf: Any) -> jax.ShapeDtypeStruct:
        where = leaf.sharding if mesh else None
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(of, tree)
