"""The VAE's tensors under the names of either dialect."""

import dataclasses

import numpy as np
import pytest
from test_keymaps import VAE

from realisvsr_jax.errors import InputError
from realisvsr_jax.vae.wan_vae import TINY_VAE, WAN_VAE
from realisvsr_jax.weights.keymap import DIALECTS
from realisvsr_jax.weights.vae_keymap import rules


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_name_stands_twice_at_full_width(dialect):
    table = rules(WAN_VAE, dialect)
    assert len({rule.ours for rule in table}) == len({rule.torch for rule in table}) == len(table)


# As diffusers' convert_wan_to_diffusers.py renames Wan2.1_VAE.pth; shapes at base_dim 2.
SAME_TENSORS = """
conv1.weight quant_conv.weight 6 6 1 1 1
conv2.bias post_quant_conv.bias 3
encoder.conv1.weight encoder.conv_in.weight 2 3 3 3 3
encoder.downsamples.3.residual.6.weight encoder.down_blocks.3.conv2.weight 4 4 3 3 3
encoder.downsamples.3.shortcut.weight encoder.down_blocks.3.conv_shortcut.weight 4 2 1 1 1
encoder.downsamples.2.resample.1.weight encoder.down_blocks.2.resample.1.weight 2 2 3 3
encoder.downsamples.5.time_conv.weight encoder.down_blocks.5.time_conv.weight 4 4 3 1 1
encoder.middle.0.residual.0.gamma encoder.mid_block.resnets.0.norm1.gamma 8 1 1 1
encoder.middle.1.norm.gamma encoder.mid_block.attentions.0.norm.gamma 8 1 1
decoder.middle.1.to_qkv.weight decoder.mid_block.attentions.0.to_qkv.weight 24 8 1 1
decoder.middle.1.proj.bias decoder.mid_block.attentions.0.proj.bias 8
decoder.middle.2.residual.3.gamma decoder.mid_block.resnets.1.norm2.gamma 8 1 1 1
decoder.upsamples.4.shortcut.weight decoder.up_blocks.1.resnets.0.conv_shortcut.weight 8 4 1 1 1
decoder.upsamples.14.residual.2.weight decoder.up_blocks.3.resnets.2.conv1.weight 2 2 3 3 3
decoder.upsamples.3.time_conv.weight decoder.up_blocks.0.upsamplers.0.time_conv.weight 16 8 3 1 1
decoder.upsamples.11.resample.1.weight decoder.up_blocks.2.upsamplers.0.resample.1.weight 2 4 3 3
decoder.head.0.gamma decoder.norm_out.gamma 2 1 1 1
decoder.head.2.weight decoder.conv_out.weight 3 2 3 3 3
"""


def test_wans_names_and_diffusers_stand_for_the_same_tensors():
    theirs, original = map(VAE.tensors, DIALECTS)
    for line in SAME_TENSORS.strip().splitlines():
        wan, diffusers, *shape = line.split()
        assert original[wan].shape == tuple(map(int, shape)), wan
        np.testing.assert_array_equal(original[wan], theirs[diffusers], err_msg=wan)


def test_a_vae_that_pytorch_does_not_have_is_refused():
    with pytest.raises(InputError, match=r"has norm 'rms'.*this one has 'none', 2 and 1"):
        rules(TINY_VAE)
    with pytest.raises(InputError, match=r"one block a stage more.*'rms', 4 and 2"):
        rules(dataclasses.replace(WAN_VAE, decoder_blocks=4))
