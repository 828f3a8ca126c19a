"""Images: what is read, written and refused."""

import numpy as np
import pytest

from convbench import images

Image = pytest.importorskip("PIL.Image")


def test_the_sample_photograph_is_a_colour_image():
    image = images.load(images.sample_path())
    assert image.shape == (3, 600, 512)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert 0 <= image.min() < 0.1 < 0.9 < image.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_images_come_back_to_the_last_of_256_levels(tmp_path, channels):
    image = np.random.default_rng(0).random((channels, 5, 7), "float32")
    images.save(tmp_path / "image.png", image)
    back = images.load(tmp_path / "image.png")
    assert back.shape == image.shape
    np.testing.assert_allclose(back, image, atol=0.5001 / 255)


def test_arrays_keep_every_bit(tmp_path):
    image = np.random.default_rng(0).standard_normal((3, 4, 6)).astype("float32")
    images.save(tmp_path / "image.npy", image)
    assert np.array_equal(images.load(tmp_path / "image.npy"), image)


def test_sixteen_bit_grey_transparency_and_palettes(tmp_path):
    Image.fromarray(np.array([[0, 65535]], "uint16")).save(tmp_path / "deep.png")
    assert images.load(tmp_path / "deep.png").tolist() == [[[0.0, 1.0]]]
    Image.new("LA", (2, 1), (255, 0)).save(tmp_path / "clear.png")
    assert images.load(tmp_path / "clear.png").tolist() == [[[1.0, 1.0]]]
    Image.new("RGBA", (1, 1), (255, 0, 0, 7)).save(tmp_path / "red.png")
    assert images.load(tmp_path / "red.png").ravel().tolist() == [1, 0, 0]
    Image.new("RGB", (1, 1), (0, 255, 0)).convert("P").save(tmp_path / "palette.png")
    assert images.load(tmp_path / "palette.png").ravel().tolist() == [0, 1, 0]


def test_a_cameras_orientation_is_followed(tmp_path):
    turned = Image.new("RGB", (4, 2))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert images.load(tmp_path / "turned.jpg").shape == (3, 4, 2)


def test_values_outside_the_range_are_clipped(tmp_path):
    images.save(tmp_path / "image.png", np.array([[[-1, 2, np.nan]]], "float32"))
    assert images.load(tmp_path / "image.png").tolist() == [[[0, 1, 0]]]


def test_unreadable_images_name_the_file_and_what_is_accepted(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    np.save(tmp_path / "deep.npy", np.zeros((2, 3, 4, 5)))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("missing.png", "text.png", "deep.npy", "text.npy", "missing.npy"):
        with pytest.raises(ValueError, match="accepted") as caught:
            images.load(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(ValueError, match="accepted"):
        images.load(tmp_path)


@pytest.mark.parametrize("name", ["image.strange", "no/such/folder/image.png", "no/such/folder/image.npy"])
def test_unwritable_images_name_the_file(tmp_path, name):
    with pytest.raises(ValueError, match="accepted") as caught:
        images.save(tmp_path / name, np.zeros((1, 2, 2), "float32"))
    assert name in str(caught.value)


def test_grey_and_resize():
    plane = images.grey(np.stack([np.full((4, 6), value, "float32") for value in (1, 1, 1)]))
    np.testing.assert_allclose(plane, 1, rtol=1e-6)
    small = images.resize(plane, 3, 2)
    assert small.shape == (3, 2)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, 1, rtol=1e-6)
