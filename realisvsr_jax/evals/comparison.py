"""Several systems against one reference, clip by clip; finished clips' scores are kept.

found = compare({"ours": Path("restored")}, Path("GT"), Path("report"), Settings())
write(found, Path("report"))       # realisvsr_jax.evals.written
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax.data.testset import layout_named
from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import columns
from realisvsr_jax.evals.alignment import Shift
from realisvsr_jax.evals.footage import Footage, Pair, look, matched, pair
from realisvsr_jax.evals.ledger import Ledger
from realisvsr_jax.evals.media import Media, Recorder
from realisvsr_jax.evals.meters import CHANGES, SHIFT, Found, measure
from realisvsr_jax.evals.no_reference import PYIQA_NAMES, Scorer, start_dover, start_pyiqa
from realisvsr_jax.evals.temporal import border_score, window_borders

log = logging.getLogger(__name__)

LEDGER = "scores.jsonl"
_FORMAT = 2  # of what the ledger has; another one does not count


@dataclass(frozen=True)
class Settings:
    """What is scored, and how.

    `pyiqa` is a Python interpreter, `dover` is "PYTHON:FOLDER". `window` and `window_overlap` are
    those of the restoration, in frames. The reference's sides are cropped to multiples of
    `mod_crop`, as those of the ground truth are where it is degraded. `row` is the temporal
    profile's, as a share of the height.
    """

    metrics: tuple[str, ...] = columns.DEFAULT
    upscale_bicubic: bool = False
    mod_crop: int = 1
    pyiqa: str | None = None
    dover: str | None = None
    window: int | None = None
    window_overlap: int = 0
    layout: str | None = None
    clips: tuple[str, ...] = ()
    pictures: bool = True
    row: float = 0.5
    title: str | None = None


@dataclass(frozen=True)
class ClipScores:
    """Of one clip of one system: scores, reasons for those that are absent, and what was seen."""

    scores: dict[str, float]
    absent: dict[str, str]
    shift: Shift | None
    footage: Pair
    media: Media | None = None


@dataclass(frozen=True)
class Comparison:
    """By system, then clip. `truth` has the reference's pictures by clip."""

    title: str
    settings: Settings
    systems: dict[str, dict[str, ClipScores]]
    truth: dict[str, Media] = field(default_factory=dict)
    has_reference: bool = True

    @property
    def clips(self) -> list[str]:
        """Their names."""
        return list(next(iter(self.systems.values())))

    def scored(self, metric: str) -> list[str]:
        """The clips that any system has a score of; the others are too small for it, say."""
        systems = self.systems.values()
        return [name for name in self.clips if any(metric in s[name].scores for s in systems)]

    def mean(self, system: str, metric: str) -> float | None:
        """Over `scored` clips, each counting once; None where one of them has no score here."""
        clips = self.systems[system]
        values = [clips[name].scores.get(metric) for name in self.scored(metric)]
        present = [value for value in values if value is not None]
        return float(np.mean(present)) if present and len(present) == len(values) else None

    def reason(self, system: str, metric: str) -> str:
        """Why there is no mean."""
        reasons = [
            clip.absent[metric] for clip in self.systems[system].values() if metric in clip.absent
        ]
        some = f" ({len(reasons)} of {len(self.clips)} clips)"
        return reasons[0] + (some if len(reasons) < len(self.clips) else "")


