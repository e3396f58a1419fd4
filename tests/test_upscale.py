"""The entry point: a clip in, a restored one out, and one line for whatever cannot be."""

import functools
import json
import re
import resource
import shutil
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from video.making import make_video, numbered, numbers, packets

from realisvsr_jax import upscale
from realisvsr_jax.errors import run_flags
from realisvsr_jax.jobs.scene import Needs, Outlook
from realisvsr_jax.sampling import restore
from realisvsr_jax.sampling.frames import check_size
from realisvsr_jax.sampling.windows import Window
from realisvsr_jax.video import probe, read_video
from realisvsr_jax.video.folders import write_picture


class Enlarger:
    """In the place of the weights: repeats pixels, a scene in one window."""

    def __call__(self, folder, text_encoder, options, height, vae_precision):
        self.options, self.height = options, height
        return self

    def outlook(self, info):
        check_size(info.height, info.width, self.options.scale)
        scale = self.height / info.height if self.height else self.options.scale
        self.repeat = int(scale)
        size = (info.height * self.repeat, info.width * self.repeat)
        return Outlook(size, lambda n: [Window(0, range(n), range(n))], lambda _: Needs(1))

    def scene(self, info):
        return self

    def restore(self, window, frames, state, *, progress, **where):
        progress(1, 1)
        return frames.repeat(self.repeat, 1).repeat(self.repeat, 2), None

    def state_arrays(self, state):
        raise AssertionError

    state_from = state_arrays


@pytest.fixture
def enlarger(monkeypatch):
    stub = Enlarger()
    monkeypatch.setattr("realisvsr_jax.jobs.released.Released", stub)
    return stub


LOAD = functools.cache(restore.load)  # what is compiled once serves all tests


@pytest.fixture
def run(monkeypatch, capsys, caplog, tiny_release):
    """Calls the program; returns its exit status and its lines of errors."""

    monkeypatch.setattr(restore, "load", LOAD)
    caplog.set_level("INFO", logger="realisvsr_jax")

    def call(*arguments):
        for name in upscale.FLAGS:
            upscale.FLAGS[name].unparse()
        line = ["upscale", "--checkpoint", tiny_release, *arguments]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in line])
        status = run_flags(upscale.main, upscale.FLAGS)
        written = capsys.readouterr()
        call.out, call.log = written.out, caplog.text
        lines = written.err.splitlines()
        return status, [line for line in lines if line.startswith("error: ")]

    return call


@pytest.fixture
def clip(tmp_path):
    """Twelve frames of 12 × 8 with sound."""
    return make_video(tmp_path / "clip.mp4", numbered(12, 8, 12), sound="aac")


