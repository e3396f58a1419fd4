"""One video, from its first look to the output under its name."""

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs import journal, runner
from realisvsr_jax.jobs.plan import Plan, make_steps
from realisvsr_jax.jobs.scene import Weights
from realisvsr_jax.jobs.survey import Survey, check_kind, survey
from realisvsr_jax.video import VideoInfo, check_output, stream_video
from realisvsr_jax.video.encoding import Coding, check_coding
from realisvsr_jax.video.segments import Format
from realisvsr_jax.video.writing import kind_of

log = logging.getLogger(__name__)

Progress = Callable[[str, float, int | None], object]


@dataclass(frozen=True)
class Request:
    """What is asked for. `settings` is whatever else shapes the result, for the journal."""

    input: str
    output: str
    start: int = 0
    frames: int | None = None
    scenes: bool = True
    coding: Coding = field(default_factory=Coding)
    settings: dict[str, Any] = field(default_factory=dict)
    resume: bool = False
    overwrite: bool = False

    def identity(self) -> dict[str, Any]:
        """What a journal must agree with."""
        source = Path(self.input)
        return {
            "input": {**journal.fingerprint(source), "modified": _modified(source)},
            "start": self.start,
            "frames": self.frames,
            "scenes": self.scenes,
            "coding": dataclasses.asdict(self.coding),
            **self.settings,
        }


@dataclass(frozen=True)
class Report:
    """What came of it; `damage` says why the video ended before it should have."""

    frames: int
    size: tuple[int, int]
    seconds: float
    damage: str | None
    stages: runner.Seconds = field(default_factory=runner.Seconds)


def restore_file(
    request: Request,
    weights: Weights,
    *,
    progress: Progress = lambda *_: None,
    done: Callable[[Report], object] = lambda _: None,
) -> Report:
    """Restores one video, folder of frames or picture; goes on where `request.resume` says so.

    `progress` is called with a stage, the frames it has done, and their number where it is known;
    `done` once the output has its name and before the journal goes. Raises InputError for what
    cannot be done; what was restored by then is kept in the journal.
    """
    began = time.monotonic()
    target = Path(os.path.realpath(request.output))
    check_place(request)
    info = glance(request, weights)
    with journal.opened(
        target, request.identity(), resume=request.resume, overwrite=request.overwrite
    ) as kept:
        found = kept.survey()
        if found is None:
            found = look(request, info.num_frames, progress)
            kept.keep_survey(found)
        progress("restoring", 0, found.frames)
        plan = make_plan(request, found, weights)
        _announce(plan, kept)
        stages = runner.Seconds()
        if kept.done < len(plan.steps):
            # What came to this name meanwhile is not ours to replace.
            _check_output(request, kept.replaces)
            plan.check_room(kept.folder)
            scene = weights.scene(found.info)
            stages = runner.run(
                plan, scene, kept, lambda frames: progress("restoring", frames, found.frames)
            )
        progress("restoring", found.frames, found.frames)
        report = Report(
            found.frames, plan.outlook.size, time.monotonic() - began, found.damage, stages
        )
        runner.finish(plan, kept, lambda: done(report))
    return report


def dry_run(request: Request, weights: Weights) -> Iterator[str]:
    """The plan in lines; nothing is written. Raises InputError for what would be refused."""
    target = Path(os.path.realpath(request.output))
    info = glance(request, weights)
    plan = make_plan(request, look(request, info.num_frames), weights)
    folder = journal.folder_of(target)
    yield from plan.lines(folder)
    plan.check_room(folder)


def glance(request: Request, weights: Weights) -> VideoInfo:
    """What can be known from the first frame; InputError for what is refused at once."""
    damage: list[str] = []
    try:
        info, _ = stream_video(request.input, damage=damage)
    except InputError as error:
        raise InputError(damage[0] if damage else str(error)) from error
    check_kind(request.input, info, quiet=True)
    weights.outlook(info)
    return info


def look(
    request: Request, frames: int | None = None, progress: Progress = lambda *_: None
) -> Survey:
    """The first pass over the input, which by its header has so many frames."""
    total = request.frames or (None if frames is None else frames - request.start)
    return survey(
        request.input,
        request.start,
        request.frames,
        scenes=request.scenes,
        progress=lambda frames: progress("looking", frames, total),
    )


def make_plan(request: Request, found: Survey, weights: Weights) -> Plan:
    """InputError for what does not fit together: size, codec, pixel format, kind of output."""
    target = Path(os.path.realpath(request.output))
    kind = kind_of(target)
    if kind == "picture" and found.frames > 1:
        raise InputError(
            f"{request.output} is one picture, {request.input} has {found.frames} frames; name a "
            "video, or a folder for frames"
        )
    outlook = weights.outlook(found.info)
    height, width = outlook.size
    info = dataclasses.replace(found.info, time_base=found.times.unit)
    suffix = target.suffix.lower() if kind == "video" else ".mkv"
    form = Format(suffix, info, width, height, request.coding)
    if kind == "video":
        check_coding(suffix, info, width, height, request.coding)
    return Plan(
        *(request.input, request.output, kind, found, outlook, form),
        steps=make_steps(found, outlook),
        start=request.start,
    )


def check_place(request: Request) -> None:
    """As `check_output`; a resumed job may find what it was begun to replace, or its own output."""
    target = Path(os.path.realpath(request.output))
    if request.resume and request.overwrite:
        raise InputError("--resume goes on, --overwrite begins anew; give one of them")
    _check_input(request)
    resumed = request.resume and (journal.folder_of(target) / "plan.json").exists()
    _check_output(request, request.overwrite or resumed)


def nothing_left(request: Request) -> bool:
    """Whether `request.resume` finds an output and no job of it: there is nothing to go on with.

    Raises InputError as `check_place` does for an input that is missing or the output itself.
    """
    target = Path(os.path.realpath(request.output))
    if (
        not request.resume
        or request.overwrite
        or (journal.folder_of(target) / "plan.json").exists()
    ):
        return False
    if not (target.is_file() or (target.is_dir() and any(target.iterdir()))):
        return False
    _check_input(request)
    _check_output(request, overwrite=True)
    return True


def _check_input(request: Request) -> None:
    if not os.path.exists(request.input):
        raise InputError(f"{request.input}: no such file; check the path")


def _check_output(request: Request, overwrite: bool) -> None:
    check_output(request.output, inputs=[request.input], overwrite=overwrite, picture=True)


def _announce(plan: Plan, kept: journal.Journal) -> None:
    for line in plan.lines(kept.folder):
        log.info("%s", line)
    if kept.done:
        log.info("going on after window %d of %d", kept.done, len(plan.steps))


def _modified(source: Path) -> int:
    files = source.iterdir() if source.is_dir() else [source]
    return max((file.stat().st_mtime_ns for file in files), default=0)
