"""The encoder as a scikit-learn transformer."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from made_features import pixels
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

import ssl_zoo
from ssl_zoo import SSLTransformer
from ssl_zoo.evaluation.encoder import Encoder, save_encoder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    backbone = ssl_zoo.create_backbone("resnet8", image_size=16, width=8)
    save_encoder(folder, Encoder(backbone, 16, card={"backbone": "resnet8", "options": {"width": 8}}))
    return folder


def as_files(images, folder):
    files = [folder / f"é {i}.png" for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    return files


def test_every_form_of_the_same_images_gives_the_same_features(run, tmp_path):
    images = pixels(7, 16)
    expected = ssl_zoo.load_encoder(run).embed(images).numpy()
    channels_last = images.permute(0, 2, 3, 1).numpy()
    channels_last.flags.writeable = False
    files = as_files(images, tmp_path)
    pictures = [Image.open(file) for file in files]
    forms = (images, images.numpy(), channels_last, list(images), list(channels_last), pictures, files)
    forms += (np.array([str(file) for file in files]), [images[0], pictures[1], *map(str, files[2:])])
    for form in forms:
        features = SSLTransformer(run, device="cpu", batch_size=3).transform(form)
        assert (features.shape, features.dtype) == ((7, 32), np.float32)
        np.testing.assert_allclose(features, expected, atol=1e-5)


def test_images_of_any_size_and_mode(run):
    mixed = [Image.new("L", (50, 30), 99), Image.new("RGBA", (16, 40)), pixels(1, 33, channels=1)[0]]
    features = SSLTransformer(run).transform(mixed)
    assert features.shape == (3, 32)
    assert np.isfinite(features).all()


def test_it_works_in_a_pipeline_and_clones(run):
    data = ssl_zoo.create_dataset("digits")
    train, test = (data.split(name) for name in ("train", "test"))
    pipeline = Pipeline(
        [("ssl", SSLTransformer(run, device="cpu")), ("top", LogisticRegression(max_iter=500))]
    )
    again = clone(pipeline).set_params(ssl__batch_size=100)
    assert again["ssl"].get_params() == {"run": run, "device": "cpu", "batch_size": 100}
    for model in (pipeline, again):
        model.fit(train.images[:400], train.labels[:400].numpy())
    predicted = pipeline.predict(test.images)
    assert (predicted == test.labels.numpy()).mean() > 0.6
    assert (again.predict(test.images) == predicted).all()
    names = pipeline[:-1].get_feature_names_out()
    assert list(names[:2]) == ["ssl0", "ssl1"]
    assert len(names) == 32


def test_a_pickle_works_without_the_run(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    transformer = SSLTransformer(copy, device="cpu").fit()
    expected = transformer.transform(pixels(3))
    stored, unused = pickle.dumps(transformer), pickle.dumps(SSLTransformer(copy))
    shutil.rmtree(copy)
    np.testing.assert_array_equal(pickle.loads(stored).transform(pixels(3)), expected)
    with pytest.raises(FileNotFoundError, match="no encoder"):
        pickle.loads(unused).transform(pixels(3))


def test_fit_tells_early_that_there_is_no_encoder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no encoder"):
        SSLTransformer(tmp_path).fit([])


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "at least one"),
        (np.zeros((2, 16, 16, 3)), "give uint8"),
        (np.zeros((2, 64), np.uint8), "give uint8"),
        ([1, 2], "an image is a int; give PIL images, paths"),
    ],
)
def test_what_is_not_an_image_is_refused(run, images, words):
    with pytest.raises(ValueError, match=words):
        SSLTransformer(run).transform(images)