def test_the_whole_way(clip, tmp_path, tiny_release):
    """In a process of its own: size, count, times, the sound of the part, bar and messages."""
    output = tmp_path / "restored.mp4"
    command = [sys.executable, "-m", "realisvsr_jax.upscale", "--input", clip, "--output", output]
    options = ["--checkpoint", tiny_release, "--scale", "1.5", "--steps", "1", "--seed", "3"]
    part = ["--start", "9", "--frames", "20", "--color", "adain", "--guidance", "2"]
    result = subprocess.run(
        [*map(str, command), *options, *part], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "restoring: 100%" in result.stderr
    assert "restored.mp4: 3 frames of 18×12 in" in result.stderr.splitlines()[-1]
    # The bar is wiped before a message, and drawn anew behind it.
    lines = re.split("[\r\n]", result.stderr)
    assert f"{clip} has only 3 of the 20 frames asked for from 9 on" in lines
    assert "guidance 2 has no effect: both prompts are ''" in lines
    restored = read_video(output)
    assert restored.frames.shape == (3, 12, 18, 3)
    assert restored.times == tuple(Fraction(k, 25) for k in range(3))
    sound = packets(output, "audio")
    assert 0.08 < float(sound[-1][0] - sound[0][0]) < 0.15


def test_the_whole_clip_keeps_its_frames_times_and_sound(clip, tmp_path, run, enlarger):
    output = tmp_path / "out.mkv"
    assert run("--input", clip, "--output", output, "--scale", 3, "--seed", 7) == (0, [])
    assert (enlarger.options.scale, enlarger.options.seed) == (3, 7)
    assert (enlarger.options.steps, enlarger.options.color) == (None, "wavelet")
    restored, source = read_video(output), read_video(clip)
    assert numbers(restored.frames) == list(range(12))
    assert restored.frames.shape[1:3] == (24, 36)
    assert restored.times == source.times
    assert [data for _, data in packets(output, "audio")] == [
        data for _, data in packets(clip, "audio")
    ]


def test_prompts_and_guidance_reach_the_model(clip, tmp_path, run, enlarger):
    texts = ["--prompt", "sharp", "--negative-prompt=a--b", "--guidance", 2.5]
    place = ["--input", clip, "--output", tmp_path / "out.mp4"]
    assert run(*place, *texts, "--condition_scale", 0) == (0, [])
    options = enlarger.options
    assert (options.prompt, options.negative_prompt) == ("sharp", "a--b")
    assert (options.guidance, options.condition_scale) == (2.5, 0.0)


def test_guidance_changes_the_clip_and_an_unknown_prompt_says_how_to_encode_it(clip, tmp_path, run):
    def restored(name, *options):
        place = ["--input", clip, "--output", tmp_path / name, "--frames", 1, "--steps", 1]
        assert run(*place, *options) == (0, [])
        return read_video(tmp_path / name).frames

    plain = restored("plain.mkv", "--prompt", "sharp")
    guided = restored("guided.mkv", "--prompt", "sharp", "--guidance", 8)
    assert not np.array_equal(plain, guided)
    status, errors = run("--input", clip, "--output", tmp_path / "no.mp4", "--prompt", "blurred")
    assert status == 1
    assert errors == [
        "error: the weights bring no states of the prompt 'blurred' (they have: '', 'sharp'); give "
        "--text-encoder PATH, which encodes it"
    ]
    assert not (tmp_path / "no.mp4").exists()


def test_a_part_has_its_own_frames(clip, tmp_path, run, enlarger):
    for start, frames, expected in ((5, 4, [5, 6, 7, 8]), (9, 40, [9, 10, 11])):
        output = tmp_path / f"{start}.mp4"
        place = ["--input", clip, "--output", output]
        assert run(*place, "--start", start, "--frames", frames) == (0, [])
        assert numbers(read_video(output).frames) == expected
        assert read_video(output).times[0] == 0


def test_folders_of_frames_in_and_out(tmp_path, run, enlarger):
    frames = tmp_path / "frames"
    frames.mkdir()
    for k, frame in enumerate(numbered(3, 5, 7)):
        write_picture(frames / f"{k}.png", frame)
    assert run("--input", frames, "--output", tmp_path / "out") == (0, [])
    restored = read_video(tmp_path / "out").frames
    np.testing.assert_array_equal(restored, numbered(3, 5, 7).repeat(4, 1).repeat(4, 2))
    assert run("--input", frames, "--output", tmp_path / "out.mp4", "--scale", 1) == (0, [])
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.num_frames) == (7, 5, 3)


def bad_input(kind, path, clip):
    """Something at `path` that is no clip."""
    if kind == "text":
        path.write_text("not a film")
    elif kind == "no frames":
        with av.open(str(path), "w", container_options={"movflags": "+empty_moov"}) as output:
            stream = output.add_stream("libx264", rate=25)
            stream.width, stream.height = 32, 32
            output.start_encoding()
    elif kind == "empty folder":
        path.mkdir()
    elif kind == "two sizes":
        path.mkdir()
        for k, frame in enumerate((numbered(1, 8, 12)[0], numbered(1, 8, 14)[0])):
            write_picture(path / f"{k}.png", frame)
    elif kind == "sound alone":
        with av.open(str(clip)) as source, av.open(str(path), "w") as output:
            stream = output.add_stream_from_template(source.streams.audio[0])
            for packet in source.demux(source.streams.audio[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "in.mp4: no such file; check the path"),
        ("text", "in.mp4 is not a video that FFmpeg can read"),
        ("no frames", "in.mp4 has no frames; name a video with pictures in it"),
        ("sound alone", "in.mp4 has sound but no video"),
        ("empty folder", "in.mp4 has no frames; expected .png"),
        ("two sizes", "1.png is 14×8, 0.png is 12×8; frames of one video must have one size"),
    ],
)
def test_inputs_that_are_no_clip(kind, message, clip, tmp_path, run, enlarger):
    path, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    bad_input(kind, path, clip)
    status, errors = run("--input", path, "--output", output)
    assert status == 1
    assert len(errors) == 1
    assert message in errors[0]
    assert not output.exists()


