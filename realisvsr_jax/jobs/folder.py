"""A folder of videos: one after the other, those of this process; what failed is written down."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realisvsr_jax.errors import InputError
from realisvsr_jax.files import write_json
from realisvsr_jax.jobs import journal
from realisvsr_jax.jobs.scene import Weights
from realisvsr_jax.jobs.single import Progress, Report, Request, restore_file
from realisvsr_jax.video.encoding import FORMATS
from realisvsr_jax.video.folders import PICTURES

log = logging.getLogger(__name__)

VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".vob", ".wmv", ".asf", ".flv", ".3gp", ".ogv", ".mxf", ".dv", ".y4m", ".gif"),
)
_SHARES = (
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)


@dataclass(frozen=True)
class Share:
    """Which of `count` processes this is: it does every `count`-th file from `index` on."""

    index: int = 0
    count: int = 1


def share_of(
    index: int | None, count: int | None, environment: Mapping[str, str] = os.environ
) -> Share | None:
    """From what was given, or from Slurm or Open MPI; None where nothing says so."""
    if (index is None) != (count is None):
        raise InputError("--process_id and --num_processes go together: give both")
    if index is not None and count is not None:
        if not 0 <= index < count:
            raise InputError(f"--process_id is {index}; of {count} it goes from 0 to {count - 1}")
        return Share(index, count)
    for rank, size in _SHARES:
        if rank in environment and size in environment:
            return Share(int(environment[rank]), int(environment[size]))
    return None


def holds_videos(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with videos in it; pictures beside them do not make it frames."""
    return Path(path).is_dir() and bool(_videos(Path(path)))


def restore_folder(
    request: Request,
    weights: Weights,
    *,
    share: Share = Share(),
    progress: Progress = lambda *_: None,
    say: Callable[[str, Report], object] = lambda *_: None,
) -> None:
    """Restores each video of the folder `request.input` into the folder `request.output`.

    What an earlier run of the same command did is skipped, what it left unfinished goes on, and
    after a failure the next one is taken. Of each, restored.json says what came of it. Raises
    InputError at the end where not all is well.
    """
    source, target = Path(request.input), Path(request.output)
    check_place(request)
    everything = requests(request)
    target.mkdir(exist_ok=True)
    if any(path.suffix.lower() in PICTURES for path in source.iterdir()):
        log.info("%s: pictures beside the videos are left out", source)
    results = _Results(target, share)
    mine = everything[share.index :: share.count]
    for number, one in enumerate(mine, 1):
        if not request.overwrite and results.are_done(one):
            log.info("%s is done", one.output)
            continue
        log.info("%d of %d: %s", number, len(mine), one.input)
        _restore(one, weights, results, progress, say)
    failed, partial = results.of("failed"), results.of("partial")
    problems = [
        f"{len(found)} of {len(mine)} files {what}"
        for found, what in ((failed, "failed"), (partial, "were restored in part"))
        if found
    ]
    if problems:
        raise InputError(f"{' and '.join(problems)}; {results.path} says why")


def requests(request: Request) -> list[Request]:
    """Those of a folder's videos, each of which goes on by itself; else the request alone."""
    if not holds_videos(request.input):
        return [request]
    source, target = Path(request.input), Path(request.output)
    names = _outputs(_videos(source))
    return [
        replace(
            request,
            input=str(path),
            output=str(target / names[path]),
            resume=not request.overwrite,
        )
        for path in sorted(names)
    ]


def check_place(request: Request) -> None:
    """InputError where the output cannot be the folder of the input's videos."""
    source, target = Path(request.input), Path(request.output)
    if target.suffix.lower() in (*FORMATS, ".png") or target.is_file():
        raise InputError(f"{target}: {source} is a folder of videos; name a folder as output")
    if target.exists() and target.samefile(source):
        raise InputError(f"{target} is the input itself; name another folder")
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist; create it first")


def _restore(
    request: Request,
    weights: Weights,
    results: "_Results",
    progress: Progress,
    say: Callable[[str, Report], object],
) -> None:
    def done(report: Report) -> None:
        status = "partial" if report.damage else "done"
        results.keep(request, status, report.damage, frames=report.frames)

    try:
        say(request.output, restore_file(request, weights, progress=progress, done=done))
    except InputError as error:
        log.warning("failed: %s", error)
        results.keep(request, "failed", str(error))
    except Exception as error:  # one file must not end the work on the others
        log.exception("failed: %s", request.input)
        results.keep(request, "failed", f"{type(error).__name__}: {error}")


class _Results:
    """What came of each file, in restored.json; of several processes each has its own."""

    def __init__(self, folder: Path, share: Share):
        alone = share.count == 1
        name = "restored.json" if alone else f"restored.{share.index}-of-{share.count}.json"
        self.path = folder / name
        self._own: dict[str, Any] = {}
        self._earlier: dict[str, Any] = {}
        for path in sorted(folder.glob("restored*.json")):
            self._earlier.update(json.loads(path.read_text()))

    def are_done(self, request: Request) -> bool:
        """Whether the same command has made this output, and it is there."""
        old = self._earlier.get(Path(request.input).name)
        if old is None or old["status"] == "failed" or not os.path.exists(request.output):
            return False
        if old["command"] != _command(request):
            return False
        self._write(Path(request.input).name, old)
        return True

    def keep(self, request: Request, status: str, reason: str | None, **more: Any) -> None:
        """Writes down what came of a file."""
        entry = {"status": status, "output": Path(request.output).name, **more}
        if reason:
            entry["reason"] = reason
        self._write(Path(request.input).name, {**entry, "command": _command(request)})

    def of(self, status: str) -> list[str]:
        """The files of this process with a status."""
        return [name for name, entry in self._own.items() if entry["status"] == status]

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        self._own[name] = entry
        write_json(self.path, self._own)


def _command(request: Request) -> str:
    """Hash of a command, its input among it."""
    return journal.digest(request.identity()) if os.path.exists(request.input) else ""


def _videos(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in VIDEOS and path.is_file() and path.name[0] != "."
    )


def _outputs(files: list[Path]) -> dict[Path, str]:
    """A name for each: its own where its format can be written, else Matroska; all different."""
    names = {path: path.name for path in files if path.suffix.lower() in FORMATS}
    taken = {name.lower() for name in names.values()}
    for path in files:
        if path not in names:
            short = f"{path.stem}.mkv"
            names[path] = f"{path.name}.mkv" if short.lower() in taken else short
            taken.add(names[path].lower())
    return names