def compare(
    systems: Mapping[str, Path],
    reference: Path | None,
    output: Path,
    settings: Settings,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> Comparison:
    """Scores the clips of every system; `progress` is given clips done and clips in all.

    What `output` has of files that are unchanged is not scored again. All sizes and lengths are
    compared before anything is scored. Raises InputError for whatever cannot be compared.
    """
    if not systems:
        raise InputError("there is no system to score")
    _check(settings)
    paths, truth = matched(systems, reference, settings.layout, settings.clips)
    pairs = _pairs(paths, truth, settings)
    output.mkdir(parents=True, exist_ok=True)
    ledger = _ledger(output / LEDGER)
    total = sum(map(len, pairs.values()))
    found: dict[str, dict[str, ClipScores]] = {}
    truth_media: dict[str, Media] = {}
    with _programs(settings, systems, pairs, ledger) as programs:
        done = 0
        for system, clips in pairs.items():
            found[system] = {}
            for name, footage in clips.items():
                progress(done, total)
                recorder = Recorder(output, name, footage, settings.row)
                scores = _scores(name, footage, settings, ledger, programs, recorder)
                if settings.pictures and (media := recorder.truth):
                    truth_media[name] = media
                found[system][name] = _clip(scores, footage, settings, recorder.media)
                _warn(system, name, found[system][name])
                done += 1
        progress(done, total)
    title = settings.title or settings.layout or (reference or next(iter(systems.values()))).name
    return Comparison(title, settings, found, truth_media, reference is not None)


def _check(settings: Settings) -> None:
    if settings.layout is not None:
        layout_named(settings.layout)
    if settings.window is not None and not 0 <= settings.window_overlap < settings.window:
        raise InputError(
            f"windows of {settings.window} frames cannot overlap by {settings.window_overlap}"
        )
    if not 0 <= settings.row <= 1:
        raise InputError(f"the profile's row is a share of the height, 0 to 1, not {settings.row}")


def _pairs(
    paths: Mapping[str, Mapping[str, Path]], truth: Mapping[str, Path] | None, settings: Settings
) -> dict[str, dict[str, Pair]]:
    """All that are scored; every clip is looked at, and each reference once."""
    references: dict[str, Footage] = {
        name: look(path, settings.mod_crop) for name, path in (truth or {}).items()
    }
    found: dict[str, dict[str, Pair]] = {}
    for system, clips in paths.items():
        found[system] = {
            name: pair(
                name,
                _cropped_alike(look(path), references.get(name), settings.mod_crop),
                references.get(name),
                settings.upscale_bicubic,
            )
            for name, path in clips.items()
        }
    return found


def _cropped_alike(restored: Footage, reference: Footage | None, mod_crop: int) -> Footage:
    """A clip of the size that the reference had before it was cropped is cropped as well."""
    whole = reference is not None and restored.size == reference.whole != reference.size
    return look(restored.path, mod_crop) if whole else restored


def _ledger(path: Path) -> Ledger:
    try:
        return Ledger(path)
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise InputError(f"{path} cannot be understood: {error}; remove it") from error


def _key(name: str, clip: str, footage: Pair, settings: Settings) -> tuple[str | int, ...]:
    """What decides a score."""
    by = {"pyiqa": settings.pyiqa, "dover": settings.dover}
    needs = columns.METRICS[name].needs if name in columns.METRICS else ""
    reference = footage.reference.version if footage.reference else ""
    return _FORMAT, name, clip, footage.restored.version, reference, by.get(needs) or ""


def _kept(settings: Settings) -> list[str]:
    """What is asked of each clip; flicker is made of the changes, whatever the window is."""
    names = [name for name in settings.metrics if name != "flicker"]
    return [*names, *([CHANGES] if "flicker" in settings.metrics else []), SHIFT]


def _scores(
    clip: str,
    footage: Pair,
    settings: Settings,
    ledger: Ledger,
    programs: Mapping[str, Scorer],
    recorder: Recorder,
) -> Found:
    keys = {name: _key(name, clip, footage, settings) for name in _kept(settings)}
    missing = [name for name, key in keys.items() if key not in ledger.rows]
    watch = [recorder.add] if settings.pictures and not recorder.whole else []
    if missing or watch:
        fresh = measure(footage, missing, programs, watch)
        if watch:
            recorder.write()
        for name, value in fresh.items():
            if not (isinstance(value, dict) and "absent" in value):
                ledger.put(keys[name], value)
    else:
        fresh = {}
    return {name: ledger.rows.get(key, fresh.get(name)) for name, key in keys.items()}


def _clip(found: Found, footage: Pair, settings: Settings, media: Media | None) -> ClipScores:
    found = dict(found)
    changes, moved = found.pop(CHANGES, None), found.pop(SHIFT)
    if "flicker" in settings.metrics:
        found["flicker"] = _flicker(changes, footage, settings)
    absent = {name: v["absent"] for name, v in found.items() if isinstance(v, dict)}
    scores = {name: float(found[name]) for name in settings.metrics if name not in absent}
    shift = (
        None
        if "absent" in moved
        else Shift(tuple(moved["whole"]), tuple(moved["fine"]), moved["gain"])
    )
    return ClipScores(scores, absent, shift, footage, media if settings.pictures else None)


def _flicker(changes: Any, footage: Pair, settings: Settings) -> Any:
    if settings.window is None:
        return {"absent": "no windows named: give --window FRAMES"}
    if isinstance(changes, dict):
        return changes
    borders = window_borders(footage.restored.frames, settings.window, settings.window_overlap)
    score = border_score(changes, borders) if borders else None
    if score is None:
        return {"absent": f"no border of windows of {settings.window} frames in the clip"}
    return score.ratio


def _warn(system: str, name: str, clip: ClipScores) -> None:
    if clip.footage.restored.lossy:
        log.warning("%s, %s: lossy input (%s)", system, name, clip.footage.restored.lossy)
    if clip.shift is not None and clip.shift.noticed:
        log.warning(
            "%s, %s: lies %.2f pixels to the right and %.2f down of its reference (whole: %d, %d)",
            *(system, name, clip.shift.right, clip.shift.down, *clip.shift.whole),
        )


@contextlib.contextmanager
def _programs(
    settings: Settings,
    systems: Mapping[str, Path],
    pairs: Mapping[str, Mapping[str, Pair]],
    ledger: Ledger,
) -> Iterator[dict[str, Scorer]]:
    """Those of other environments that something is still asked of; the rest need not start."""
    asked: dict[str, list[str]] = {columns.PYIQA: [], columns.DOVER: []}
    for name in settings.metrics:
        needs = columns.METRICS[name].needs
        keys = (
            _key(name, clip, footage, settings)
            for clips in pairs.values()
            for clip, footage in clips.items()
        )
        if needs in asked and any(key not in ledger.rows for key in keys):
            asked[needs].append(name)
    with contextlib.ExitStack() as stack:
        programs: dict[str, Scorer] = {}
        if settings.pyiqa and asked[columns.PYIQA]:
            names = [name for name in PYIQA_NAMES if name in asked[columns.PYIQA]]
            programs["pyiqa"] = stack.enter_context(start_pyiqa(settings.pyiqa, names))
        if settings.dover and asked[columns.DOVER]:
            programs["dover"] = stack.enter_context(start_dover(settings.dover))
        yield programs