def test_outputs_that_cannot_be(clip, tmp_path, run, enlarger):
    taken = tmp_path / "taken.mp4"
    taken.write_bytes(b"a film")
    before = clip.read_bytes()
    for output, message in (
        (tmp_path / "no" / "out.mp4", f"the folder {tmp_path / 'no'} does not exist; create it"),
        (clip, "is the input itself; name another output"),
        (taken, "taken.mp4 exists; name another output, or add --overwrite"),
        (tmp_path / "out.avi", ".avi is no format that can be written"),
    ):
        status, errors = run("--input", clip, "--output", output)
        assert status == 1
        assert len(errors) == 1
        assert message in errors[0]
    assert run("--input", clip, "--output", clip, "--overwrite")[0] == 1
    assert clip.read_bytes() == before
    assert taken.read_bytes() == b"a film"
    assert run("--input", clip, "--output", taken, "--overwrite") == (0, [])
    assert len(read_video(taken).frames) == 12


def test_no_space_left_while_writing(tmp_path, run, enlarger):
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), np.uint8)
    source = make_video(tmp_path / "noise.mp4", noise)
    output = tmp_path / "out.mp4"
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        status, errors = run("--input", source, "--output", output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert status == 1
    assert len(errors) == 1
    assert "no space left while writing" in errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.mp4"]


def test_checkpoints_that_do_not_fit(clip, tmp_path, run, tiny_release):
    other = tmp_path / "other"
    shutil.copytree(tiny_release, other)
    card = json.loads((other / "model.json").read_text())
    card["model"]["dit"]["dim"] = 64
    (other / "model.json").write_text(json.dumps(card))
    (tmp_path / "empty").mkdir()
    for checkpoint, message in (
        (other, "96 tensors of another shape: "),
        (tmp_path / "empty", "no file with weights"),
        (clip, "is no checkpoint; known endings: .safetensors"),
        (tmp_path / "none", "no such file or folder"),
    ):
        output = tmp_path / "out.mp4"
        status, errors = run("--input", clip, "--output", output, "--checkpoint", checkpoint)
        assert status == 1
        assert len(errors) == 1
        assert str(checkpoint) in errors[0]
        assert message in errors[0]


def test_a_bad_input_shows_before_the_weights_are_touched(tmp_path, run, monkeypatch):
    monkeypatch.setattr("realisvsr_jax.sampling.restore.load", None)
    (tmp_path / "in.mp4").write_text("no film")
    status, _ = run("--input", tmp_path / "in.mp4", "--output", tmp_path / "out.mp4")
    assert status == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inptu", "x"], "flag 'inptu'. Did you mean: input"),
        (["--scale", "0.5"], "--scale=0.5"),
        (["--scale", "large"], "--scale=large"),
        (["--color", "wavlet"], "value should be one of <wavelet|adain|none>"),
        (["--start", "-1"], "--start=-1"),
        (["--frames", "0"], "--frames=0"),
        (["clip.mp4"], "'clip.mp4' is not expected; every option is a --flag"),
        ([], "give --input CLIP and --output FILE"),
    ],
)
def test_flags_that_do_not_fit(run, arguments, message):
    status, errors = run(*arguments)
    assert status == 1
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--scale", "1e6"],
            "scale 1e+06 makes 12,000,000 pixels out of a side of 12; a result has",
        ),
        (
            ["--scale", "6000"],
            "makes 72,000 pixels out of a side of 12; a result has at most 65,535",
        ),
        (["--scale", "nan"], "scale is nan; give a number"),
        (["--guidance", "0.5"], "guidance is 0.5; give 1 or more (1 is without)"),
        (["--guidance", "-2"], "guidance is -2.0; give 1 or more"),
    ],
)
def test_options_are_refused_before_the_weights_are_read(
    clip, tmp_path, run, monkeypatch, arguments, message
):
    monkeypatch.setattr("realisvsr_jax.sampling.restore.load", None)
    status, errors = run("--input", clip, "--output", tmp_path / "out.mp4", *arguments)
    assert status == 1
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "out.mp4").exists()


