"""DOVER for `evals/no_reference.py`: `PYTHON dover_worker.py DOVER_FOLDER`.

Runs in an environment with the requirements of DOVER (github.com/VQAssessment/DOVER), whose own
views, network, weights and fusion it uses, as its evaluate_a_set_of_videos.py does. Same lines as
pyiqa_worker.py; its scores are `dover`, `dover_technical` and `dover_aesthetic`, ×100. A clip's
frames are all in memory. Its views are cut at random places: seed 0 for every clip.
"""

import json
import os
import sys


def main() -> None:
    """Serves until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        os.chdir(sys.argv[1])
        sys.path.insert(0, os.getcwd())
        import numpy as np
        import torch

        score = load(np, torch)
    except Exception as error:
        say(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    say(answers, {"ready": ["dover", "dover_technical", "dover_aesthetic"]})
    while line := sys.stdin.buffer.readline():
        clip = json.loads(line)
        shape = clip["frames"], clip["height"], clip["width"], 3
        data = bytearray(sys.stdin.buffer.read(int(np.prod(shape))))
        try:
            scores = score(torch.frombuffer(data, dtype=torch.uint8).reshape(shape))
        except Exception as error:
            say(answers, {"error": f"{type(error).__name__}: {error}"})
            return
        say(answers, {"scores": scores})


def load(np, torch):
    """A function of frames [T, H, W, 3], uint8, that gives the scores."""
    import yaml  # pyright: ignore
    from dover import datasets  # pyright: ignore[reportMissingImports]
    from dover.models import DOVER  # pyright: ignore[reportMissingImports]
    from evaluate_a_set_of_videos import (  # pyright: ignore[reportMissingImports]
        fuse_results,
        mean,
        std,
    )

    with open("dover.yml") as file:
        options = yaml.safe_load(file)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = DOVER(**options["model"]["args"]).to(device)
    network.load_state_dict(torch.load(options["test_load_path"], map_location=device))
    types = options["data"]["val-l1080p"]["args"]["sample_types"]
    samplers = {}
    for name, kind in types.items():
        length, parts = kind["clip_len"], kind.get("t_frag")
        arguments = (length, kind["num_clips"]) if parts is None else (length // parts, parts)
        more = () if parts is None else (kind["num_clips"],)
        samplers[name] = datasets.UnifiedFrameSampler(*arguments, kind["frame_interval"], *more)
    # Its reader of files gives way to the frames that are here.
    module = sys.modules[datasets.spatial_temporal_view_decomposition.__module__]

    def score(frames):
        np.random.seed(0)
        torch.manual_seed(0)
        module.VideoReader = lambda _: frames
        views, _ = datasets.spatial_temporal_view_decomposition("frames", types, samplers)
        inputs = {}
        for name in ("aesthetic", "technical"):  # the order that fuse_results expects
            view = ((views[name].permute(1, 2, 3, 0) - mean) / std).permute(3, 0, 1, 2)
            clips = types[name].get("num_clips", 1)
            parts = view.reshape(view.shape[0], clips, -1, *view.shape[2:]).transpose(0, 1)
            inputs[name] = parts.to(device)
        with torch.no_grad():
            raw = [float(r.mean()) for r in network(inputs, reduce_scores=False)]
        fused = fuse_results(raw)
        return {
            "dover": 100 * float(fused["overall"]),
            "dover_technical": 100 * float(fused["technical"]),
            "dover_aesthetic": 100 * float(fused["aesthetic"]),
        }

    return score


def say(stream, message) -> None:
    """A line of JSON."""
    stream.write(json.dumps(message) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
