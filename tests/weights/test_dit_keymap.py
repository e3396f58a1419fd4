"""The DiT's tensors under the names of either dialect."""

import numpy as np
from test_keymaps import DIT


def test_wans_own_names_and_shapes():
    tensors = DIT.tensors("wan")
    assert tensors["patch_embedding.weight"].shape == (12, 4, 1, 2, 2)
    assert tensors["blocks.2.ffn.0.weight"].shape == (20, 12)
    assert tensors["blocks.0.modulation"].shape == (1, 6, 12)
    assert tensors["head.modulation"].shape == (1, 2, 12)
    assert tensors["head.head.weight"].shape == (20, 12)
    assert tensors["time_projection.1.bias"].shape == (72,)


def test_the_affine_norm_changes_its_number_between_dialects():
    wan, diffusers = DIT.tensors("wan"), DIT.tensors("diffusers")
    np.testing.assert_array_equal(wan["blocks.1.norm3.bias"], diffusers["blocks.1.norm2.bias"])
    assert "blocks.1.norm3.bias" not in diffusers
    assert "blocks.1.norm2.bias" not in wan