def test_a_negative_prompt_needs_guidance(clip, tmp_path, run):
    place = ["--input", clip, "--output", tmp_path / "out.mp4", "--frames", 1]
    for guidance in ([], ["--guidance", 1]):
        status, errors = run(*place, "--negative-prompt", "sharp", *guidance)
        assert status == 1
        assert errors == [
            "error: the negative prompt 'sharp' needs a guidance above 1, which is without; give "
            "one (--guidance 3), or leave the prompt out"
        ]


def test_want_of_memory_is_one_line_and_leaves_nothing(clip, tmp_path, run, monkeypatch):
    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr("realisvsr_jax.sampling.streams.take", exhausted)
    status, errors = run("--input", clip, "--output", tmp_path / "out.mp4")
    assert status == 1
    assert len(errors) == 1
    assert "a result of 12 frames × 32 × 48 pixels needs more memory than there is" in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_folder_named_as_a_video_is_no_output(clip, tmp_path, run, enlarger):
    (tmp_path / "fold.mp4").mkdir()
    status, errors = run("--input", clip, "--output", tmp_path / "fold.mp4", "--overwrite")
    assert status == 1
    assert "fold.mp4 is a folder, though named as a video file; name another output" in errors[0]
    assert not list((tmp_path / "fold.mp4").iterdir())


def test_a_start_beyond_the_end(clip, tmp_path, run):
    place = ["--input", clip, "--output", tmp_path / "out.mp4"]
    status, errors = run(*place, "--start", 12)
    assert status == 1
    assert "clip.mp4 has 12 frames; start 12 is beyond its end" in errors[0]


