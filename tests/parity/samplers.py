"""The samplers step by step against diffusers' schedulers, and their levels."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from realisvsr_jax.sampling.solvers import (
    SCHEDULES,
    SOLVERS,
    SamplerConfig,
    Schedule,
    integrate,
    make_schedule,
)
from tests.parity import peers
from tests.parity.peers import PART, Row, relative_error
from tests.random_networks import fast_jit

SHAPE = (2, 4, 3, 5, 6)
OFFICIAL = {
    (entry["solver"], entry["steps"], entry["shift"]): entry
    for entry in json.loads(Path(__file__).with_name("official_schedules.json").read_text())[
        "schedules"
    ]
}
GRID = sorted({(steps, shift) for _, steps, shift in OFFICIAL})
"""(steps, shift) of every schedule that is compared."""


class Levels(NamedTuple):
    """A reference's σ [N+1], float32, and what the network is given, [N]."""

    sigmas: np.ndarray
    timesteps: np.ndarray


def unipc(shift: float) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def dpm(shift: float) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        solver_order=2,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
    )


def levels(solver: str, schedule: str, steps: int, shift: float) -> Levels:
    """Wan2.1's own numbers, Euler's being those of its DPM++; or diffusers'.

    Wan has no Euler, and diffusers' scheduler of that name spaces levels in another way: ours
    takes those of diffusers' UniPC, without the lowering of a first σ of 1.
    """
    if schedule == "official":
        entry = OFFICIAL["unipc" if solver == "unipc" else "dpm++", steps, shift]
        return Levels(np.array(entry["sigmas"], np.float32), np.array(entry["timesteps"]))
    scheduler = dpm(shift) if solver == "dpm++" else unipc(shift)
    scheduler.set_timesteps(steps)
    found = Levels(scheduler.sigmas.numpy().copy(), scheduler.timesteps.numpy().copy())
    if solver == "euler":
        found.sigmas[0], found.timesteps[0] = 1.0, 1000
    return found


def reference(solver: str, given: Levels):
    """diffusers' scheduler on the given levels."""
    sigmas = given.sigmas[:-1].astype(np.float64)
    if solver == "euler":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        scheduler.set_timesteps(sigmas=sigmas.tolist())
    elif solver == "unipc":
        scheduler = unipc(shift=1.0)
        scheduler.set_timesteps(len(sigmas), sigmas=sigmas)
    else:  # takes no levels from outside
        scheduler = dpm(shift=1.0)
        scheduler.set_timesteps(len(sigmas))
        scheduler.timesteps = torch.from_numpy(given.timesteps)
        scheduler.sigmas = torch.from_numpy(given.sigmas)
        scheduler.set_begin_index(0)
    np.testing.assert_array_equal(scheduler.sigmas.numpy(), given.sigmas)
    return scheduler


def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def velocity(z, timestep):
    """Any smooth field will do: not linear in z, and a timestep off by one has to show."""
    library = torch if isinstance(z, torch.Tensor) else jnp
    return library.sin(3.0 * z) + 0.3 * z * (timestep % 7.0 / 7.0) + 0.1


def run_reference(scheduler, timesteps) -> list[np.ndarray]:
    """Every sample that diffusers' scheduler passes through, the last being x0."""
    samples, z = [], torch.from_numpy(noise())
    for own, given in zip(scheduler.timesteps, timesteps, strict=True):
        z = scheduler.step(velocity(z, float(given)), own, z).prev_sample
        samples.append(z.numpy())
    return samples


_seen: list[np.ndarray] = []


@fast_jit
def _integrate(z, schedule):
    """Compiled once for each number of steps; leaves what the network is given in `_seen`."""

    def watched(sample, timestep):
        jax.debug.callback(lambda s: _seen.append(np.asarray(s)), sample, ordered=True)
        return velocity(sample, timestep)

    return integrate(watched, z, schedule)


def run_ours(schedule: Schedule) -> list[np.ndarray]:
    """Our samples, caught where the network is called, the last being x0."""
    _seen.clear()
    x0 = np.asarray(_integrate(jnp.asarray(noise()), schedule))
    jax.effects_barrier()
    return [*_seen[1:], x0]


def error(schedule: Schedule, solver: str, given: Levels) -> float:
    """The worst of all samples."""
    theirs = run_reference(reference(solver, given), given.timesteps)
    pairs = zip(run_ours(schedule), theirs, strict=True)
    return peers.worst(relative_error(*pair) for pair in pairs)


def steps() -> list[Row]:
    """Every sample of every schedule.

    The first level of diffusers' UniPC, 1 − 1e-6, is 1 − 1.013e-6 in its float32: hence the larger
    error there.
    """
    rows = []
    for solver in SOLVERS:
        for schedule in SCHEDULES:
            errors = []
            for count, shift in GRID:
                ours = make_schedule(SamplerConfig(solver, count, shift, schedule=schedule))
                errors.append(error(ours, solver, levels(solver, schedule, count, shift)))
            shape = f"{peers.times(*SHAPE)}, {len(GRID)} schedules"
            name = f"{solver}, {schedule} schedule, worst sample"
            rows.append(Row(name, "diffusers", shape, peers.worst(errors), PART))
    return rows


def entries() -> list[Row]:
    """Levels in float32 and timesteps that are not equal."""
    rows = []
    for solver in SOLVERS:
        for schedule in SCHEDULES:
            different = total = 0
            for count, shift in GRID:
                ours = make_schedule(SamplerConfig(solver, count, shift, schedule=schedule))
                theirs = levels(solver, schedule, count, shift)
                different += int((ours.sigmas.astype(np.float32) != theirs.sigmas).sum())
                different += int((ours.timesteps != theirs.timesteps).sum())
                total += len(theirs.sigmas) + len(theirs.timesteps)
            name = f"{solver}, {schedule} schedule, σ and timesteps that differ"
            reference = "Wan2.1" if schedule == "official" else "diffusers"
            rows.append(Row(name, reference, f"{total} entries", different, 0))
    return rows
