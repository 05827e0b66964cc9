"""Settings of a network and of its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from luneta.config.fields import Fraction, Name, PositiveInt, Section, did_you_mean, no_repeats

# luneta.models.registry and luneta.models.activations hold the networks and functions of these
# names; a test keeps all that is said of them here in step, as the config may not import Keras.
BACKBONES = (
    "LeNet5", "AlexNet", "OverFeat", "VGG16", "VGG19", "GoogLeNet", "InceptionV3", "InceptionV4",
    "InceptionResNetV2", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152",
    "ResNet50V2", "ResNet101V2", "ResNet152V2", "ResNeXt50", "DaiTongResNet26",
    "ResNet50LensFinder",
    "CMUDeepLens", "LensDetectNet", "Xception", "DenseNet121", "SqueezeNet", "MobileNet",
    "MobileNetV2", "EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3",
    "EfficientNetV2S", "EfficientNetV2M", "EfficientNetV2L", "ConvNeXtTiny", "ConvNeXtSmall",
    "ConvNeXtBase", "ConvNeXtLarge", "TimmResNet50", "TimmEfficientNetB0", "TimmConvNeXtPico",
    "TimmConvNeXtNano", "TimmConvNeXtTiny", "TimmConvNeXtSmall", "TimmConvNeXtBase",
)  # fmt: skip
WITH_WIDTH = ("MobileNet", "MobileNetV2")
WITH_ACTIVATION = (
    "LeNet5", "AlexNet", "OverFeat", "GoogLeNet", "InceptionV4", "ResNet18", "ResNet34",
    "ResNeXt50", "SqueezeNet", "DaiTongResNet26", "CMUDeepLens", "LensDetectNet", "TimmResNet50",
    "TimmEfficientNetB0", "TimmConvNeXtPico", "TimmConvNeXtNano", "TimmConvNeXtTiny",
    "TimmConvNeXtSmall", "TimmConvNeXtBase",
)  # fmt: skip
WITH_IMAGENET = (
    "VGG16", "VGG19", "InceptionV3", "InceptionResNetV2", "ResNet50", "ResNet101", "ResNet152",
    "ResNet50V2", "ResNet101V2", "ResNet152V2", "Xception", "DenseNet121", "MobileNet",
    "MobileNetV2", "EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3",
    "EfficientNetV2S", "EfficientNetV2M", "EfficientNetV2L", "ConvNeXtTiny", "ConvNeXtSmall",
    "ConvNeXtBase", "ConvNeXtLarge",
)  # fmt: skip
WITH_TIMM = (
    "ResNet18", "TimmResNet50", "TimmEfficientNetB0", "TimmConvNeXtPico", "TimmConvNeXtNano",
    "TimmConvNeXtTiny", "TimmConvNeXtSmall", "TimmConvNeXtBase",
)  # fmt: skip
SMALLEST_SIDE = 32  # pixels, of the backbones that are not below
SMALLEST_SIDES = {
    "LeNet5": 16, "AlexNet": 67, "OverFeat": 71, "InceptionV3": 75, "InceptionV4": 75,
    "InceptionResNetV2": 75, "DaiTongResNet26": 16, "CMUDeepLens": 16, "LensDetectNet": 15,
    "Xception": 71, "SqueezeNet": 31,
}  # fmt: skip
ACTIVATIONS = (
    "identity", "binary_step", "logistic", "tanh", "arctan", "relu", "prelu", "elu", "softplus",
    "leaky_relu", "gelu", "silu",
)  # fmt: skip
BUILT_IN_WEIGHTS = ("imagenet", "pretrain", "none")
WEIGHTS_FILES = (".weights.h5", ".h5", ".keras", ".safetensors")
HUB = "hf_hub:"  # begins the name of weights on Hugging Face


def _known(names: tuple[str, ...], what: str):
    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"there is no {what} {value!r}; {did_you_mean(value, list(names))}")
        return value

    return AfterValidator(check)


BackboneName = Annotated[str, _known(BACKBONES, "backbone")]
ActivationName = Annotated[str, _known(ACTIVATIONS, "activation")]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Preprocessing(Section):
    """What the network does to raw pixels before its backbone; it is saved within the network.

    In this order: bad pixels become zero, noise scaling, clipping, stretch, resizing (`image_size`
    of the training), normalisation.
    """

    noise_scaling: Literal["none", "training", "cutout"] = Field(
        "none",
        description="Divides each band by its noise: `training`, the robust scatter of the pixels "
        "of the training fold; `cutout`, that of the cutout itself. Cutouts of tiles are in units "
        "of sky noise already; display pixels are never scaled.",
    )
    clip: Positive | None = Field(
        None,
        description="Flux pixels are clipped to plus and minus this, in units of noise: 250 in "
        "CMU DeepLens; display pixels are not.",
    )
    stretch: Literal["asinh", "lupton", "sqrt", "percentile", "linear", "none"] = Field(
        "asinh",
        description="Stretch of flux pixels; display pixels have none. `asinh`: each band alone. "
        "`lupton`: asinh of the mean of all bands, so that colours stay (Lupton et al. 2004). "
        "`sqrt`: square root, negative pixels mirrored. `percentile`: linear between percentiles "
        "of the cutout. `linear`: divided by `maximum`. `none`: as they are.",
    )
    softening: Positive = Field(
        3.0, description="Flux, in units of noise, at which the asinh turns logarithmic."
    )
    maximum: Positive = Field(
        250.0,
        description="Flux, in units of noise, that maps to white; brighter pixels are clipped.",
    )
    percentiles: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        [1.0, 99.5], description="Of the cutout, that map to black and white; `percentile` only."
    )
    normalisation: Literal["none", "band", "image"] = Field(
        "none",
        description="After the stretch, with statistics of the training fold alone. `band`: mean "
        "0 and scatter 1 in each band. `image`: the mean image is subtracted, each band divided by "
        "its scatter (CMU DeepLens).",
    )

    @model_validator(mode="after")
    def _percentiles_rise(self) -> Preprocessing:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {[low, high]} must rise, within 0 to 100")
        return self


class Augmentation(Section):
    """Random changes of the training cutouts, made on the device, none at inference."""

    dihedral: bool = Field(True, description="Flips and quarter turns: the 8 views of a square.")
    shift: NotNegative = Field(
        0.0, description="Largest shift in pixels, along each axis; sky moves in as zeros."
    )
    zoom: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="Largest change of scale: 0.1 zooms by 0.9 to 1.1."
    )
    noise: NotNegative = Field(
        0.0, description="Largest scatter of added Gaussian noise, in the units of the pixels."
    )
    blur: NotNegative = Field(
        0.0, description="Largest sigma, in pixels, of a Gaussian that blurs the PSF."
    )


class Training(Section):
    """How a network is built and fine-tuned."""

    backbone: BackboneName = Field(
        "MobileNetV2", description="Network; `make models` lists them with sizes and papers."
    )
    width: Annotated[float, Field(gt=0, le=1.4)] = Field(
        1.0, description="Width multiplier (alpha) of MobileNet and MobileNetV2; 1 for the others."
    )
    activation: ActivationName | None = Field(
        None,
        description="Replaces the paper's activation, in networks that luneta builds itself.",
    )
    weights: str = Field(
        "imagenet",
        description="`imagenet` (downloaded by Keras), `pretrain` (trained in this workflow, see "
        "`pretraining`), `none` (random); the path of a .weights.h5, a legacy .h5, a .keras (a "
        "luneta model: a warm start) or a .safetensors (timm, Zoobot); or `hf_hub:owner/name` "
        "(downloaded from Hugging Face; `hf_hub:owner/name@revision`, with a branch, tag or "
        "commit, stays with that version).",
    )
    stem: Literal["mean", "copy", "zero"] = Field(
        "mean",
        description="How the first layer of RGB weights is widened to other bands. `mean`: every "
        "band gets the mean filter. `copy`: bands take the red, green and blue filters in turn. "
        "Both are scaled to keep the response to a grey image. `zero`: the first three bands take "
        "red, green, blue; further ones start at zero.",
    )
    rgb: Annotated[list[Name], Field(min_length=3, max_length=3)] | None = Field(
        None,
        description="Bands that stand for red, green and blue; the first three if not given. Of "
        "more than three bands, only with `stem: copy` or `zero`.",
    )
    image_size: Annotated[int, Field(ge=16, le=512)] | None = Field(
        None,
        description="Side to which the network resizes a cutout; the cutout's own if not given.",
    )
    preprocessing: Preprocessing = Field(
        default_factory=Preprocessing, description="From raw pixels to the backbone."
    )
    head_units: list[PositiveInt] = Field(
        default_factory=list, description="Widths of hidden layers between features and classes."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Dropout before each layer of the head."
    )
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        5,
        description="Folds of the cross-validation; as many networks are trained. A hash of the "
        "object's name decides its fold, so that new labels move no old object; every class "
        "must be in every fold.",
    )
    holdout: Annotated[float, Field(ge=0, le=0.95)] = Field(
        0.0,
        description="Fraction of the labelled objects, by the same hash, that no fold sees: the "
        "whole ensemble is scored on them.",
    )
    group_column: str | None = Field(
        None,
        description="Column of the label table; objects that share its value share a fold.",
    )
    group_radius: NotNegative = Field(
        0.0,
        description="Labelled objects within so many arcsec are near-duplicates: they are never "
        "in two folds.",
    )
    label_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="Fraction of the training labels that is used, by hash: a larger fraction "
        "holds a smaller one. The objects that choose the epoch are among them and shrink too. "
        "For curves of label efficiency.",
    )
    head_epochs: Annotated[int, Field(ge=0)] = Field(
        3,
        description="Epochs with the backbone frozen: only the head learns. With `weights: none` "
        "there is nothing to protect: they are added to `fine_tune_epochs`.",
    )
    head_learning_rate: Positive = Field(
        1e-3,
        description="Learning rate of these epochs; without effect where they are added to "
        "`fine_tune_epochs`.",
    )
    fine_tune_epochs: Annotated[int, Field(ge=0)] = Field(
        8,
        description="Epochs with the backbone free, its batch norm frozen if it is pretrained; 0 "
        "gives a linear probe.",
    )
    fine_tune_learning_rate: Positive = Field(
        2e-4, description="Peak learning rate of these epochs."
    )
    unfreeze: Literal["all"] | PositiveInt = Field(
        "all",
        description="`all`, or how many of the last blocks of the backbone are set free; with "
        "`weights: none` always all.",
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="Factor on the learning rate from each block to the one before it; 1 is none.",
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw",
        description="`adamw` (Loshchilov & Hutter 2019), or `sgd` with Nesterov's momentum.",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Of `sgd`.")
    weight_decay: NotNegative = Field(1e-4, description="Decoupled weight decay.")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        "cosine",
        description="Of the learning rate while fine-tuning. `cosine`: falls to zero (Loshchilov & "
        "Hutter 2017). `plateau`: falls tenfold after `patience` epochs without a lower "
        "validation loss, and training goes on as long again.",
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="Share of the fine-tuning steps in which the learning rate rises."
    )
    gradient_clip: Positive | None = Field(
        None, description="Largest norm of the gradient of all weights; longer ones are scaled."
    )
    loss: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="`focal`: easy objects count less (Lin et al. 2017)."
    )
    focal_gamma: NotNegative = Field(2.0, description="Exponent of the focal loss.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of each label that is spread over all classes."
    )
    class_weight_cap: Annotated[float, Field(ge=1)] = Field(
        4.0, description="Classes are weighted by inverse frequency, at most this; 1 turns it off."
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural",
        description="`balanced`: every class is drawn as often; classes then have no weights.",
    )
    mixup: NotNegative = Field(
        0.0, description="Alpha of mixup (Zhang et al. 2018), which blends pairs; 0 is none."
    )
    batch_size: PositiveInt = Field(64, description="Objects per training step, on all devices.")
    augmentation: Augmentation = Field(
        default_factory=Augmentation, description="Random changes of the training cutouts."
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32",
        description="Of the arithmetic; weights and probabilities are float32 always. `auto`: "
        "bfloat16 where the processor or GPU has it.",
    )
    patience: PositiveInt = Field(
        4, description="A phase ends after this many epochs without a lower validation loss."
    )
    keep: Literal["best", "last"] = Field(
        "best", description="Epoch whose weights are kept: that of lowest validation loss, or last."
    )
    calibration: Literal["auto", "temperature", "vector", "isotonic", "none"] = Field(
        "auto",
        description="How probabilities are calibrated on objects out of fold; `auto` takes the "
        "method of lowest log-loss, cross-fitted.",
    )
    tensorboard: bool = Field(
        False, description="Writes TensorBoard's files to `results/<survey>/logs/tensorboard/`."
    )
    course_recipe: bool = Field(
        False,
        description="Trains as the lens course's published scripts did, their errors included: "
        "plain SGD at 0.01, binary cross-entropy, no augmentation, a plateau schedule that "
        "watches for a rising loss, no stretch and no normalisation.",
    )

    @model_validator(mode="after")
    def _can_work(self) -> Training:
        if self.width != 1.0 and self.backbone not in WITH_WIDTH:
            raise ValueError(
                f"width {self.width} is for {' and '.join(WITH_WIDTH)} only; set width: 1 for "
                f"{self.backbone}"
            )
        if self.head_epochs + self.fine_tune_epochs == 0:
            raise ValueError(
                "head_epochs and fine_tune_epochs are both 0: nothing would be trained"
            )
        if self.course_recipe and self.fine_tune_epochs == 0:
            raise ValueError(
                "course_recipe trains for fine_tune_epochs, which are 0: set fine_tune_epochs to "
                "50, as the course did, or to another number"
            )
        return self


class Pretraining(Section):
    """How `weights: pretrain` are trained."""

    method: Literal["supervised", "contrastive"] = Field(
        "supervised",
        description="`supervised`: to tell simulated galaxies apart. `contrastive`: without "
        "labels, to tell two views of one cutout from all others (SimCLR, Chen et al. 2020), on "
        "the survey's own cutouts of the labelled shards.",
    )
    galaxies: Annotated[int, Field(ge=100)] = Field(
        6000, description="Simulated galaxies, shared evenly by the classes; or cutouts at most."
    )
    epochs: PositiveInt = Field(6, description="Epochs.")
    learning_rate: Positive = Field(
        2e-3, description="Peak learning rate; it falls to zero as a cosine."
    )
    batch_size: PositiveInt = Field(64, description="Galaxies per training step.")
    temperature: Positive = Field(0.2, description="Of the contrastive loss.")


class Inference(Section):
    """How the trained networks are applied."""

    batch_size: PositiveInt = Field(256, description="Objects per forward pass.")
    views: Literal[1, 8] = Field(
        1,
        description="8: each object is seen in the 8 flips and quarter turns, and probabilities "
        "are averaged.",
    )
    draws: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="Draws with dropout in the head active (Monte Carlo dropout); 0 is none."
    )
    precision: Literal["trained", "float32", "bfloat16", "auto"] = Field(
        "trained",
        description="Of the arithmetic. `trained`: that of the training. `auto`: bfloat16 where "
        "the processor or GPU of `evaluate` has it. bfloat16 is compared with float32 first: where "
        "a probability differs by more than 0.02, `auto` takes float32, `bfloat16` is refused.",
    )
    jit: Literal["auto"] | bool = Field(
        "auto",
        description="Compile networks by XLA. `auto`: on JAX, and on a GPU; on a processor "
        "TensorFlow is faster without.",
    )
    strange: Fraction = Field(
        0.99,
        description="Objects farther from the training objects, in the space of the features, "
        "than this share of the labelled objects out of fold are flagged as out of distribution.",
    )


class Clustering(Section):
    """Groups, map and anomalies from the features of a trained network."""

    tasks: Annotated[list[Name], Field(min_length=1), AfterValidator(no_repeats)] = Field(
        description="Tasks whose networks' features are used (the network of fold 0)."
    )
    components: Annotated[int, Field(ge=2)] = Field(
        32, description="Principal components kept of the features."
    )
    method: Literal["hdbscan", "kmeans"] = Field(
        "hdbscan", description="How objects are grouped; hdbscan leaves some without a group."
    )
    groups: Annotated[int, Field(ge=2, le=200)] = Field(10, description="Groups of k-means.")
    smallest_group: Annotated[int, Field(ge=2)] = Field(
        25, description="Fewest objects of a group of hdbscan."
    )
    neighbours: Annotated[int, Field(ge=0, le=1000)] = Field(
        10, description="Nearest neighbours written down for each object."
    )
    exact_below: PositiveInt = Field(
        20_000, description="Objects up to which neighbours are exact; an index finds them beyond."
    )
    sample: Annotated[int, Field(ge=100)] = Field(
        100_000, description="Objects at most on which map, groups and anomaly score are fitted."
    )
