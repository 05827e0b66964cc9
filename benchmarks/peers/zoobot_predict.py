"""Zoobot's `predict` over a folder of JPEGs, as its documentation shows it.

Runs in the peers' environment. The network is timm's ResNet50 with random weights.
"""

import argparse
import json
import time
from pathlib import Path

import torchvision_operators  # noqa: F401 (before whatever imports torchvision)

# isort: split
import pandas as pd
import timm
import torch
from galaxy_datasets.transforms import fast_view_config, get_galaxy_transform
from zoobot.pytorch.predictions.predict_on_catalog import predict
from zoobot.pytorch.training.finetune import FinetuneableZoobotClassifier


def arguments():
    """Read what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int)
    return parser.parse_args()


def main():
    """Predict, and note when the work began and ended."""
    given = arguments()
    files = sorted(given.images.glob("*.jpg"))
    catalog = pd.DataFrame({"id_str": [f.stem for f in files], "file_loc": list(map(str, files))})
    torch.manual_seed(1)
    encoder = timm.create_model("resnet50", pretrained=False, num_classes=0)
    model = FinetuneableZoobotClassifier(encoder=encoder, num_classes=2)
    if given.channels_last:
        model = model.to(memory_format=torch.channels_last)
    view = fast_view_config()
    view.output_size = given.side
    chosen = {"batch_size": given.batch_size, "num_workers": given.workers}
    (given.outputs / "began").touch()
    began = time.time()
    predict(
        catalog,
        model,
        save_loc=str(given.outputs / "predictions.csv"),
        label_cols=["smooth", "featured"],
        inference_transform=get_galaxy_transform(view),
        datamodule_kwargs={key: value for key, value in chosen.items() if value is not None},
        trainer_kwargs={"logger": False, "enable_progress_bar": False},
    )
    times = {"began": began, "ended": time.time()}
    (given.outputs / "times.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main()
