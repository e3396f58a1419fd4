"""Clips into record shards: a survey of all, a plan, the shards.

The survey (hash, sizes, caption of each clip) and the finished shards are written down as they
come, so that a killed run goes on. Everything else is a pure function of the survey, in the order
of the clips' names.
"""

import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realisvsr_jax.data import records
from realisvsr_jax.data.set_folder import check_beside, check_folder, locked
from realisvsr_jax.data.shards import write_shard
from realisvsr_jax.data.sources import caption_path, clip_paths, describe_clip
from realisvsr_jax.errors import InputError
from realisvsr_jax.files import append_lines, replacing, sync, write_json
from realisvsr_jax.video import list_frames
from realisvsr_jax.video.writing import room

log = logging.getLogger(__name__)

LARGE = 256_000_000  # bytes of a clip that are better cut: each reading takes a whole record
CAPTIONS = "captions.json"
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Options:
    """Of packing; a shard ends at so many `clips` or so many `bytes`, whichever is given."""

    clips: int | None = None
    bytes: int | None = 1_000_000_000
    keep_duplicates: bool = False
    workers: int | None = None


def pack(
    source: Path,
    target: Path,
    options: Options = Options(),
    *,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Makes the shards, the index and `records.json`, which is returned.

    Its bytes, and those of all files, depend on the clips and the options alone, not on
    `workers` nor on interruptions. `progress` is given the stage, how many clips are done, and
    of how many. Raises InputError for folders that cannot serve, for a folder that was begun
    with other clips or options, and for clips that change meanwhile.
    """
    _check_folders(source, target)
    paths = clip_paths(source)
    if not paths:
        raise InputError(f"{source} has no videos and no folders of frames; name one that has")
    settings = _settings(source, paths, options)
    if not overwrite and (target / records.MANIFEST).is_file():
        manifest = records.read_manifest(target)
        _check_settings(target, settings, manifest["packed"])
        for shard in manifest["shards"]:
            if damage := records.readable(target / shard["name"], shard)[1]:
                raise InputError(f"{target / shard['name']} {damage}; --overwrite packs all anew")
        shutil.rmtree(target / records.UNFINISHED, ignore_errors=True)
        return manifest
    notes = target / records.UNFINISHED / "settings.json"
    if overwrite:
        _check_foreign(target, overwrite=True)
    else:
        _check_begun(target, notes, settings)
    with room(target, "free some; the same command goes on"), _locked(target):
        if overwrite:
            _remove(target)
        write_json(notes, settings)
        manifest = _pack(source, target, paths, options, progress) | {"packed": settings}
        write_json(target / records.MANIFEST, manifest)
        shutil.rmtree(target / records.UNFINISHED)
    return manifest


def _pack(
    source: Path, target: Path, paths: Sequence[Path], options: Options, progress: Progress
) -> dict[str, Any]:
    """Everything but `records.json`, whose content is returned."""
    found = _survey(source, target, paths, options, progress)
    kept, left_out = _select(found, options.keep_duplicates)
    if not kept:
        raise InputError(f"{source}: no clip can be read, the first: {left_out[0]['reason']}")
    shards = _write_shards(source, target, _parts(kept, options), options, progress)
    records.write_index(target, kept)
    write_json(target / CAPTIONS, sorted({clip["caption"] for clip in kept} - {""}))
    return {
        "format": records.FORMAT,
        "clips": len(kept),
        "inputs": len(paths),
        "shards": shards,
        "left_out": left_out,
    }


def _check_folders(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise InputError(f"--input {source} is no folder; name one of videos or frames")
    check_folder(target)
    check_beside(target, source)


def _settings(source: Path, paths: Sequence[Path], options: Options) -> dict[str, Any]:
    """What decides the bytes: the options, and the clips by names and sizes."""
    digest = hashlib.sha256()
    for path in paths:
        caption = caption_path(path)
        sizes = [file.stat().st_size for file in _files(path)]
        sizes += [caption.stat().st_size] if caption.is_file() else []
        digest.update(json.dumps([_name(path, source), sizes]).encode())
    return {
        "clips": len(paths),
        "names_and_sizes": digest.hexdigest(),
        "shard": f"{options.clips} clips" if options.clips else f"{options.bytes} bytes",
        "keep_duplicates": options.keep_duplicates,
    }


def _name(path: Path, source: Path) -> str:
    """A clip's name in its record; '.' where the input itself is a folder of frames."""
    return path.relative_to(source).as_posix()


def _files(path: Path) -> list[Path]:
    """A video's file, or a folder's pictures."""
    return list_frames(path) if path.is_dir() else [path]


def _check_settings(target: Path, now: dict[str, Any], before: dict[str, Any]) -> None:
    for key, value in now.items():
        if before.get(key) != value:
            what = "the clips are others than" if key in ("clips", "names_and_sizes") else ""
            what = what or f"{key} is {value}, it was {before.get(key)}"
            raise InputError(
                f"{target}: {what} when it was begun; take another folder (data.sources takes "
                "several), or --overwrite"
            )


def _check_begun(target: Path, notes: Path, settings: dict[str, Any]) -> None:
    """Refuses a folder with something else in it than these settings' unfinished packing."""
    if notes.is_file():
        _check_settings(target, settings, json.loads(notes.read_text()))
    else:
        _check_foreign(target, overwrite=False)


def _check_foreign(target: Path, *, overwrite: bool) -> None:
    """InputError for other things in the folder; beside records, `overwrite` leaves them alone."""
    names = {path.name for path in target.iterdir()} if target.exists() else set()
    if names <= {records.UNFINISHED}:
        return
    if not names & {records.MANIFEST, records.UNFINISHED}:
        raise InputError(f"--output {target} is not empty and has no records; name a new folder")
    if not overwrite:
        raise InputError(f"--output {target} is not empty; name a new folder, or add --overwrite")


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """The folder of what is unfinished, for one process at a time."""
    unfinished = target / records.UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    with locked(unfinished, f"{target}: another process packs into it"):
        yield


def _remove(target: Path) -> None:
    """Takes away what packing made, and nothing else."""
    # The manifest first: from then on the folder is unfinished.
    for name in (records.MANIFEST, records.INDEX, CAPTIONS):
        (target / name).unlink(missing_ok=True)
    for pattern in (f"clips-*{records.SUFFIX}", ".clips-*.partial", f"{records.UNFINISHED}/*"):
        for path in target.glob(pattern):
            path.unlink()


def _survey(
    source: Path, target: Path, paths: Sequence[Path], options: Options, progress: Progress
) -> list[dict[str, Any]]:
    """Of each clip its header, or `name` and `reason`; what was found is written down at once."""
    with _Journal(target / records.UNFINISHED / "survey.jsonl") as journal:
        done = {entry["name"]: entry for entry in journal.entries}
        left = [path for path in paths if _name(path, source) not in done]

        def look(path: Path) -> dict[str, Any]:
            entry = _describe(path, _name(path, source))
            if "reason" in entry:
                log.warning("left out: %s", entry["reason"])
            journal.add(entry)
            return entry

        for entry in _in_parallel(look, left, options.workers):
            done[entry["name"]] = entry
            progress("reading", len(done), len(paths))
    return [done[_name(path, source)] for path in paths]


def _describe(path: Path, name: str) -> dict[str, Any]:
    try:
        clip = describe_clip(path)
        digest, lengths = hashlib.sha256(), []
        for file in _files(path):
            with file.open("rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
            lengths.append((file.name, file.stat().st_size))
    except InputError as error:
        return {"name": name, "reason": str(error)}
    except OSError as error:
        return {"name": name, "reason": f"{path} cannot be read: {error.strerror}"}
    return {
        "name": name,
        "caption": clip.caption,
        "sha256": digest.hexdigest(),
        "frames": clip.num_frames,
        "height": clip.height,
        "width": clip.width,
        "bytes": sum(length for _, length in lengths),
        "pictures": lengths if path.is_dir() else None,
    }


def _select(
    found: Sequence[dict[str, Any]], keep_duplicates: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The clips to pack, in order, and those left out with the reason."""
    kept: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    chosen: dict[str, dict[str, Any]] = {}
    for entry in found:
        if "reason" not in entry:
            # Of several, the first that has a caption.
            before = chosen.setdefault(entry["sha256"], entry)
            if entry["caption"] and not before["caption"]:
                chosen[entry["sha256"]] = entry
    for entry in found:
        if "reason" in entry:
            left_out.append(entry)
            continue
        same = chosen[entry["sha256"]]
        if same is entry or keep_duplicates:
            kept.append(entry)
            continue
        reason = f"the same bytes as {same['name']}"
        double = {"name": entry["name"], "reason": reason, "same_as": same["name"]}
        if entry["caption"] not in ("", same["caption"]):
            double["caption"] = entry["caption"]
        left_out.append(double)
    large = [entry for entry in kept if entry["bytes"] > LARGE]
    if large:
        log.warning(
            "%d clips have more than %d MB, such as %s with %d frames: each reading of a crop "
            "takes the whole record; cut films into clips first",
            *(len(large), LARGE // 10**6, large[0]["name"], large[0]["frames"]),
        )
    return kept, left_out


def _parts(kept: Sequence[dict[str, Any]], options: Options) -> list[list[dict[str, Any]]]:
    """The clips of each shard: as many as the limit holds, at least one."""
    parts: list[list[dict[str, Any]]] = [[]]
    size = 0
    for entry in kept:
        full = len(parts[-1]) == options.clips or (
            options.bytes is not None and size + entry["bytes"] > options.bytes
        )
        if full and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += entry["bytes"]
    return parts


def _write_shards(
    source: Path,
    target: Path,
    parts: Sequence[list[dict[str, Any]]],
    options: Options,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Writes the shards that are not there yet; of each its name, clips, bytes and checksum."""
    names = [f"clips-{k:05}-of-{len(parts):05}{records.SUFFIX}" for k in range(len(parts))]
    total = sum(map(len, parts))
    with _Journal(target / records.UNFINISHED / "shards.jsonl") as journal:
        done = {
            entry["name"]: entry for entry in journal.entries if (target / entry["name"]).is_file()
        }
        left = [k for k, name in enumerate(names) if name not in done]

        def write(number: int) -> dict[str, Any]:
            entry = _write_shard(source, target / names[number], parts[number])
            journal.add(entry)
            return entry

        for entry in _in_parallel(write, left, options.workers):
            done[entry["name"]] = entry
            progress("packing", sum(entry["clips"] for entry in done.values()), total)
    return [done[name] for name in names]


def _write_shard(source: Path, path: Path, part: Sequence[dict[str, Any]]) -> dict[str, Any]:
    try:
        with replacing(path) as partial:
            write_shard(partial, (_record(source, entry) for entry in part))
            sync(partial)
            with partial.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = partial.stat().st_size
    except RuntimeError as error:  # ArrayRecord's
        raise InputError(f"cannot write {path}: {error}; free space and go on") from error
    return {"name": path.name, "clips": len(part), "bytes": size, "sha256": digest}


def _record(source: Path, entry: dict[str, Any]) -> bytes:
    path = source / entry["name"]
    try:
        payload = b"".join(file.read_bytes() for file in _files(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read any more: {error.strerror}") from error
    if hashlib.sha256(payload).hexdigest() != entry["sha256"]:
        raise InputError(f"{path} has changed since packing began; --overwrite packs anew")
    header = {key: value for key, value in entry.items() if key != "bytes" and value is not None}
    return records.pack_record(header, payload)


def _in_parallel(
    work: Callable[[Any], dict[str, Any]], items: Sequence[Any], workers: int | None
) -> Iterator[dict[str, Any]]:
    """Results as they come; after an error, or when stopped, what has not begun is left."""
    count = workers or os.cpu_count() or 1
    pool = concurrent.futures.ThreadPoolExecutor(count)
    left, waiting = iter(items), set()
    try:
        while True:
            # Few at a time: of a million tasks that wait, each would take a kilobyte.
            ahead = itertools.islice(left, 4 * count - len(waiting))
            waiting |= {pool.submit(work, item) for item in ahead}
            if not waiting:
                return
            done, waiting = concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Journal:
    """A file with a JSON object a line; a line that was cut off by a kill does not count."""

    def __init__(self, path: Path):
        self._file, self._lock = append_lines(path), threading.Lock()
        self.entries = [json.loads(line) for line in path.read_text().splitlines()]

    def add(self, entry: dict[str, Any]) -> None:
        """Writes an entry; may be called from several threads."""
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
