"""fastai's `vision_learner` as its quick start has it: the body frozen, three epochs of the one-cycle schedule.

python with_fastai.py FOLDER NETWORK WEIGHTS SEED
"""

import json
import sys

import torchvision
from fastai.vision.all import (
    ImageDataLoaders,
    Normalize,
    Resize,
    accuracy,
    get_image_files,
    imagenet_stats,
    set_seed,
    vision_learner,
)

EPOCHS = 3


def main(folder: str, network: str, weights: str, seed: str) -> None:
    """Train, test, and print the result as one line of JSON."""
    set_seed(int(seed), reproducible=True)
    data = ImageDataLoaders.from_folder(
        folder,
        train="train",
        valid="val",
        item_tfms=Resize(224),
        batch_tfms=Normalize.from_stats(*imagenet_stats),
        num_workers=2,
    )
    architecture = getattr(torchvision.models, network)
    learner = vision_learner(data, architecture, pretrained=False, metrics=accuracy)
    if weights != "random":
        load_body(learner.model[0], architecture().features.state_dict(), weights)
    learner.freeze()
    learner.fit_one_cycle(EPOCHS)
    test = data.test_dl(get_image_files(f"{folder}/test"), with_labels=True)
    print(json.dumps({"test_accuracy": learner.validate(dl=test)[1], "epochs": EPOCHS}))


def load_body(body, torchvision_names, weights: str) -> None:
    """Copy a file's tensors into the body, which has the same layers in the same order under other names."""
    from safetensors.torch import load_file

    state = load_file(weights)
    pairs = zip(body.state_dict(), torchvision_names, strict=True)
    body.load_state_dict({name: state[f"features.{other}"] for name, other in pairs})


if __name__ == "__main__":
    main(*sys.argv[1:])
