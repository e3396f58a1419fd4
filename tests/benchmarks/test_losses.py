"""The comparison of losses: one start for all rows of a seed, and sums that are right."""

import dataclasses

import numpy as np
from flax import nnx

from benchmarks import losses
from configs import tiny_losses
from realisvsr_jax.training.networks import initial_release


def test_rows_of_a_seed_start_from_the_same_weights():
    found = {}
    for row in ("baseline", "cpc_wavelet_hog"):
        config = dataclasses.replace(losses.configured(row, 1, None), init_vae="tiny")
        state = nnx.to_flat_state(nnx.state(initial_release(config).model))
        found[row] = {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in state}
    baseline, ours = found["baseline"], found["cpc_wavelet_hog"]
    # The control branches' embeddings differ by design: the baseline's adds to that of z_t.
    shared = {name for name in ours if not name.startswith("cpc/patch_embedding")}
    assert any(name.startswith("cpc/blocks") for name in shared)
    for name in shared:
        np.testing.assert_array_equal(baseline[name], ours[name], err_msg=name)


def test_rows_differ_in_what_table_3_names():
    rows = {row: losses.configured(row, 0, 7) for row in tiny_losses.ROWS}
    weights = {row: (c.loss.rec, c.loss.wavelet, c.loss.hog) for row, c in rows.items()}
    assert weights == {
        "baseline": (1.0, 0.0, 0.0),
        "cpc": (1.0, 0.0, 0.0),
        "cpc_wavelet": (1.0, 1.0, 0.0),
        "cpc_hog": (1.0, 0.0, 1.0),
        "cpc_wavelet_hog": (1.0, 1.0, 1.0),
    }
    noisy = [row for row, config in rows.items() if config.model.cpc.inject_noisy_latent]
    assert noisy == ["baseline"]
    same = {
        dataclasses.replace(c, loss=rows["cpc"].loss, model=rows["cpc"].model)
        for c in rows.values()
    }
    assert len(same) == 1


def test_differences_are_paired_by_seed_and_clip():
    base = np.array([[20.0, 30.0], [22.0, 28.0], [21.0, 32.0]])
    tables = {
        "cpc": {"psnr": base, "lpips": np.full((3, 2), 0.5)},
        "cpc_hog": {"psnr": base + 0.25, "lpips": np.array([[0.4, 0.6]] * 3)},
    }
    lines = losses.markdown(tables).splitlines()
    assert lines[2] == "| cpc | 25.500 ± 0.866 |  | 0.5000 ± 0.0000 |  |"
    # Clips differ by 10 dB, the systems always by 0.25.
    assert lines[3] == (
        "| cpc_hog | 25.750 ± 0.866 | +0.250 ± 0.000 | 0.5000 ± 0.0000 | +0.0000 ± 0.0447 |"
    )
