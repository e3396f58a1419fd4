"""The results as a page: medians of paired ratios with quartiles, rates, peaks, verdicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.speed.cases import Case, peak_flops
from realisvsr_jax.evals import pages

HEADS = (
    "case",
    "ours",
    "diffusers, eager",
    "ours / eager",
    "ours / compiled",
    "target",
    "rate",
    "TFLOP/s",
    "MFU",
    "peak, ours / eager",
    "results differ by",
)
Found = dict[str, Any]


def page(results: Sequence[tuple[Case, Found]]) -> str:
    """The table, what did not run and why, the machine."""
    text = pages.table(HEADS, [row(case, found) for case, found in results])
    notes = [
        f"{case.name}: torch.compile: {found['sides']['compiled']['failed']}."
        for case, found in results
        if "failed" in found["sides"]["compiled"]
    ]
    missed = [
        f"{case.name}: {short}" for case, found in results if (short := shortfall(case, found))
    ]
    where = sorted({f"{found['machine']}, {found['threads']} threads" for _, found in results})
    rounds = sorted({len(found["sides"]["ours"]["seconds"]) for _, found in results})
    loads = [load for _, found in results for load in found["load"]]
    text += f"\n{'; '.join(where)}; rounds: {', '.join(map(str, rounds))}; "
    text += f"load average while measuring: {min(loads):.1f}–{max(loads):.1f}.\n"
    text += "".join(f"\n{note}\n" for note in notes)
    return text + f"\nShort of the target: {'; '.join(missed) or 'nothing'}.\n"


def row(case: Case, found: Found) -> list[str]:
    """A case's cells."""
    sides = found["sides"]
    seconds = float(np.median(sides["ours"]["seconds"]))
    speed = found["flops"] / seconds
    known = peak_flops(sides["ours"]["device"])
    peaks = [f"{sides[name]['peak'] / 2**30:.2f}" for name in ("ours", "eager")]
    return [
        case.name,
        f"{seconds:.2f} s",
        f"{np.median(sides['eager']['seconds']):.2f} s",
        spread(found, "eager"),
        spread(found, "compiled"),
        targets(case),
        rate(case, seconds),
        f"{speed / 1e12:.3f}",
        f"{speed / known:.0%}" if known else "–",
        f"{' / '.join(peaks)} GiB",
        f"{found['difference']:.0e}",
    ]


def ratios(found: Found, name: str) -> np.ndarray | None:
    """Our time to that side's, by round; None where it did not run."""
    if "failed" in found["sides"][name]:
        return None
    return np.divide(found["sides"]["ours"]["seconds"], found["sides"][name]["seconds"])


def spread(found: Found, name: str) -> str:
    """Median and quartiles."""
    by_round = ratios(found, name)
    if by_round is None:
        return "–"
    low, middle, high = np.percentile(by_round, (25, 50, 75))
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def rate(case: Case, seconds: float) -> str:
    """Tokens a second; of the VAE pixels."""
    if case.is_vae:
        frames, height, width = case.size
        return f"{frames * height * width / seconds / 1e6:.3f} Mpixel/s"
    return f"{case.tokens / seconds:,.0f} tokens/s"


def targets(case: Case) -> str:
    """What was aimed at."""
    parts = [
        f"≤ {case.ratio}" if case.ratio else "",
        f"≤ {case.compiled_ratio} of compiled" if case.compiled_ratio else "",
        f"≤ {case.seconds} s" if case.seconds else "",
        f"≤ {case.peak / 2**30:.1f} GiB" if case.peak else "",
        f"MFU ≥ {case.mfu:.0%}" if case.mfu else "",
    ]
    return ", ".join(part for part in parts if part) or "–"


def shortfall(case: Case, found: Found) -> str:
    """What of the targets was missed, with its number; empty where all were met."""
    ours = found["sides"]["ours"]
    seconds = float(np.median(ours["seconds"]))
    missed = []
    for name, limit in (("eager", case.ratio), ("compiled", case.compiled_ratio)):
        by_round = ratios(found, name)
        if limit and by_round is not None and np.median(by_round) > limit:
            missed.append(f"{np.median(by_round):.2f} of {name}, not {limit}")
    if case.seconds and seconds > case.seconds:
        missed.append(f"{seconds:.2f} s, not {case.seconds}")
    if case.peak and ours["peak"] > case.peak:
        missed.append(f"{ours['peak'] / 2**30:.2f} GiB, not {case.peak / 2**30:.1f}")
    known = peak_flops(ours["device"])
    if case.mfu and known and (mfu := found["flops"] / seconds / known) < case.mfu:
        missed.append(f"MFU {mfu:.0%}, not {case.mfu:.0%}")
    return ", ".join(missed)


def verdict(case: Case, found: Found) -> str:
    """One line for the log."""
    missed = shortfall(case, found)
    return f"{spread(found, 'eager')} of eager; {'short: ' + missed if missed else 'met'}"
