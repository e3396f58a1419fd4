"""Mappings to dataclasses and back; whatever does not fit is named with its path."""

import dataclasses
import json

import ml_collections
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.settings import from_config, from_mapping, nearest, to_mapping
from realisvsr_jax.training.settings import TrainingConfig


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 3
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width is {self.width}, it must be positive")


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    maybe: Inner | None = None
    crop: tuple[int, int, float] | None = None
    pairs: tuple[tuple[int, int], ...] = ()


FULL = Outer("a", Inner(5, 2.0, (7,)), Inner(), (1, 2, 3.5), ((1, 2), (3, 4)))


@pytest.mark.parametrize("settings", [Outer("a"), FULL])
def test_a_round_trip_through_json_and_configdict_is_exact(settings):
    mapping = to_mapping(settings)
    assert from_mapping(Outer, json.loads(json.dumps(mapping))) == settings
    assert from_mapping(Outer, ml_collections.ConfigDict(mapping).to_dict()) == settings


def test_lists_become_tuples_and_whole_numbers_floats():
    inner = from_mapping(Inner, {"rate": 2, "sizes": [4, 5]})
    assert inner == Inner(rate=2.0, sizes=(4, 5))
    assert type(inner.rate) is float
    assert type(from_mapping(Outer, {"name": "a", "crop": [1, 2, 3]}).crop[2]) is float


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "a", "iner": {}}, "unknown setting 'iner'; did you mean 'inner'?"),
        ({"name": "a", "zzz": 1}, "'zzz'; known: crop, inner, maybe, name, pairs"),
        ({"name": "a", "maybe": {"witdh": 1}}, "'maybe.witdh'; did you mean 'width'?"),
        ({}, "incomplete settings 'Outer': .*missing 1 required .* 'name'"),
        ({"name": "a", "inner": {"width": 0}}, "width is 0, it must be positive"),
        ({"name": "a", "inner": 3}, "'inner' takes a group of settings, not 3"),
        ({"name": "a", "crop": 3}, "'crop' takes a list of values, not 3"),
        ({"name": "a", "crop": [1, 2]}, r"'crop' takes 3 values, 2 are given: \[1, 2\]"),
        ({"name": "a", "pairs": [[1, 2], [3, 4, 5]]}, "'pairs' takes 2 values, 3 are given"),
    ],
)
def test_what_does_not_fit_is_named(mapping, message):
    with pytest.raises(InputError, match=message):
        from_mapping(Outer, mapping)


def test_the_path_of_a_part_is_in_its_message():
    with pytest.raises(InputError, match=r"unknown setting 'model\.dit\.widht'"):
        from_mapping(Inner, {"widht": 1}, "model.dit")


def test_nearest_names_all_where_nothing_is_close():
    assert nearest("colour", ["color", "scale"]) == "; did you mean 'color'?"
    assert nearest("qqq", ["scale", "color"]) == "; known: color, scale"


def test_a_configuration_of_another_program_is_named_as_one():
    with pytest.raises(InputError, match=r"none of training: it has 'truth', 'layout', 'ours', wh"):
        from_config(TrainingConfig, {"truth": "", "layout": "", "ours": "", "steps": 1}, "training")
    with pytest.raises(InputError, match=r"unknown setting 'stepz'; did you mean 'steps'\?"):
        from_config(TrainingConfig, {"stepz": 1, "seed": 0}, "training")
