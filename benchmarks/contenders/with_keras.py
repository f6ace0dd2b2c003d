"""Keras with stored features: the base once over all images, then a small head on the arrays.

python with_keras.py FOLDER vgg16 random SEED

`keras.applications.VGG16(include_top=False)` on the torch backend, then Flatten, Dense(128, relu), Dense(1, sigmoid).
"""

import json
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

EPOCHS = 5


def main(folder: str, network: str, weights: str, seed: str) -> None:
    """Train, test, and print the result as one line of JSON."""
    if (network, weights) != ("vgg16", "random"):
        sys.exit("keras.applications has no such network, or no such weights.")
    keras.utils.set_random_seed(int(seed))
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    base.trainable = False
    parts = {split: features(base, f"{folder}/{split}") for split in ("train", "val", "test")}
    head = keras.Sequential([
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip
    head.compile(optimizer=keras.optimizers.Adam(1e-4), loss="binary_crossentropy", metrics=["accuracy"])
    head.fit(*parts["train"], validation_data=parts["val"], epochs=EPOCHS, verbose=2)
    _, accuracy = head.evaluate(*parts["test"], verbose=0)
    print(json.dumps({"test_accuracy": accuracy, "epochs": EPOCHS}))


def features(base: keras.Model, folder: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The base's output for every image, and the labels."""
    steps = v2.Compose([v2.Resize(224), v2.CenterCrop(224), v2.PILToTensor()])
    loader = DataLoader(ImageFolder(folder, steps), 32, num_workers=2)
    outputs, labels = [], []
    for images, batch_labels in loader:
        channels_last = images.permute(0, 2, 3, 1).numpy().astype("float32")
        outputs.append(base.predict_on_batch(keras.applications.vgg16.preprocess_input(channels_last)))
        labels.append(batch_labels.numpy())
    return numpy.concatenate(outputs), numpy.concatenate(labels)


if __name__ == "__main__":
    main(*sys.argv[1:])