def test_a_cut_short_video_is_restored_as_far_as_it_goes_and_fails(tmp_path, run, enlarger):
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), np.uint8)
    path = make_video(tmp_path / "in.mp4", noise, container={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    output = tmp_path / "out.mp4"
    status, errors = run("--input", path, "--output", output)
    count = len(read_video(output).frames)
    assert status == 1
    assert errors == [
        f"error: {path} is cut short: {count} of 12 frames could be read; these are restored in "
        f"{output}"
    ]
    assert 0 < count < 12


def test_the_networks_go_on_bit_by_bit(clip, tmp_path, run, monkeypatch):
    """Windows of 3 latent frames by the tiny release; stopped in the third, then resumed."""
    from realisvsr_jax.jobs.released import SceneOf

    place = ["--input", clip, "--window", 5, "--scale", 1, "--steps", 1, "--lossless"]
    assert run(*place, "--output", tmp_path / "whole.mkv") == (0, [])
    windows, one = [], SceneOf.restore

    def stopped(self, window, *rest, **where):
        windows.append(window.index)
        if len(windows) == 3:
            raise KeyboardInterrupt
        return one(self, window, *rest, **where)

    monkeypatch.setattr(SceneOf, "restore", stopped)
    output = tmp_path / "out.mkv"
    assert run(*place, "--output", output) == (130, [])
    assert not output.exists()
    status, errors = run(*place, "--output", output)
    assert (status, len(errors)) == (1, 1)
    assert "has an unfinished job for this output; give --resume to go on with it, or" in errors[0]
    status, errors = run(*place, "--output", output, "--resume", "--seed", 5)
    assert (status, len(errors)) == (1, 1)
    assert "is of another command: options seed was 0, now it is 5; give the same" in errors[0]
    assert run(*place, "--output", output, "--resume") == (0, [])
    assert windows == [0, 1, 2, *range(2, windows[-1] + 1)]
    assert windows[-1] > 2
    assert output.read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mkv", "whole.mkv"]


def test_a_dry_run_prints_the_plan_reads_no_weights_and_writes_nothing(
    clip, tmp_path, run, monkeypatch
):
    monkeypatch.setattr("realisvsr_jax.sampling.restore.load", None)
    output = tmp_path / "out.mp4"
    place = ["--input", clip, "--output", output, "--height", 40]
    assert run(*place, "--tile", "24x24", "--window", 5, "--dry-run") == (0, [])
    lines = run.out.splitlines()
    assert lines[0] == f"{clip}: 12 frames of 12×8, 25 a second, yuv420p, with audio"
    assert lines[1] == f"{output}: 60×40, libx264, CRF 16, yuv420p"
    # Windows of 3 latent frames of 7 that share 2; tiles of 6 × 6 of 10 × 16 that share 1; 2 steps.
    assert lines[2].startswith("1 scene, 5 windows of up to 5 frames, 2×3 tiles of 24×24, 1 at")
    assert lines[2].endswith("; 60 passes of the network")
    assert "memory of the host about " in lines[3]
    assert f"kept in {tmp_path / '.out.mp4.job'} until it is done" in lines[3]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_dry_run_refuses_what_the_run_would(clip, tmp_path, run):
    """A folder that is not there, or is a file; an output that is; a folder's videos to a video."""
    place = ["--input", clip, "--scale", 1, "--dry-run"]
    status, errors = run(*place, "--output", tmp_path / "missing" / "out.mp4")
    assert (status, len(errors)) == (1, 1)
    assert "missing does not exist; create it first" in errors[0]
    (tmp_path / "out.mp4").write_bytes(b"mine")
    status, errors = run(*place, "--output", tmp_path / "out.mp4")
    assert (status, len(errors)) == (1, 1)
    assert "out.mp4 exists; name another output, or add --overwrite" in errors[0]
    status, errors = run(*place, "--output", tmp_path / "out.mp4" / "x.mp4")
    assert "out.mp4 is a file, not a folder; name another output" in errors[0]
    status, errors = run("--input", clip.parent, "--dry-run", "--output", tmp_path / "all.mp4")
    assert (status, len(errors)) == (1, 1)
    assert "is a folder of videos; name a folder as output" in errors[0]


@pytest.mark.parametrize("way", [(), ("--dry-run",)])
def test_nothing_is_left_to_go_on_with(clip, tmp_path, run, way):
    """So that a script may repeat the command until it succeeds."""
    output = tmp_path / "out.mp4"
    output.write_bytes(b"mine")
    assert run("--input", clip, "--output", output, "--resume", *way) == (0, [])
    assert "is there, and no job of it is unfinished: nothing to do" in run.log
    assert output.read_bytes() == b"mine"
    status, errors = run("--input", tmp_path / "no.mp4", "--output", output, "--resume", *way)
    assert (status, len(errors)) == (1, 1)
    assert "no such file" in errors[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--crf", 99), "--crf is 99; libx264 takes 0 to 51"),
        (("--preset", "bogus"), "libx264 refuses --preset bogus, --crf 16"),
        (("--prompt", "a cat"), "no states of the prompt 'a cat'"),
        (("--negative-prompt", "sharp"), "needs a guidance above 1"),
        (("--scale", 4000), "a name without suffix for a folder of PNG frames"),
        (("--lossless", "--crf", 3), "--lossless stores RGB bit by bit; leave out --crf"),
    ],
)
def test_a_dry_run_names_what_weights_and_encoder_refuse(clip, tmp_path, run, flags, message):
    status, errors = run("--input", clip, "--output", tmp_path / "out.mp4", "--dry-run", *flags)
    assert status == 1
    assert message in errors[-1]


def test_colour_that_is_halved_is_a_word_in_the_plan(tmp_path, run):
    fine = make_video(tmp_path / "fine.mp4", numbered(2, 16, 16), pix_fmt="yuv444p")
    place = ["--input", fine, "--output", tmp_path / "out.mp4", "--scale", 1, "--dry-run"]
    assert run(*place) == (0, [])
    assert "yuv420p (colour of yuv444p at half its size; --pix-fmt yuv444p keeps it)" in run.out
    assert run(*place, "--pix-fmt", "yuv444p") == (0, [])
    assert "CRF 16, yuv444p\n" in run.out
    # Pictures have no pixel format that could be refused.
    odd = make_video(tmp_path / "odd.mp4", numbered(2, 15, 17), pix_fmt="yuv444p")
    pictures = ["--input", odd, "--output", tmp_path / "frames", "--scale", 1, "--dry-run"]
    assert run(*pictures, "--pix-fmt", "yuv420p") == (0, [])
    assert "17×15, PNG\n" in run.out


def test_seams_are_explained_by_the_picture_without_tiles(clip, tmp_path, run):
    place = ["--input", clip, "--frames", 1, "--explain-seams"]
    assert run(*place, "--tile", "24x24", "--height", 40) == (0, [])
    lines = run.out.splitlines()
    assert lines[0] == "1 frame of 60×40, with tiles and without"
    assert lines[1].startswith("borders at rows 16, 24")
    ratio = re.fullmatch(r"ratio ([\d.]+) ± ([\d.]+): (.*)", lines[3])
    assert ratio is not None
    score, error = float(ratio[1]), float(ratio[2])
    assert ("within 5%, they do not show" in ratio[3]) == (score <= 1.05)
    assert (ratio[3] == "they show") == (score - 2 * error > 1.05)
    status, errors = run(*place, "--scale", 1)
    assert (status, len(errors)) == (1, 1)
    assert (
        "its result of 12×8 is one tile, which has no borders; give a smaller --tile" in errors[0]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_folder_of_videos(clip, tmp_path, run, enlarger):
    """Planned, then restored; the one that is no film does not end the work."""
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    clip.rename(source / "b.mp4")
    (source / "a.mkv").write_text("no film")
    place = ["--input", source, "--output", output, "--scale", 1]
    status, errors = run(*place, "--dry-run")
    assert (status, errors) == (1, ["error: 1 of 2 files would be refused"])
    assert run.out.startswith(f"refused: {source / 'a.mkv'} is not a video that FFmpeg can read")
    assert f"{output / 'b.mp4'}: 12×8, libx264" in run.out
    assert not output.exists()
    status, errors = run(*place)
    assert (status, errors) == (1, [f"error: 1 of 2 files failed; {output}/restored.json says why"])
    assert sorted(path.name for path in output.iterdir()) == ["b.mp4", "restored.json"]
    assert run(*place, "--num_processes", 2, "--process_id", 1) == (0, [])
    assert "b.mp4 is done" in run.log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tile", "480"], "--tile is '480'; give HEIGHTxWIDTH in pixels, as 480x832"),
        (["--memory", "much"], "--memory is 'much'; give bytes, as 16GB or 500MB"),
        (["--scale", "2", "--height", "9"], "--scale and --height both say how large the result"),
        (["--resume", "--overwrite"], "--resume goes on, --overwrite begins anew; give one of"),
        (["--process_id", "1"], "--process_id and --num_processes go together: give both"),
        (["--height", "4"], "--height 4 is less than the input's 8; give that or more"),
    ],
)
def test_options_that_contradict_each_other(clip, tmp_path, run, monkeypatch, arguments, message):
    monkeypatch.setattr("realisvsr_jax.sampling.restore.load", None)
    status, errors = run("--input", clip, "--output", tmp_path / "out.mp4", *arguments)
    assert status == 1
    assert len(errors) == 1
    assert message in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
