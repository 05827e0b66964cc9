"""Hyrax's `infer` over a folder of JPEGs, by a dataset and a model of one's own.

Runs in the peers' environment. Hyrax brings no reader of JPEGs and no ResNet50; its documentation
has users write both as the classes below.
"""

import argparse
import json
import time
from pathlib import Path

import torchvision_operators  # noqa: F401 (before whatever imports torchvision)

# isort: split
import hyrax
import numpy as np
import timm
import torch
from hyrax.datasets import HyraxDataset
from hyrax.models import hyrax_model
from PIL import Image


class JpegDataset(HyraxDataset):
    """JPEGs of a folder, float32 (3, y, x) of 0 to 1."""

    def __init__(self, config, data_location=None):
        self.files = sorted(Path(data_location).glob("*.jpg"))
        super().__init__(config)

    def get_image(self, idx):
        """Read a picture."""
        with Image.open(self.files[idx]) as picture:
            return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255

    def get_object_id(self, idx):
        """Name a picture."""
        return self.files[idx].stem

    def __len__(self):
        return len(self.files)


@hyrax_model
class TimmResNet50(torch.nn.Module):
    """timm's ResNet50 with a head for two classes."""

    def __init__(self, config, data_sample=None):
        super().__init__()
        self.config = config
        self.network = timm.create_model("resnet50", pretrained=False, num_classes=2)

    def forward(self, images):
        """Give logits."""
        return self.network(images)

    def train_batch(self, batch):
        """Is asked for by Hyrax; nothing is trained here."""
        return {"loss": 0.0}

    def infer_batch(self, batch):
        """Give logits of a batch."""
        return self.forward(batch)

    @staticmethod
    def prepare_inputs(data_dict):
        """Take the pictures from what the dataset gives."""
        return data_dict["data"]["image"]


def arguments():
    """Read what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--side", type=int, required=True)
    return parser.parse_args()


def main():
    """Infer, and note when the work began and ended."""
    given = arguments()
    torch.manual_seed(1)
    weights = given.outputs / "weights.pth"
    asked = hyrax.Hyrax()
    asked.config["general"]["results_dir"] = str(given.outputs)
    asked.config["model"]["name"] = "TimmResNet50"
    asked.config["infer"]["model_weights_file"] = str(weights)
    asked.config["data_request"] = {
        "infer": {
            "data": {
                "dataset_class": "JpegDataset",
                "data_location": str(given.images),
                "fields": ["image"],
                "primary_id_field": "object_id",
            }
        }
    }
    torch.save(TimmResNet50(asked.config).state_dict(), weights)
    (given.outputs / "began").touch()
    began = time.time()
    asked.infer()
    times = {"began": began, "ended": time.time()}
    (given.outputs / "times.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main()
