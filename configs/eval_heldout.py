"""The shipped weights on windows of four clips that were never trained on (docs/tiny.md).

python demo/fetch_footage.py --held-out data/heldout
python -m realisvsr_jax.evaluate --config configs/eval_heldout.py --output out/eval_heldout
"""

from typing import Any

from configs import eval_set


def get_config() -> Any:
    """`eval_set` on 9 frames of 256×256, carphone's of 144×176; Real-ESRGAN beside us."""
    config = eval_set.get_config()
    config.truth = "data/heldout"
    config.cuts = tuple(
        dict(zip(("name", "file", "start", "frames", "top", "left", "height", "width"), cut))
        for cut in (
            ("city", "city.mpg", 30, 9, 120, 164, 256, 256),
            ("bikes", "bikes.mp4", 60, 9, 8, 192, 256, 256),
            ("carphone", "carphone.mp4", 30, 9, 0, 0, 144, 176),
            ("phone", "phone.mp4", 16, 9, 412, 832, 256, 256),
        )
    )
    config.baselines = ("bicubic", "realesrgan-x4plus", "realesr-animevideov3")
    return config
