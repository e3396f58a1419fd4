"""LPIPS v0.1 (arXiv:1801.03924) and DISTS (arXiv:2004.07728) with their true weights.

Images are `N H W 3`, float in [−1, 1], RGB, of any size; nothing is resized. A metric is
a pytree of frozen weights that can be called: it is jitted, differentiable, and may be
passed to another jitted function as an argument (closed over, its weights would become
constants of that program).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import pretrained

Images = Float[Array, "N _ _ 3"]
Scores = Float[Array, "N"]
Features = Float[Array, "N _ _ _"]

_SMALLEST = {"alex": 31, "vgg": 16}  # pixels a side; below, the deepest features are empty
_VGG_STAGES = (2, 2, 3, 3, 3)  # convolutions before each tapped ReLU


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lpips:
    """Distance of two images in the unit-normalised features of AlexNet or VGG16."""

    convs: PyTree
    heads: PyTree
    net: str = field(metadata={"static": True})

    @jax.jit
    def __call__(self, a: Images, b: Images) -> Scores:
        """[N] distances, 0 for equal images. Raises InputError if the sizes differ."""
        _check_sizes(a, b, _SMALLEST[self.net])
        total = jnp.zeros(a.shape[0])
        for fa, fb, head in zip(self.features(a), self.features(b), self.heads):
            difference = jnp.square(feature_unit(fa) - feature_unit(fb))
            total += jnp.mean(difference @ head, axis=(1, 2))
        return total

    def features(self, x: Images) -> list[Features]:
        """What is compared, from the finest layer on."""
        x = (x - jnp.array([-0.030, -0.088, -0.188])) / jnp.array([0.458, 0.448, 0.450])
        return _alexnet(self.convs, x) if self.net == "alex" else _vgg16(self.convs, x, _max_pool)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dists:
    """1 − the weighted similarity of means (texture) and covariances (structure)."""

    convs: PyTree
    alpha: Float[Array, "1475"]
    beta: Float[Array, "1475"]

    @jax.jit
    def __call__(self, a: Images, b: Images) -> Scores:
        """[N] distances, 0 for equal images. Raises InputError if the sizes differ.

        Eqs. 5–7 of the paper; over the whole image, at its own size (the authors' script
        offers to shrink the shorter side to 256 first: not done here, nor in pyiqa).
        """
        _check_sizes(a, b, _SMALLEST["vgg"])
        weight = jnp.sum(self.alpha) + jnp.sum(self.beta)
        similarity = jnp.zeros(a.shape[0])
        start = 0
        for fa, fb in zip(self.features(a), self.features(b)):
            part = slice(start, start + fa.shape[-1])
            start = part.stop
            texture, structure = _statistics(fa, fb)
            similarity += (texture @ self.alpha[part] + structure @ self.beta[part]) / weight
        return 1.0 - similarity

    def features(self, x: Images) -> list[Features]:
        """What is compared: the image itself in [0, 1], then VGG16's layers."""
        x = (x + 1.0) / 2.0
        mean, std = jnp.array([0.485, 0.456, 0.406]), jnp.array([0.229, 0.224, 0.225])
        return [x, *_vgg16(self.convs, (x - mean) / std, _l2_pool)]


def load_lpips(net: str = "alex") -> Lpips:
    """LPIPS v0.1 with `net` "alex" (the usual metric) or "vgg".

    Raises InputError for another net, or naming the package whose weights are missing.
    """
    if net not in _SMALLEST:
        raise InputError(f"LPIPS has no network {net!r}; known: alex, vgg")
    convs, heads = pretrained.lpips_weights(net)
    return Lpips(jax.tree.map(jnp.asarray, convs), jax.tree.map(jnp.asarray, heads), net)


def load_dists() -> Dists:
    """DISTS; raises InputError naming the package whose weights are missing."""
    convs, _ = pretrained.lpips_weights("vgg")  # the same ImageNet VGG16
    alpha, beta = pretrained.dists_weights()
    return Dists(jax.tree.map(jnp.asarray, convs), jnp.asarray(alpha), jnp.asarray(beta))


def _check_sizes(a: Images, b: Images, smallest: int) -> None:
    if a.shape != b.shape:
        raise InputError(f"images of different sizes: {a.shape} and {b.shape}")
    if min(a.shape[1:3]) < smallest:
        raise InputError(f"images of {a.shape[1:3]} are below {smallest}×{smallest}")


def _alexnet(convs: PyTree, x: Images) -> list[Features]:
    """The five ReLUs of AlexNet (Krizhevsky's second, torchvision's)."""
    taps = []
    for i, conv in enumerate(convs):
        if i in (1, 2):
            x = _max_pool(x, window=3)
        x = _conv_relu(conv, x, stride=4 if i == 0 else 1, padding=(2, 2, 1, 1, 1)[i])
        taps.append(x)
    return taps


def _vgg16(convs: PyTree, x: Images, pool: Callable[..., Array]) -> list[Features]:
    """relu1_2, 2_2, 3_3, 4_3 and 5_3 of VGG16, with `pool` in the place of max pooling."""
    taps: list[Features] = []
    remaining = iter(convs)
    for depth in _VGG_STAGES:
        x = pool(x) if taps else x
        for _ in range(depth):
            x = _conv_relu(next(remaining), x)
        taps.append(x)
    return taps


def _conv_relu(conv: PyTree, x: Features, stride: int = 1, padding: int = 1) -> Features:
    x = lax.conv_general_dilated(
        x,
        conv["kernel"],
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jax.nn.relu(x + conv["bias"])


def _max_pool(x: Features, window: int = 2) -> Features:
    shape = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, (1, 2, 2, 1), "VALID")


def _l2_pool(x: Features) -> Features:
    """√(g ∗ x²) at stride 2 with the Hann window g = (1, 2, 1)/4 of each axis."""
    x = jnp.square(x)
    for axis in (1, 2):
        size = x.shape[axis]
        padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(4)])
        left, centre, right = (
            lax.slice_in_dim(padded, i, i + size, stride=2, axis=axis) for i in range(3)
        )
        x = 0.25 * left + 0.5 * centre + 0.25 * right
    return jnp.sqrt(x + 1e-12)


def feature_unit(x: Features) -> Features:
    """x / |x| over channels; its gradient is finite where all channels are 0."""
    norm = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-20))
    return x / (norm + 1e-10)


def _statistics(x: Features, y: Features) -> tuple[Array, Array]:
    """Similarity of means (Eq. 5) and of covariances (Eq. 6), [N, c] each."""
    x_mean, y_mean = (jnp.mean(v, axis=(1, 2), keepdims=True) for v in (x, y))
    x_var, y_var = jnp.var(x, axis=(1, 2)), jnp.var(y, axis=(1, 2))
    covariance = jnp.mean((x - x_mean) * (y - y_mean), axis=(1, 2))
    x_mean, y_mean = (v[:, 0, 0] for v in (x_mean, y_mean))
    eps = 1e-6
    texture = (2 * x_mean * y_mean + eps) / (x_mean**2 + y_mean**2 + eps)
    structure = (2 * covariance + eps) / (x_var + y_var + eps)
    return texture, structure
