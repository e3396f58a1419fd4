"""A sharded load reads each device's slices and nothing else."""

import json
import subprocess
import sys

PROGRAM = """
import json, sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from realisvsr_jax.model.wan_dit import WanDiT
from realisvsr_jax.weights import assembly, importing
from realisvsr_jax.weights.release import load_release, part

folder, source = Path(sys.argv[1]), Path(sys.argv[2])
importing.convert(source, folder, parts=["dit"])
whole = load_release(folder).model
read, counted = assembly.read, []
assembly.read = lambda tensor, index: counted.append(read(tensor, index)) or counted[-1]
devices = np.array(jax.devices()).reshape(2, 4)
mesh = Mesh(devices, ("a", "b"))


def placement(path, shape):
    # The first two axes that divide, as fsdp and tensor parallelism have them.
    axes, left = [None] * len(shape), ["b", "a"]
    for i, size in enumerate(shape):
        if left and size % mesh.shape[left[-1]] == 0:
            axes[i] = left.pop()
    return NamedSharding(mesh, PartitionSpec(*axes))


model = whole.config
constructor = lambda: type(whole)(model, rngs=nnx.Rngs(0))
sharded = assembly.build(constructor, part(folder, "model"), folder, placement)
total = owned = 0
per_device = dict.fromkeys(range(8), 0)
for (path, leaf), (_, same) in zip(
    nnx.to_flat_state(nnx.state(sharded)), nnx.to_flat_state(nnx.state(whole))
):
    array = leaf[...]
    np.testing.assert_array_equal(np.asarray(array), np.asarray(same[...]))
    total += array.nbytes
    for shard in array.addressable_shards:
        per_device[shard.device.id] += shard.data.nbytes
    slices = {str(s.index): s.data.nbytes for s in array.addressable_shards}
    owned += sum(slices.values())
print(json.dumps({
    "read": sum(a.nbytes for a in counted), "owned": owned, "total": total,
    "largest": max(a.nbytes for a in counted), "devices": list(per_device.values()),
}))
"""


def test_bytes_read_on_eight_devices(tmp_path):
    import torch_checkpoints as checkpoints

    source = checkpoints.write_diffusers(tmp_path / "diffusers")
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "release", source],
        env={"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert program.returncode == 0, program.stderr
    found = json.loads(program.stdout)
    assert found["read"] == found["owned"] == found["total"]
    assert max(found["devices"]) < found["total"] / 4
    assert found["largest"] < found["total"] / 20
