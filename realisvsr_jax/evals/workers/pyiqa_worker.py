"""MUSIQ and CLIP-IQA for `evals/no_reference.py`: `PYTHON pyiqa_worker.py musiq clipiqa`.

Runs in an environment with pyiqa and PyTorch. Lines of JSON out; in comes, for each clip, a line
{"frames", "height", "width"} and its frames, uint8 RGB. Answers {"ready": names} at first, then
for each clip {"scores": {name: mean over frames}}, or {"error": one line}.
"""

import json
import sys


def main() -> None:
    """Serves until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries write to stdout
    names = sys.argv[1:]
    try:
        import numpy as np
        import pyiqa  # pyright: ignore[reportMissingImports]
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        metrics = {name: pyiqa.create_metric(name, device=device) for name in names}
    except Exception as error:
        say(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    say(answers, {"ready": names})
    while line := sys.stdin.buffer.readline():
        clip = json.loads(line)
        shape = clip["height"], clip["width"], 3
        sums = dict.fromkeys(names, 0.0)
        for _ in range(clip["frames"]):
            data = sys.stdin.buffer.read(shape[0] * shape[1] * 3)
            frame = np.frombuffer(data, np.uint8).reshape(shape).copy()
            image = torch.from_numpy(frame).permute(2, 0, 1)[None].float().to(device) / 255
            with torch.no_grad():
                for name, metric in metrics.items():
                    sums[name] += float(metric(image))
        scores = {name: total / clip["frames"] for name, total in sums.items()}
        say(answers, {"scores": scores})


def say(stream, message) -> None:
    """A line of JSON."""
    stream.write(json.dumps(message) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
