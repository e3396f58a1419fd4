import importlib
import pkgutil

import pytest

import configs
from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.training.settings import TrainingConfig

# The experiments; benchmarks, eval_*, are tests/evals/test_benchmark.py's.
NAMES = sorted(
    module.name
    for module in pkgutil.walk_packages(configs.__path__, "configs.")
    if not module.ispkg and not module.name.startswith("configs.eval_")
)


def load(name: str, *arguments: str) -> TrainingConfig:
    config = importlib.import_module(f"configs.{name}").get_config(*arguments)
    return settings.from_mapping(TrainingConfig, config.to_dict())


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_valid(name):
    assert load(name.removeprefix("configs.")).steps > 0


@pytest.mark.parametrize("name", ["wan13b", "wan13b_720p", "wan14b"])
def test_the_papers_settings(name):
    config = load(name)
    assert config.steps == 12_000
    assert config.data.batch_size == 8
    assert {frames for frames, _, _ in config.data.buckets} == {49}
    assert config.optimizer.learning_rate == 1e-5
    assert config.optimizer.weight_decay == 1e-4
    assert config.condition_scale == 1.0
    assert config.parameters == ("cpc/.*", "gamma")
    assert config.loss.wavelet_weights == (1.0, 2.0, 2.0, 2.0)


def test_the_models_sizes():
    small, large = load("wan13b").model, load("wan14b").model
    assert (small.dit.dim, small.dit.num_layers, small.cpc.num_blocks) == (1536, 30, 4)
    assert (large.dit.dim, large.dit.num_layers, large.cpc.num_blocks) == (5120, 40, 5)
    assert small.interval == large.interval == 8
    heights = {height for _, height, _ in load("wan13b_720p").data.buckets}
    assert min(heights) >= 720


def test_ablations_differ_from_the_main_model_in_what_they_name_alone():
    main = settings.to_mapping(load("wan13b"))
    expected = {
        "cpc": {"wavelet": 0.0, "hog": 0.0},
        "cpc_wavelet": {"hog": 0.0},
        "cpc_hog": {"wavelet": 0.0},
    }
    for name, changes in expected.items():
        assert settings.to_mapping(load(f"ablations.{name}")) == main | {
            "loss": main["loss"] | changes
        }
    assert load("ablations.baseline").model.cpc.inject_noisy_latent
    weights = load("ablations.wavelet_weights", "1.5").loss.wavelet_weights
    assert weights == (1.0, 1.5, 1.5, 1.5)


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(
        InputError, match=r"'optimizer\.learning_rat'; did you mean 'learning_rate'"
    ):
        settings.from_mapping(TrainingConfig, {"optimizer": {"learning_rat": 1.0}})
