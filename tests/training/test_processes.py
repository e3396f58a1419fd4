"""Two processes are one run: they end together, and what they saved goes on anywhere."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from realisvsr_jax import cluster
from realisvsr_jax.errors import InputError

OPTIONS = (
    "--config=configs/smoke.py",
    "--config.accumulate=0",
    "--config.data.buckets=((1, 96, 96),)",
    "--config.data.batch_size=4",
    "--config.log.preview_every=0",
    "--config.log.keep=9",
)


def free_port():
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(folder, count=1, options=(), devices=1):
    """Processes of one run; their output goes to files beside it."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    port = free_port()
    programs = folder.with_name("programs")  # the second start need not compile
    started = []
    for number in range(count):
        place = (
            [
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={count}",
                f"--process_id={number}",
            ]
            if count > 1
            else []
        )
        command = [sys.executable, "-m", "realisvsr_jax.train", *OPTIONS, "--workdir", str(folder)]
        output = folder.with_name(f"{folder.name}-{number}.log")
        started.append(
            subprocess.Popen(
                [*command, *place, *options],
                env=os.environ | {"XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": str(programs)},
                stdout=output.open("w"),
                stderr=subprocess.STDOUT,
            )
        )
    return started


def ended(processes, seconds=400):
    return [process.wait(seconds) for process in processes]


def output(folder, number=0):
    return folder.with_name(f"{folder.name}-{number}.log").read_text()


def rows(folder):
    with contextlib.suppress(FileNotFoundError):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return {row["step"]: row for row in map(json.loads, lines)}
    return {}


def wait_for_step(folder, step, processes):
    deadline = time.monotonic() + 400
    while step not in rows(folder):
        assert all(process.poll() is None for process in processes), output(folder)
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def reaped():
    """A list whose processes are gone when the test is over."""
    processes = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_a_run_of_two_processes(tmp_path, reaped):
    """Killed, terminated and gone on with by one process, it logs the losses of one alone."""
    folder = tmp_path / "two"
    long = ("--config.steps=400", "--config.log.save_every=3")
    shared = (*long, "--config.mesh.seq=2")

    reaped += (both := start(folder, 2, shared, devices=2))
    wait_for_step(folder, 4, both)
    both[1].send_signal(signal.SIGKILL)
    died = time.monotonic()
    assert both[0].wait(60) not in (0, None)
    assert time.monotonic() - died < 60
    assert "another" in output(folder)

    reaped += (both := start(folder, 2, shared, devices=2))
    wait_for_step(folder, max(rows(folder)) + 1, both)
    both[1].send_signal(signal.SIGTERM)
    assert ended(both) == [75, 75], output(folder)
    assert "stopped by SIGTERM; the same command goes on" in output(folder, 0)
    saved = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert saved == max(rows(folder)) + 1

    # One process, another mesh, from a checkpoint of two processes.
    for path in (folder / "checkpoints").iterdir():
        if int(path.name) > 3:
            shutil.rmtree(path)
    together = rows(folder)
    (folder / "metrics.jsonl").unlink()
    reaped += (alone := start(folder, 1, long))
    wait_for_step(folder, 5, alone)
    alone[0].send_signal(signal.SIGTERM)
    assert ended(alone) == [75], output(folder)
    again = rows(folder)
    for step in (3, 4, 5):
        assert again[step]["loss"] == pytest.approx(together[step]["loss"], rel=1e-5)
        assert again[step]["gradient_norm"] == pytest.approx(
            together[step]["gradient_norm"], rel=1e-4
        )


def test_a_process_that_never_arrives_is_one_line(tmp_path):
    (process,) = start(
        tmp_path / "run",
        1,
        (
            "--coordinator=127.0.0.1:9",
            "--num_processes=2",
            "--process_id=1",
            "--initialization_timeout=2",
        ),
    )
    assert process.wait(200) == 75
    (said,) = output(tmp_path / "run").splitlines()
    assert said.startswith("error: the processes of this run at 127.0.0.1:9 did not all come")
    assert "within 2 s: start every one of them" in said
    assert not (tmp_path / "run").exists()


def test_where_the_coordinator_waits_in_vain_one_line_says_so(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    flags = (f"--coordinator={address}", "--num_processes=2", "--process_id=0")
    (process,) = start(tmp_path / "run", 1, (*flags, "--initialization_timeout=2"))
    assert process.wait(200) == 75
    (said,) = output(tmp_path / "run").splitlines()
    assert said.startswith(f"error: the processes of this run at {address} did not all come")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("10.0.0.1", 2, 0), "give HOST:PORT"),
        (("10.0.0.1:8476", None, 0), "needs --num_processes"),
        (("10.0.0.1:8476", 2, 2), "they go from 0 to 1"),
        ((None, 2, None), "--num_processes needs --coordinator"),
    ],
)
def test_an_incomplete_description(given, message):
    with pytest.raises(InputError, match=message):
        cluster.join(*given, environment={})


@pytest.mark.parametrize(
    ("environment", "announced"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, False),  # a batch script, no step of it
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "16"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a-0,a-1"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, True),
    ],
)
def test_what_announces_other_processes(environment, announced):
    assert cluster.is_announced(environment) is announced
