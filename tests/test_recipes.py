"""The recipes that travel with the package: valid, and the paper's table."""

from __future__ import annotations

import json

import pytest

from iir_sdk.errors import ConfigError
from iir_sdk.training.config import TrainingConfig, find_recipe, packaged_recipes, read_recipe
from iir_sdk.training.run.optimisation import MOMENTUM, POLY_POWER


def test_every_recipe_of_the_package_is_valid():
    assert set(packaged_recipes()) == {
        "coco",
        "duo",
        "finetune",
        "fss1000",
        "lite0",
        "paco_part",
        "pascal",
        "pascal_dinov2",
        "pascal_part",
    }
    for name in packaged_recipes():
        config = read_recipe(find_recipe(name))
        assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("name", "size", "batch", "epochs"),
    [
        ("pascal", 473, 8, 300),
        ("coco", 641, 24, 60),
        ("fss1000", 473, 2, 300),
        ("pascal_part", 513, 16, 300),
        ("paco_part", 641, 1, 10),
    ],
)
def test_the_papers_recipes_are_its_table(name, size, batch, epochs):
    config = read_recipe(find_recipe(name))
    assert (config.preprocessing.size, config.episodes.batch, config.epochs) == (size, batch, epochs)
    optimiser = config.optimiser
    assert (optimiser.name, optimiser.learning_rate, MOMENTUM, optimiser.weight_decay) == ("sgd", 0.05, 0.9, 1e-4)
    assert (optimiser.schedule, POLY_POWER, config.run.precision) == ("poly", 0.9, "bfloat16")
    assert config.pictures.scale == ((0.8, 1.25) if name == "coco" else (0.9, 1.1))
    model = config.model
    assert (model.backbone, model.cam, model.width, model.heads) == ("resnet50.tv_in1k", "grad", 256, 1)
    assert (model.preset, model.blocks, model.cross_blocks) == ("paper", 6, 5)


def test_what_is_given_last_decides_how_long():
    assert read_recipe(find_recipe("pascal"), ["steps=7"]).epochs == 0
    assert read_recipe(find_recipe("pascal"), ["epochs=7"]).epochs == 7
    with pytest.raises(ConfigError, match="needs source='pictures'"):
        read_recipe(find_recipe("duo"), ["epochs=7"])
