"""The recipes of docs/clusters.md and docs/clusters/: what they say exists, the scripts act."""

import importlib
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from realisvsr_jax.cluster import EXIT_STATUS
from realisvsr_jax.train import FLAGS

DOCS = Path(__file__).parent.parent / "docs"
RECIPES = [DOCS / "clusters.md", *sorted((DOCS / "clusters").iterdir())]
SCRIPTS = [path for path in RECIPES if path.suffix in (".sh", ".sbatch")]
JOB_SETS = ["gke_tpu.yaml", "kubernetes_gpu.yaml"]


def run(script: str, *arguments: str, path: Path, **variables: str) -> subprocess.CompletedProcess:
    """A script with the programs of the folder `path` before the machine's own."""
    environment = {"PATH": f"{path}:{os.environ['PATH']}"} | variables
    command = ["bash", str(DOCS / "clusters" / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def trained_with(path: Path) -> list[str]:
    """The arguments behind every `realisvsr_jax.train` of a file."""
    text = path.read_text().replace("\\\n", " ")
    text = re.sub(r"\n\s+(- )?(?=--)", " ", text)  # YAML's lists and folded lines
    lines = re.findall(r"realisvsr_jax\.train[ \"](.*)", text)
    lines += re.findall(r"(?:slurm\.sbatch|tpu_vm_worker\.sh|tpu_vm\.sh train) (.*)", text)
    flags = [word for line in lines for word in re.findall(r"(?<!\S)--[\w.]+", line)]
    return flags + re.findall(r"--config\.[\w.]*\w", text)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_flag_that_a_recipe_gives_exists(path):
    config = importlib.import_module("configs.wan13b").get_config()
    for word in trained_with(path):
        name = word.removeprefix("--")
        if name.startswith("config."):
            at = config
            for key in name.split(".")[1:]:
                assert key in at, word
                at = at[key]
        else:
            assert name in FLAGS, word


def test_the_recipes_are_found():
    assert {"--coordinator", "--num_processes", "--process_id"} <= set(trained_with(RECIPES[0]))
    for name in JOB_SETS:
        assert "--config.captions" in trained_with(DOCS / "clusters" / name)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("name", JOB_SETS)
def test_a_job_set_restarts_on_what_training_says(name):
    job_set = next(yaml.safe_load_all((DOCS / "clusters" / name).read_text()))
    job = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "NotIn"
    assert EXIT_STATUS in rule["onExitCodes"]["values"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (container,) = job["template"]["spec"]["containers"]
    assert container["name"] == rule["onExitCodes"]["containerName"]
    words = shlex.split(" ".join(container["command"][-1:]))
    if "--num_processes" in words:
        assert int(words[words.index("--num_processes") + 1]) == job["completions"]
    assert job["completions"] == job["parallelism"]


@pytest.mark.parametrize(
    ("status", "restarts", "queued"),
    [(75, 0, True), (137, 3, True), (75, 50, False), (1, 0, False)],
)
def test_the_slurm_script_queues_itself_again(tmp_path, status, restarts, queued):
    program(tmp_path / "srun", f'printf "%s\\n" "$@"; exit {status}')
    program(tmp_path / "scontrol", 'echo "scontrol $*"')
    done = run(
        "slurm.sbatch", "--workdir", "a b", path=tmp_path,
        SLURM_JOB_ID="7", SLURM_RESTART_COUNT=str(restarts),
    )  # fmt: skip
    assert done.returncode == status
    assert "-m\nrealisvsr_jax.train\n--workdir\na b\n" in done.stdout
    assert ("scontrol requeue 7" in done.stdout) == queued


@pytest.mark.parametrize(
    "endpoints", ["10.0.0.5,10.0.0.6", "one:0:10.0.0.5,two:1:10.0.0.6"], ids=["new", "old"]
)
def test_a_tpu_machine_learns_who_it_is_and_starts_again(tmp_path, endpoints):
    answers = f'case "${{@: -1}}" in *number) echo 1;; *endpoints) echo {endpoints};; esac'
    program(tmp_path / "curl", answers)
    count = tmp_path / "count"
    program(
        tmp_path / "train", f'echo "$*"; echo x >>{count}; (($(wc -l <{count}) > 2)) || exit 75'
    )
    done = run("tpu_vm_worker.sh", "--workdir", "a b", path=tmp_path, PYTHON=f"{tmp_path}/train")
    assert done.returncode == 0, done.stderr
    started = [line for line in done.stdout.splitlines() if "realisvsr_jax.train" in line]
    assert len(started) == 3
    assert set(started) == {
        "-m realisvsr_jax.train --coordinator 10.0.0.5:8482 --num_processes 2 --process_id 1 "
        "--workdir a b"
    }
