"""The single degradations, each on a list of frames: float32 [H, W, 3], RGB, in [0, 255].

Frames of a list may differ in size behind a resize; the codec makes them equal again. Noise
leaves the range; what needs bytes (JPEG, codec, the end) clips and rounds, never casts.
Nothing here depends on the number of threads.
"""

import functools
from collections.abc import Callable, Iterable
from fractions import Fraction

import av
import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from scipy import special

from realisvsr_jax.data.degradation import kernels
from realisvsr_jax.data.degradation.plan import Blur, Codec, Jpeg, Noise, Operation, Resize

Frame = Float32[np.ndarray, "_ _ c"]
ByteFrame = UInt8[np.ndarray, "_ _ 3"]

REVISION = 2  # counts up where equal plans on equal clips give other bytes

INTERPOLATIONS = {
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "bicubic": cv2.INTER_CUBIC,
}
DECODERS = {"libx264": "h264", "mpeg4": "mpeg4"}
# Real-time encoders work like superfast; x264's default takes three times as long.
ENCODER_OPTIONS = {"libx264": {"preset": "superfast", "x264-params": "mbtree=0"}, "mpeg4": {}}
RATE = 25  # at rate 1 a small clip falls under 1 kbit/s, which libx264 refuses
LEAST_BITRATE = 1000
QUANTILE_BITS = 12  # of a Poisson distribution's table


