"""The entries of the register: each backbone, what it is and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import applications

from luneta.models.applications import application, mobilenet, without_preprocessing
from luneta.models.architectures import (
    classic,
    convnext,
    efficientnet,
    inception,
    lenses,
    residual,
    squeezenet,
    torch_resnet,
)


@dataclass(frozen=True)
class Backbone:
    """A network that turns an image into features.

    Attributes
    ----------
    name
        Its name in a config.
    family
        Networks of one family differ in depth and width.
    create
        `create(input_shape, classes=None, ...)`: see `luneta.models.architectures` and
        `luneta.models.applications`.
    paper, year
        Where it was published, and when.
    parameters
        Of the network with its own top, weights that are not trainable included, at
        `default_side` pixels, `default_bands` and `default_classes`.
    scaling
        The input that it expects: `signed` -1 to 1, `unit` 0 to 1, `torch` 0 to 1 with the mean of
        ImageNet subtracted and divided by its standard deviation, `caffe` 0 to 255 in the order
        blue, green, red with the mean of ImageNet subtracted, `none` the pixels as they come.
    smallest_side
        Of its input, in pixels.
    weights
        Published weights: `imagenet` (downloaded by Keras), `h5` (a file of keras-squeezenet),
        `timm` (converted from PyTorch). Random weights and those of luneta fit every network.
    has_width
        Whether it comes in widths.
    has_activation
        Whether its activation can be chosen.
    default_side, default_bands, default_classes
        As in its paper.
    output
        What it gives without its top: a `map` (y, x, feature) or a `vector` (feature,).
    """

    name: str
    family: str
    create: Callable[..., keras.Model]
    paper: str
    year: int
    parameters: int
    scaling: str = "signed"
    smallest_side: int = 32
    weights: tuple[str, ...] = ()
    has_width: bool = False
    has_activation: bool = False
    default_side: int = 224
    default_bands: int = 3
    default_classes: int = 1000
    output: str = "map"


def _from_keras(
    name: str,
    family: str,
    create: Callable[..., keras.Model],
    paper: str,
    year: int,
    parameters: int,
    scaling: str,
    **others: object,
) -> Backbone:
    """Describe a network of keras.applications."""
    return Backbone(
        name, family, create, paper, year, parameters, scaling, weights=("imagenet",), **others
    )


_VGG = "Simonyan & Zisserman, arXiv:1409.1556"
_RESNET = "He et al., arXiv:1512.03385"
_RESNET_V2 = "He et al., arXiv:1603.05027"
_EFFICIENTNET_V2 = "Tan & Le, arXiv:2104.00298"
_CONVNEXT = "Liu et al., arXiv:2201.03545"

# EfficientNetV2 B0 to B3 were trained with the mean and deviation of ImageNet, S to L with -1 to 1:
# so does the scaling that keras.applications builds into them, here left out.
APPLICATIONS = (
    _from_keras("VGG16", "VGG", application(applications.VGG16), _VGG, 2014, 138_357_544, "caffe"),
    _from_keras("VGG19", "VGG", application(applications.VGG19), _VGG, 2014, 143_667_240, "caffe"),
    *(
        _from_keras(
            name, "ResNet", application(getattr(applications, name)), _RESNET, 2015, n, "caffe"
        )
        for name, n in (
            ("ResNet50", 25_636_712),
            ("ResNet101", 44_707_176),
            ("ResNet152", 60_419_944),
        )
    ),
    *(
        _from_keras(
            name,
            "ResNetV2",
            application(getattr(applications, name)),
            _RESNET_V2,
            2016,
            n,
            "signed",
        )
        for name, n in (
            ("ResNet50V2", 25_613_800),
            ("ResNet101V2", 44_675_560),
            ("ResNet152V2", 60_380_648),
        )
    ),
    _from_keras(
        "InceptionV3",
        "Inception",
        application(applications.InceptionV3),
        "Szegedy et al., arXiv:1512.00567",
        2015,
        23_851_784,
        "signed",
        smallest_side=75,
        default_side=299,
    ),
    _from_keras(
        "InceptionResNetV2",
        "Inception",
        application(applications.InceptionResNetV2),
        "Szegedy et al., arXiv:1602.07261",
        2016,
        55_873_736,
        "signed",
        smallest_side=75,
        default_side=299,
    ),
    _from_keras(
        "Xception",
        "Xception",
        application(applications.Xception),
        "Chollet, arXiv:1610.02357",
        2016,
        22_910_480,
        "signed",
        smallest_side=71,
        default_side=299,
    ),
    _from_keras(
        "DenseNet121",
        "DenseNet",
        application(applications.DenseNet121),
        "Huang et al., arXiv:1608.06993",
        2016,
        8_062_504,
        "torch",
    ),
    _from_keras(
        "MobileNet",
        "MobileNet",
        mobilenet(applications.MobileNet),
        "Howard et al., arXiv:1704.04861",
        2017,
        4_253_864,
        "signed",
        has_width=True,
    ),
    _from_keras(
        "MobileNetV2",
        "MobileNet",
        mobilenet(applications.MobileNetV2),
        "Sandler et al., arXiv:1801.04381",
        2018,
        3_538_984,
        "signed",
        has_width=True,
    ),
    *(
        _from_keras(
            f"EfficientNetV2{size}",
            "EfficientNetV2",
            without_preprocessing(getattr(applications, f"EfficientNetV2{size}")),
            _EFFICIENTNET_V2,
            2021,
            n,
            scaling,
            default_side=side,
        )
        for size, side, n, scaling in (
            ("B0", 224, 7_200_312, "torch"),
            ("B1", 240, 8_212_124, "torch"),
            ("B2", 260, 10_178_374, "torch"),
            ("B3", 300, 14_467_622, "torch"),
            ("S", 384, 21_612_360, "signed"),
            ("M", 480, 54_431_388, "signed"),
            ("L", 480, 119_027_848, "signed"),
        )
    ),
    *(
        _from_keras(
            f"ConvNeXt{size}",
            "ConvNeXt",
            without_preprocessing(getattr(applications, f"ConvNeXt{size}")),
            _CONVNEXT,
            2022,
            n,
            "torch",
        )
        for size, n in (
            ("Tiny", 28_589_128),
            ("Small", 50_223_688),
            ("Base", 88_591_464),
            ("Large", 197_767_336),
        )
    ),
)


def _built_here(
    name: str,
    family: str,
    create: Callable[..., keras.Model],
    paper: str,
    year: int,
    parameters: int,
    **others: object,
) -> Backbone:
    """Describe a network of `luneta.models.architectures`."""
    return Backbone(
        name, family, create, paper, year, parameters, **{"has_activation": True, **others}
    )


ARCHITECTURES = (
    _built_here(
        "LeNet5",
        "classic",
        classic.lenet5,
        "LeCun et al., Proc. IEEE 86, 2278",
        1998,
        61_706,
        smallest_side=16,
        default_side=32,
        default_bands=1,
        default_classes=10,
        output="vector",
    ),
    _built_here(
        "AlexNet",
        "classic",
        classic.alexnet,
        "Krizhevsky et al., NIPS 25",
        2012,
        60_965_224,
        smallest_side=67,
        default_side=227,
        output="vector",
    ),
    _built_here(
        "OverFeat",
        "classic",
        classic.overfeat,
        "Sermanet et al., arXiv:1312.6229",
        2013,
        145_920_872,
        smallest_side=71,
        default_side=231,
        output="vector",
    ),
    _built_here(
        "GoogLeNet",
        "Inception",
        inception.googlenet,
        "Szegedy et al., arXiv:1409.4842",
        2014,
        6_998_552,
    ),
    _built_here(
        "InceptionV4",
        "Inception",
        inception.inception_v4,
        "Szegedy et al., arXiv:1602.07261",
        2016,
        42_742_984,
        smallest_side=75,
        default_side=299,
    ),
    _built_here(
        "ResNet18", "ResNet", residual.resnet18, _RESNET, 2015, 11_699_112, weights=("timm",)
    ),
    _built_here("ResNet34", "ResNet", residual.resnet34, _RESNET, 2015, 21_814_696),
    _built_here(
        "ResNeXt50",
        "ResNeXt",
        residual.resnext50,
        "Xie et al., arXiv:1611.05431",
        2016,
        25_097_128,
    ),
    _built_here(
        "SqueezeNet",
        "SqueezeNet",
        squeezenet.squeezenet,
        "Iandola et al., arXiv:1602.07360",
        2016,
        1_235_496,
        scaling="caffe",
        smallest_side=31,
        weights=("h5",),
        default_side=227,
    ),
    _built_here(
        "DaiTongResNet26",
        "galaxies",
        residual.dai_tong_resnet26,
        "Dai & Tong, arXiv:1807.10406",
        2018,
        55_725_637,
        smallest_side=16,
        default_side=64,
        default_classes=5,
    ),
    _built_here(
        "CMUDeepLens",
        "lenses",
        lenses.cmu_deeplens,
        "Lanusse et al., arXiv:1703.02642",
        2018,
        3_524_193,
        scaling="none",
        smallest_side=16,
        default_side=101,
        default_bands=4,
        default_classes=1,
    ),
    _built_here(
        "LensDetectNet",
        "lenses",
        lenses.lens_detect_net,
        "the course; a reconstruction",
        2019,
        49_714_696,
        scaling="none",
        smallest_side=15,
        default_side=101,
        default_bands=1,
        default_classes=2,
        output="vector",
    ),
    _built_here(
        "ResNet50LensFinder",
        "lenses",
        lenses.resnet50_lens_finder,
        "the course; He et al., arXiv:1512.03385",
        2019,
        23_591_810,
        scaling="none",
        has_activation=False,
        default_side=101,
        default_classes=2,
    ),
)


def _of_timm(
    name: str,
    family: str,
    create: Callable[..., keras.Model],
    paper: str,
    year: int,
    parameters: int,
    output: str = "map",
) -> Backbone:
    """Describe a network whose weights are converted from timm, Zoobot's encoders among them."""
    return _built_here(
        name, family, create, paper, year, parameters,
        scaling="torch", weights=("timm",), output=output,
    )  # fmt: skip


TIMM = (
    _of_timm("TimmResNet50", "ResNet", torch_resnet.timm_resnet50, _RESNET, 2015, 25_610_152),
    _of_timm(
        "TimmEfficientNetB0",
        "EfficientNet",
        efficientnet.timm_efficientnet_b0,
        "Tan & Le, arXiv:1905.11946",
        2019,
        5_330_564,
    ),
    *(
        _of_timm(f"TimmConvNeXt{size}", "ConvNeXt", create, _CONVNEXT, 2022, parameters, "vector")
        for size, create, parameters in (
            ("Pico", convnext.timm_convnext_pico, 9_045_672),
            ("Nano", convnext.timm_convnext_nano, 15_593_560),
            ("Tiny", convnext.timm_convnext_tiny, 28_589_128),
            ("Small", convnext.timm_convnext_small, 50_223_688),
            ("Base", convnext.timm_convnext_base, 88_591_464),
        )
    ),
)
