import importlib

import keras
import numpy as np
import pytest

from luneta.config import training as config
from luneta.models import registry
from luneta.models.activations import ACTIVATIONS
from luneta.models.registry import BACKBONES

BANDS = (1, 3, 4, 5)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = [x.name for x in BACKBONES.values() if x.parameters < 30e6]

# From the papers: stages of ResNet, VGG, ConvNeXt...; modules of Inception, MobileNet, Xception
BLOCKS = {
    "TimmResNet50": 5,
    "TimmEfficientNetB0": 9,
    "TimmConvNeXtPico": 6,
    "TimmConvNeXtNano": 6,
    "TimmConvNeXtTiny": 6,
    "TimmConvNeXtSmall": 6,
    "TimmConvNeXtBase": 6,
    "VGG16": 5,
    "VGG19": 5,
    "ResNet50": 5,
    "ResNet101": 5,
    "ResNet152": 5,
    "ResNet50V2": 5,
    "ResNet101V2": 5,
    "ResNet152V2": 5,
    "InceptionV3": 11,
    "InceptionResNetV2": 6,
    "Xception": 14,
    "DenseNet121": 5,
    "MobileNet": 14,
    "MobileNetV2": 17,
    "EfficientNetV2B0": 6,
    "EfficientNetV2B1": 6,
    "EfficientNetV2B2": 6,
    "EfficientNetV2B3": 6,
    "EfficientNetV2S": 6,
    "EfficientNetV2M": 7,
    "EfficientNetV2L": 7,
    "ConvNeXtTiny": 4,
    "ConvNeXtSmall": 4,
    "ConvNeXtBase": 4,
    "ConvNeXtLarge": 4,
    "LeNet5": 4,
    "AlexNet": 7,
    "OverFeat": 7,
    "GoogLeNet": 4,
    "InceptionV4": 4,
    "ResNet18": 5,
    "ResNet34": 5,
    "ResNeXt50": 5,
    "SqueezeNet": 9,
    "DaiTongResNet26": 5,
    "CMUDeepLens": 6,
    "LensDetectNet": 5,
    "ResNet50LensFinder": 5,
}


@pytest.fixture(autouse=True)
def forget():
    yield
    keras.backend.clear_session()


def smallest(name, bands):
    side = BACKBONES[name].smallest_side
    return registry.create(name, (side, side, bands))


def check(name, bands):
    """A backbone takes its smallest image, gives what it says, and falls into blocks."""
    network = smallest(name, bands)
    side = BACKBONES[name].smallest_side
    assert network.name == "backbone"
    assert network.input_shape == (None, side, side, bands)
    assert len(network.output_shape) == (4 if BACKBONES[name].output == "map" else 2)
    blocks = registry.blocks(network)
    together = [layer for block in blocks for layer in block]
    assert [x.name for x in together] == [x.name for x in network.layers if x.weights]
    assert len(blocks) == BLOCKS[name]
    assert all(blocks)


@pytest.mark.parametrize("name", SMALL)
def test_small_backbone_builds_and_falls_into_blocks(name):
    check(name, BANDS[list(BACKBONES).index(name) % 4])


@pytest.mark.slow
@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_builds_and_falls_into_blocks(name, bands):
    check(name, bands)


def with_top(name):
    entry = BACKBONES[name]
    shape = (entry.default_side, entry.default_side, entry.default_bands)
    return registry.create(name, shape, classes=entry.default_classes)


# The first four as keras.io/api/applications has them, in millions; the others as published
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("MobileNet", 4_253_864),
        ("MobileNetV2", 3_538_984),
        ("EfficientNetV2B0", 7_200_312),
        ("ResNet50", 25_636_712),
        ("SqueezeNet", 1_235_496),
        ("LensDetectNet", 49_714_696),
        ("ResNet50LensFinder", 23_591_810),
    ],
)
def test_parameters_with_own_top(name, parameters):
    network = with_top(name)
    assert network.count_params() == parameters == BACKBONES[name].parameters
    assert network.output_shape == (None, BACKBONES[name].default_classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_written_parameters_are_those_of_the_network(name):
    assert with_top(name).count_params() == BACKBONES[name].parameters


def test_blocks_are_in_order_and_whole():
    blocks = registry.blocks(smallest("ResNet50", 3))
    assert [x.name for x in blocks[0]] == ["conv1_conv", "conv1_bn"]
    assert {x.name.split("_")[0] for x in blocks[3]} == {"conv4"}
    assert blocks[-1][-1].name == "conv5_block3_3_bn"
    assert [len(x) for x in registry.blocks(smallest("VGG16", 1))] == [2, 2, 3, 3, 3]


def test_branches_without_names_go_with_their_module():
    network = smallest("InceptionV3", 3)
    position = {layer.name: i for i, layer in enumerate(network.layers)}
    ends = [position[f"mixed{i}"] for i in range(11)]
    for block, start, end in zip(registry.blocks(network), [0, *ends], ends, strict=False):
        assert all(start < position[layer.name] < end for layer in block)


def test_blocks_of_a_whole_network_are_those_of_its_backbone():
    backbone = smallest("ResNet18", 3)
    inputs = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(inputs))
    network = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    assert registry.blocks(network) == registry.blocks(backbone)


