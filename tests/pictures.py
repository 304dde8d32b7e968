"""Real pictures that come with a library: parts of scikit-learn's two sample photographs."""

import functools

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


@functools.cache
def photographs():
    return [Image.fromarray(image) for image in load_sample_images().images]


def part(number, size=(96, 80)):
    """The part number ``number`` of a photograph, those of an even number from one and of an odd from the other."""
    picture = photographs()[number % 2]
    random = np.random.default_rng(number)
    left, top = random.integers(0, picture.width - 160), random.integers(0, picture.height - 160)
    return picture.crop((left, top, left + 160, top + 160)).resize(size)


def write_parts(root, *, count=6, classes=("sky", "temple"), suffix=".jpg", size=(96, 80), parts=("train", "test")):
    """``root/PART/CLASS/*``, ``count`` pictures a class."""
    for offset, name in enumerate(parts):
        for label, each in enumerate(classes):
            folder = root / name / each
            folder.mkdir(parents=True)
            for number in range(count):
                part(label + len(classes) * (number + count * offset), size).save(folder / f"{number}{suffix}")
    return root
