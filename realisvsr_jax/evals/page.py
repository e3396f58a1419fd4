"""The report as a page that opens from a disk: one file, and its pictures beside it."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from realisvsr_jax.evals import columns
from realisvsr_jax.evals.comparison import ClipScores, Comparison
from realisvsr_jax.evals.crops import detailed_crops
from realisvsr_jax.evals.media import Media
from realisvsr_jax.evals.tables import general, plain, remarks
from realisvsr_jax.video import read_frames


def page(found: Comparison, output: Path) -> str:
    """The HTML. Windows to enlarge are chosen on the reference, or the first system without one."""
    template = resources.files("realisvsr_jax") / "assets" / "report" / "page.html"
    text = json.dumps(_data(found, output), ensure_ascii=False, allow_nan=False)
    # A script element ends at "</script" whatever quotes are around it.
    return template.read_text(encoding="utf-8").replace("/*DATA*/", text.replace("<", "\\u003c"))


def _data(found: Comparison, output: Path) -> dict[str, Any]:
    metrics = found.settings.metrics
    count = len(found.clips)
    return {
        "title": found.title,
        "about": f"{count} clip{'s' * (count > 1)}, {', '.join(found.systems)}"
        + ("" if found.has_reference else "; no reference"),
        "notes": general(found),
        "pictures": found.settings.pictures,
        "metrics": [
            {"name": name, **{k: getattr(columns.METRICS[name], k) for k in _OF_COLUMN}}
            for name in metrics
        ],
        "systems": [_system(found, system) for system in found.systems],
        "clips": [_clip(found, name, output) for name in found.clips],
    }


_OF_COLUMN = ("label", "detail", "better", "decimals")


def _system(found: Comparison, system: str) -> dict[str, Any]:
    means = {metric: found.mean(system, metric) for metric in found.settings.metrics}
    ranks = {}
    for metric in means:
        places = columns.ranks(metric, [found.mean(other, metric) for other in found.systems])
        ranks[metric] = places[list(found.systems).index(system)]
    return {
        "name": system,
        "remarks": remarks(found, system),
        "scores": {metric: plain(value) for metric, value in means.items() if value is not None},
        "absent": {
            metric: found.reason(system, metric) for metric, v in means.items() if v is None
        },
        "ranks": ranks,
    }


def _clip(found: Comparison, name: str, output: Path) -> dict[str, Any]:
    clips = [clips[name] for clips in found.systems.values()]
    truth = found.truth.get(name)
    height, width = clips[0].footage.size
    shown = truth or clips[0].media
    return {
        "name": name,
        "frames": clips[0].footage.restored.frames,
        "height": height,
        "width": width,
        "truth": truth and vars(truth),
        "crops": _crops(shown, output) if shown else [],
        "systems": [_one(clip) for clip in clips],
    }


def _one(clip: ClipScores) -> dict[str, Any]:
    return {
        "scores": {metric: plain(value) for metric, value in clip.scores.items()},
        "absent": clip.absent,
        "shift": clip.shift and list(clip.shift.fine),
        "media": clip.media and vars(clip.media),
    }


def _crops(media: Media, output: Path) -> list[dict[str, int]]:
    frame = read_frames(output / media.frame)[0]
    return [vars(crop) for crop in detailed_crops(frame)]
