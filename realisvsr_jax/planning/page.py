"""What the planner found, in words, and what to turn where it does not fit."""

from typing import Any

MEBI, GIBI = 2**20, 2**30


def size(count: int) -> str:
    """In GiB; in MiB where that would show nothing."""
    return f"{count / GIBI:.2f} GiB" if count >= 0.095 * GIBI else f"{count / MEBI:.2f} MiB"


def work(flops: float) -> str:
    """In TFLOP; in GFLOP where that would show nothing."""
    return f"{flops / 1e12:,.1f} TFLOP" if flops >= 1e11 else f"{flops / 1e9:,.3f} GFLOP"


def page(found: dict[str, Any]) -> str:
    """The whole answer, as text."""
    mesh = " × ".join(f"{name} {count}" for name, count in found["mesh"].items() if count > 1)
    note = " (an estimate: compiled for CPUs)" if found["estimate"] else ""
    chips = f"{found['chips']} chips" if found["chips"] > 1 else "1 chip"
    head = f"{found['topology']}: {chips} of {size(found['chip_memory_bytes'])}{note}; "
    if found["program"] != "sample":
        count = found["micro_batches"]
        head += f"mesh {mesh or '1'}; {count} micro-batch{'es' if count > 1 else ''}"
    else:
        head += "upscale runs on one of them" if found["chips"] > 1 else "upscale"
    head += f"; attention {found['attention']}"
    rows = found["parts"] if found["program"] == "sample" else found["buckets"]
    describe = _part if found["program"] == "sample" else _bucket
    return "\n".join([head, *(line for row in rows for line in describe(row)), verdict(found)])


def _bucket(row: dict[str, Any]) -> list[str]:
    encode = row["encode_peak_bytes"]
    alone = f" (encode alone peaks at {size(encode)})" if encode else ""
    parts = ", ".join(f"{name} {work(count)}" for name, count in row["flops"].items() if count)
    return [
        f"bucket {'×'.join(map(str, row['bucket']))}, a chip: parameters "
        f"{size(row['parameters_bytes'])}, moments and average {size(row['optimizer_bytes'])}, "
        f"VAE {size(row['vae_bytes'])}{alone}, activations {size(row['activations_bytes'])}; in "
        f"all {size(row['total_bytes_per_chip'])}",
        f"  {work(sum(row['flops'].values()))} a step ({parts})",
        *_times(row),
    ]


def _part(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['name']}, runs {row['times']}×: weights {size(row['weights_bytes'])}, temporaries "
        f"{size(row['memory']['temporaries'])}; in all {size(row['total_bytes_per_chip'])}; "
        f"{work(row['flops'])} each",
        *_times(row),
    ]


def _times(row: dict[str, Any]) -> list[str]:
    roof = row["roofline"]
    kinds = ("arithmetic", "memory", "interconnect")
    bounds = ", ".join(
        f"{kind} unknown" if roof[kind] is None else f"{kind} {roof[kind]:.3g} s" for kind in kinds
    )
    lines = [
        f"  at full speed {roof['seconds']:.3g} s, bound by {roof['bound']} ({bounds}); "
        f"compiled in {row['compile_seconds']:.0f} s"
    ]
    lines += [
        f"  {kind}: {exchanged['count']}, {size(exchanged['bytes'])}"
        for kind, exchanged in sorted(row["collectives"].items())
    ]
    return lines


def verdict(found: dict[str, Any]) -> str:
    """One line: whether it fits, and which knob to turn if not."""
    have, need = found["chip_memory_bytes"], found["total_bytes_per_chip"]
    if found["fits"]:
        return f"It fits: {size(need)} of {size(have)} a chip."
    return f"It does not fit: {size(need)} of {size(have)} a chip. Turn {found['knob']}."


def training_knob(row: dict[str, Any], encode_frames: int, remat: str) -> str:
    """What takes the most off a training step that does not fit."""
    held = row["parameters_bytes"] + row["optimizer_bytes"]
    if held > row["activations_bytes"]:
        return "mesh.fsdp up, with more chips: parameters and moments are most of it"
    if not encode_frames:
        return "encode_frames to 4: the VAE encodes whole clips at once"
    if remat != "block":
        return "model.dit.remat to 'block': what blocks keep for the backward pass is most of it"
    return "mesh.seq up: it shares out the tokens of a clip and the VAE's rows"


def restoration_knob(part: str) -> str:
    """What takes the most off a restoration that does not fit."""
    if part.startswith("VAE"):
        return "nothing: upscale's VAE goes by tiles where it needs over 2/5 of --memory"
    return "release.tile down: the sampler sees one tile at a time"