@pytest.mark.parametrize(
    "name", ["LeNet5", "AlexNet", "SqueezeNet", "InceptionV4", "LensDetectNet"]
)
def test_smallest_side_is_the_smallest(name):
    side = BACKBONES[name].smallest_side - 1
    with pytest.raises(ValueError, match="[Nn]egative|output size"):
        BACKBONES[name].create((side, side, 1))


def test_width_thins():
    counts = [
        registry.create("MobileNetV2", (32, 32, 3), width=width).count_params()
        for width in (0.35, 1.0)
    ]
    assert counts == [410_208, 2_257_984]


MODULES = {
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "ResNet50": "resnet",
    "ResNet101": "resnet",
    "ResNet152": "resnet",
    "ResNet50V2": "resnet_v2",
    "ResNet101V2": "resnet_v2",
    "ResNet152V2": "resnet_v2",
    "InceptionV3": "inception_v3",
    "InceptionResNetV2": "inception_resnet_v2",
    "Xception": "xception",
    "DenseNet121": "densenet",
    "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2",
}


def scaled(images, scaling):
    """What `Backbone.scaling` says, from 0 to 255."""
    if scaling == "caffe":
        return images[..., ::-1] - np.array([103.939, 116.779, 123.68])
    if scaling == "torch":
        return (images / 255 - np.array(MEAN)) / np.array(DEVIATION)
    return images / 127.5 - 1


@pytest.mark.parametrize("name", MODULES)
def test_scaling_is_that_of_keras(name):
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3))
    module = importlib.import_module(f"keras.applications.{MODULES[name]}")
    expected = module.preprocess_input(images.copy())
    np.testing.assert_allclose(scaled(images, BACKBONES[name].scaling), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "last", "atol"),
    [
        ("EfficientNetV2B0", keras.layers.Normalization, 1e-5),
        ("EfficientNetV2S", keras.layers.Rescaling, 0.008),  # x / 128 - 1 for x / 127.5 - 1
        ("ConvNeXtTiny", keras.layers.Normalization, 1e-5),
    ],
)
def test_scaling_is_that_built_into_keras(name, last, atol):
    create = getattr(keras.applications, name)
    network = create(include_top=False, weights=None, input_shape=(32, 32, 3))
    (layer,) = [x for x in network.layers if isinstance(x, last)]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    built_in = keras.Model(network.input, layer.output)(images.astype("float32"))
    np.testing.assert_allclose(scaled(images, BACKBONES[name].scaling), built_in, atol=atol)


@pytest.mark.parametrize("name", ["EfficientNetV2B0", "ConvNeXtTiny"])
def test_scaling_built_into_keras_is_left_out(name):
    kinds = {type(x) for x in smallest(name, 3).layers}
    assert not kinds & {keras.layers.Normalization, keras.layers.Rescaling}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5"}, "no backbone 'resnet5': did you mean ResNet"),
        ({"name": "Xception"}, "Xception needs images of at least 71 px, these have 64: set train"),
        ({"width": 0.5}, "width = 0.5, but ResNet50 comes in one width.*MobileNetV2"),
        ({"activation": "elu"}, "activation = 'elu', but ResNet50 has its own.*LeNet5"),
        ({"name": "ResNet18", "weights": "imagenet"}, "ResNet18 cannot be made with .*'imagenet'"),
        ({"weights": "x.h5"}, "'x.h5': it is made with random weights or imagenet; those of a"),
        ({"input_shape": (64, 64, 4), "weights": "imagenet"}, "have 3 bands, these images 4"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        registry.create(**{"name": "ResNet50", "input_shape": (64, 64, 3), **arguments})


def test_config_knows_what_the_register_knows():
    entries = BACKBONES.values()
    assert set(config.BACKBONES) == set(BACKBONES)
    assert set(config.WITH_WIDTH) == {x.name for x in entries if x.has_width}
    assert set(config.WITH_ACTIVATION) == {x.name for x in entries if x.has_activation}
    assert set(config.WITH_IMAGENET) == {x.name for x in entries if "imagenet" in x.weights}
    assert set(config.WITH_TIMM) == {x.name for x in entries if "timm" in x.weights}
    sides = {x.name: config.SMALLEST_SIDES.get(x.name, config.SMALLEST_SIDE) for x in entries}
    assert sides == {x.name: x.smallest_side for x in entries}
    assert set(config.SMALLEST_SIDES) <= set(BACKBONES)
    assert set(config.ACTIVATIONS) == set(ACTIVATIONS)


def test_table_lists_all_in_120_columns():
    lines = registry.describe().splitlines()
    assert [x.split()[0] for x in lines[1:]] == list(BACKBONES)
    assert max(map(len, lines)) <= 120
    (finder,) = [x for x in registry.table() if x["name"] == "ResNet50LensFinder"]
    assert (finder["parameters"], finder["smallest_side"]) == (23.59181, 32)
    assert "23.592          32 px" in lines[1 + list(BACKBONES).index("ResNet50LensFinder")]