def apply_operation(operation: Operation, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """One step of a plan; takes frames one at a time where the operation does."""
    functions: dict[type, Callable] = {
        Blur: blur,
        Resize: resize,
        Noise: add_noise,
        Jpeg: jpeg,
        Codec: video_codec,
    }
    if isinstance(operation, Noise | Codec):
        frames = list(frames)
    return functions[type(operation)](operation, frames)


def to_bytes(frame: Frame) -> UInt8[np.ndarray, "_ _ c"]:
    """Clipped to [0, 255] and rounded to the nearest grey level."""
    # OpenCV's conversion saturates, and rounds halves to even as np.rint does, in a sixth the time.
    rounded = cv2.add(frame, (0, 0, 0, 0), dtype=cv2.CV_8U)  # pyright: ignore
    return rounded.reshape(frame.shape)


def blur(operation: Blur, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Filters each frame with its kernel, trimmed; borders are mirrored."""
    blurred = []
    for t, frame in enumerate(frames):
        kernel = kernels.trimmed(kernels.kernel_of(operation, t))
        if operation.kind == "iso":  # a Gaussian, the product of two lines
            line = kernel.sum(0)
            blurred.append(cv2.sepFilter2D(frame, -1, line, line))
        else:
            blurred.append(cv2.filter2D(frame, -1, kernel))
    return blurred


def resize(operation: Resize, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Brings each frame to its own size."""
    interpolation = INTERPOLATIONS[operation.interpolation]
    return [
        cv2.resize(frame, (width, height), interpolation=interpolation)
        for frame, (height, width) in zip(frames, operation.sizes)
    ]


def add_noise(operation: Noise, frames: list[np.ndarray]) -> list[np.ndarray]:
    """A fresh field in each frame, from (seed, frame); grey noise is equal in R, G and B."""
    levels = photon_levels(frames) if operation.kind == "poisson" else 0
    noisy = []
    for t, (frame, strength) in enumerate(zip(frames, operation.strength)):
        rng = np.random.Generator(np.random.SFC64([operation.seed, t]))
        if operation.kind == "poisson":
            field = poisson_field(rng, frame, levels, operation.grey)
        else:
            field = gaussian_field(rng, (*frame.shape[:2], 1 if operation.grey else 3))
        field *= np.float32(strength)
        noisy.append(frame + field)
    return noisy


def gaussian_field(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Normal numbers, float32, looked up like `poisson_field`: none is beyond 4.3."""
    # Any mode but the one that checks indices takes a third of the time.
    return np.take(gaussian_table(), rng.integers(0, 1 << 16, shape, np.uint16), mode="clip")


@functools.cache
def gaussian_table() -> Float32[np.ndarray, "65536"]:
    """The standard normal distribution at 65,536 quantiles, mean 0 and variance 1."""
    row = special.ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))
    return ((row - row.mean()) / row.std()).astype(np.float32)


def photon_levels(frames: list[np.ndarray]) -> int:
    """Photons that white stands for: the clip's number of grey levels, up to a power of two.

    Counted over the clip, since a count a frame would jump by factors of two.
    """
    seen = np.zeros(256, bool)
    for frame in frames:
        counts = cv2.calcHist([to_bytes(frame).reshape(-1, 1)], [0], None, [256], [0, 256])
        seen |= counts.ravel() > 0
    return 1 << int(np.count_nonzero(seen) - 1).bit_length()


def poisson_field(
    rng: np.random.Generator, frame: np.ndarray, levels: int, grey: bool
) -> np.ndarray:
    """Photon noise in grey levels: zero mean, variance x · 255 / levels at grey level x.

    The definition is in [0, 1] (variance x / levels), so white noise is 255 times that; in
    [0, 255] without the factor it is √255 = 16 times too weak.
    """
    source = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None] if grey else frame
    drawn = rng.integers(0, 1 << 16, source.shape, dtype=np.uint16) >> (16 - QUANTILE_BITS)
    places = (to_bytes(source).astype(np.intp) << QUANTILE_BITS) + drawn
    return np.take(poisson_table(levels).ravel(), places, mode="clip")


@functools.lru_cache(maxsize=4)
def poisson_table(levels: int) -> Float32[np.ndarray, "grey_level quantile"]:
    """`poisson_field` at each of 256 grey levels, at 4096 quantiles: looked up, not drawn.

    A Poisson number a pixel is half the cost of a plan where one is drawn; the table is 4 MB.
    Each row has exactly the mean and variance named there; no value is farther than some
    3.7 standard deviations, since a quantile stands for 1/4096 of the distribution.
    """
    quantiles = 1 << QUANTILE_BITS
    places = (np.arange(quantiles) + 0.5) / quantiles
    rows = [np.zeros(quantiles)]
    for grey_level in range(1, 256):
        photons = grey_level * levels / 255
        counts = np.arange(int(photons + 8 * photons**0.5) + 16)
        row = np.searchsorted(special.pdtr(counts, photons), places) - photons
        row -= row.mean()
        rows.append(row * (photons / row.var()) ** 0.5 * (255 / levels))
    return np.stack(rows).astype(np.float32)


def jpeg(operation: Jpeg, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Through the JPEG codec, each frame at its quality."""
    return [_jpeg_frame(frame, quality) for frame, quality in zip(frames, operation.quality)]


def _jpeg_frame(frame: np.ndarray, quality: int) -> np.ndarray:
    bgr = cv2.cvtColor(to_bytes(frame), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    return decoded.astype(np.float32)


def video_codec(operation: Codec, frames: list[np.ndarray]) -> list[np.ndarray]:
    """Encodes the clip in memory as 4:2:0 and decodes it; odd sizes are padded and cropped."""
    height, width = operation.size
    frames = [_fit(frame, height, width) for frame in frames]
    padding = (0, height % 2, 0, width % 2)
    padded = [
        cv2.copyMakeBorder(to_bytes(frame), *padding, cv2.BORDER_REPLICATE) for frame in frames
    ]
    decoded = decode(operation.name, encode(operation.name, operation.bits_per_frame, padded))
    return [frame[:height, :width].astype(np.float32) for frame in decoded]


def _fit(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    if frame.shape[:2] == (height, width):
        return frame
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)


def encode(name: str, bits_per_frame: int, frames: list[ByteFrame]) -> list[av.Packet]:
    """Packets of a clip at rate 25 and 25 times the bits of a frame a second.

    One thread, since libx264's output differs between one and more; and no macroblock tree,
    since its lookahead reads memory that it never wrote: two runs on one thread differ.
    """
    context = av.CodecContext.create(name, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.height, context.width = frames[0].shape[:2]
    context.pix_fmt = "yuv420p"
    context.framerate = Fraction(RATE)
    context.time_base = Fraction(1, RATE)
    context.bit_rate = max(RATE * bits_per_frame, LEAST_BITRATE)
    context.thread_count = 1
    context.options = ENCODER_OPTIONS[name]
    packets = []
    for t, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture = picture.reformat(format="yuv420p", threads=1)
        picture.pts = t
        packets += context.encode(picture)
    return packets + context.encode(None)


def decode(name: str, packets: list[av.Packet]) -> list[ByteFrame]:
    """The frames of `encode`'s packets, in the order they are shown."""
    context = av.CodecContext.create(DECODERS[name], "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1
    pictures = [picture for packet in packets for picture in context.decode(packet)]
    pictures += context.decode(None)
    return [picture.reformat(format="rgb24", threads=1).to_ndarray() for picture in pictures]
