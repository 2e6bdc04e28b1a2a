"""The public data sets that have a name here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Origin:
    """A public data set: where torchvision puts it, and what its files mean.

    `torchvision` is the class that downloads it, of `size` where it asks for one, into one of `folders`, in
    the format `layout`. Of its Parquet edition, `label` is a column, and `mode` is PIL's name of the pixels
    of images that are decoded at once; photos have none. `synsets` are folders that stand for the classes.
    """

    name: str
    classes: tuple[str, ...]
    torchvision: str
    folders: tuple[str, ...]
    layout: Literal["batches", "idx", "stl10", "classes"]
    mode: Literal["L", "RGB"] | None = None
    flip: bool = True
    label: str = "label"
    size: str | None = None
    synsets: tuple[str, ...] = ()


_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
_ALL = (
    Origin(
        "cifar10",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        torchvision="CIFAR10",
        folders=("cifar-10-batches-py",),
        layout="batches",
        mode="RGB",
    ),
    Origin(
        "cifar100",
        tuple(_CIFAR100.split()),
        torchvision="CIFAR100",
        folders=("cifar-100-python",),
        layout="batches",
        mode="RGB",
        label="fine_label",
    ),
    Origin(
        "mnist",
        tuple("0123456789"),
        torchvision="MNIST",
        folders=("MNIST/raw",),
        layout="idx",
        mode="L",
        flip=False,
    ),
    Origin(
        "fashion-mnist",
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        torchvision="FashionMNIST",
        folders=("FashionMNIST/raw",),
        layout="idx",
        mode="L",
    ),
    Origin(
        "stl10",
        ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        torchvision="STL10",
        folders=("stl10_binary",),
        layout="stl10",
    ),
    Origin(
        "imagenette",
        tuple(_IMAGENETTE.values()),
        torchvision="Imagenette",
        folders=("imagenette2-320", "imagenette2", "imagenette2-160"),
        layout="classes",
        size="320px",
        synsets=tuple(_IMAGENETTE),
    ),
)
ORIGINS = {origin.name: origin for origin in _ALL}
