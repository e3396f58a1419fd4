from collections import Counter

import pytest

from realisvsr_jax.data.buckets import bucket_at, buckets_480p, buckets_720p


@pytest.mark.parametrize("buckets", [buckets_480p(), buckets_720p()])
def test_tokens_of_a_latent_frame_divide_by_eight_and_latents_are_even(buckets):
    for frames, height, width in buckets:
        assert frames == 49
        assert height % 16 == width % 16 == 0
        assert (height // 16) * (width // 16) % 8 == 0


def test_portrait_and_landscape_are_both_there():
    assert {(h, w) for _, h, w in buckets_480p()} == {(w, h) for _, h, w in buckets_480p()}


def test_every_bucket_has_its_turn_and_counts_its_earlier_steps():
    seen = [bucket_at(step, 4, seed=3) for step in range(12)]
    assert Counter(number for number, _ in seen) == {0: 3, 1: 3, 2: 3, 3: 3}
    for step, (number, earlier) in enumerate(seen):
        assert earlier == sum(other == number for other, _ in seen[:step])


def test_the_seed_orders_the_buckets():
    orders = {tuple(bucket_at(step, 5, seed)[0] for step in range(5)) for seed in range(8)}
    assert len(orders) > 1
