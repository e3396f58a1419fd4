"""RealisVSR in JAX: real-world video super-resolution on the Wan2.1 video diffusion model."""

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realisvsr_jax.sampling.restore import Restorer, load

__all__ = ["Restorer", "load"]
__version__ = metadata.version("realisvsr-jax")


def __getattr__(name: str) -> Any:
    """Loads JAX only when a name that needs it is used."""
    if name in __all__:
        from realisvsr_jax.sampling import restore

        return getattr(restore, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
