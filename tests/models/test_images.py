from __future__ import annotations

import contextlib
import resource
import struct
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from models.errors import BrokenImage, ImageTooLarge, NotAnImage
from models.images.decode import decode_image, encode_image, read_image_size
from tests.builders import (
    HUGE_SIDE_PX,
    animated_gif,
    cmyk_jpeg,
    encoded,
    exif_rotated,
    gradient_image,
    gradient_tensor,
    huge_png,
    jpeg_bytes,
    png_16_bit,
    png_bytes,
    truncated_jpeg,
)

RED, WHITE = [255, 0, 0], [255, 255, 255]


@pytest.fixture(scope="module")
def huge() -> bytes:
    return huge_png()


def colour_at(data: bytes, x: int, y: int) -> list[int]:
    values: list[int] = decode_image(data)[:, y, x].tolist()
    return values


def is_close(got: list[int], wanted: list[int], tolerance: int = 8) -> bool:
    return all(abs(one - other) <= tolerance for one, other in zip(got, wanted, strict=True))


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_format_decodes_to_the_same_pixels(image_format: str) -> None:
    data = encoded(gradient_image(), image_format)

    assert torch.equal(decode_image(data), gradient_tensor())


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "AVIF", "MPO"])
def test_lossy_format_decodes_to_nearly_the_same_pixels(image_format: str) -> None:
    data = encoded(gradient_image(), image_format, quality=95)

    difference = (decode_image(data).int() - gradient_tensor().int()).abs().float().mean()

    assert difference < 4


def test_jpeg_decodes_as_pillow_decodes_it() -> None:
    data = encoded(gradient_image(333, 211), "JPEG", quality=70)

    difference = np.asarray(Image.open(BytesIO(data)), dtype=int) - decode_image(data).permute(1, 2, 0).numpy()

    assert np.abs(difference).max() <= 2


def test_grey_jpeg_becomes_rgb() -> None:
    data = encoded(Image.new("L", (10, 6), 77), "JPEG")

    assert decode_image(data).shape == (3, 6, 10)
    assert is_close(colour_at(data, 5, 3), [77, 77, 77], 1)


def test_palette_png_becomes_its_colours() -> None:
    data = encoded(Image.new("RGB", (10, 6), (250, 120, 10)).convert("P", palette=Image.Palette.ADAPTIVE), "PNG")

    assert colour_at(data, 5, 3) == [250, 120, 10]


def test_one_bit_png_becomes_black_and_white() -> None:
    image = Image.new("1", (4, 1))
    image.putpixel((2, 0), 1)

    assert decode_image(encoded(image, "PNG"))[0, 0].tolist() == [0, 0, 255, 0]


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_transparent_pixels_show_white(image_format: str) -> None:
    options = {} if image_format == "TIFF" else {"lossless": True, "quality": 100}
    data = encoded(Image.new("RGBA", (16, 16), (200, 0, 0, 0)), image_format, **options)

    assert is_close(colour_at(data, 8, 8), WHITE, 2)


def test_half_transparent_pixels_mix_with_white() -> None:
    data = encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG")

    assert is_close(colour_at(data, 1, 1), [127, 127, 127], 1)


def test_grey_with_alpha_shows_white_where_transparent() -> None:
    assert colour_at(encoded(Image.new("LA", (4, 4), (0, 0)), "PNG"), 1, 1) == WHITE


def test_transparent_palette_entry_shows_white() -> None:
    data = encoded(Image.new("P", (4, 4), 0), "PNG", transparency=0)

    assert colour_at(data, 1, 1) == WHITE


@pytest.mark.parametrize(
    ("inks", "colour"), [((255, 0, 0, 0), [0, 255, 255]), ((0, 0, 0, 255), [0, 0, 0]), ((0, 0, 0, 0), WHITE)]
)
def test_cmyk_jpeg_is_converted(inks: tuple[int, int, int, int], colour: list[int]) -> None:
    assert is_close(colour_at(cmyk_jpeg(*inks), 10, 10), colour)


@pytest.mark.parametrize(("value", "level"), [(0, 0), (255, 1), (32_768, 128), (65_535, 255)])
def test_16_bit_png_is_scaled_and_not_clipped(value: int, level: int) -> None:
    assert colour_at(png_16_bit(value), 5, 5) == [level] * 3


def test_16_bit_tiff_is_scaled() -> None:
    data = encoded(Image.fromarray(np.full((4, 4), 32_768, dtype=np.uint16)), "TIFF")

    assert colour_at(data, 1, 1) == [128] * 3


def test_16_bit_ppm_is_scaled() -> None:
    data = b"P5 2 1 65535\n" + struct.pack(">HH", 0, 65_535)

    assert decode_image(data)[0, 0].tolist() == [0, 255]


def test_float_tiff_from_zero_to_one_is_scaled() -> None:
    data = encoded(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), "TIFF")

    assert decode_image(data)[0, 0].tolist() == [0, 128, 255]


def test_float_tiff_beyond_one_is_spread_over_its_range() -> None:
    data = encoded(Image.fromarray(np.array([[-10.0, 0.0, 10.0]], dtype=np.float32)), "TIFF")

    assert decode_image(data)[0, 0].tolist() == [0, 128, 255]


def test_animation_gives_its_first_frame() -> None:
    assert colour_at(animated_gif(), 8, 8) == RED


def test_animated_webp_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)

    assert colour_at(data, 8, 8) == RED


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(image_format: str, orientation: int) -> None:
    data = exif_rotated(orientation, image_format)

    assert decode_image(data).shape == (3, 20, 40)
    assert read_image_size(data) == (40, 20)
    assert is_close(colour_at(data, 8, 4), RED, 40)
    assert is_close(colour_at(data, 32, 4), WHITE, 40)
    assert is_close(colour_at(data, 8, 16), WHITE, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so; nobody else needs to
def test_damaged_exif_leaves_the_picture_as_it_is() -> None:
    data = encoded(gradient_image(40, 20), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")

    assert decode_image(data).shape == (3, 20, 40)


def test_orientation_out_of_range_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99

    assert decode_image(encoded(gradient_image(40, 20), "JPEG", exif=exif.tobytes())).shape == (3, 20, 40)


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7 and so on", b"<svg xmlns=''/>", b"PK\x03\x04", b"\0" * 100])
def test_other_data_is_not_an_image(data: bytes) -> None:
    with pytest.raises(NotAnImage) as raised:
        decode_image(data)

    assert "PNG" in (raised.value.hint or "")


def test_format_outside_the_list_is_not_an_image() -> None:
    with pytest.raises(NotAnImage):
        decode_image(encoded(gradient_image(), "ICO"))


def test_truncated_jpeg_is_broken() -> None:
    with pytest.raises(BrokenImage):
        decode_image(truncated_jpeg())


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_file_that_ends_early_is_broken(image_format: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = encoded(noise, image_format)

    with pytest.raises(BrokenImage):
        decode_image(whole[: max(12, int(len(whole) * share))])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_flipped_bytes_decode_or_are_refused(image_format: str) -> None:
    whole = encoded(gradient_image(), image_format)
    random = np.random.default_rng(0)

    for _ in range(60):
        damaged = bytearray(whole)
        for position in random.integers(4, len(whole), 6):
            damaged[position] = random.integers(256)
        with contextlib.suppress(BrokenImage, NotAnImage, ImageTooLarge):
            assert decode_image(bytes(damaged), max_pixels=1_000_000).dtype == torch.uint8


def test_image_above_the_pixel_limit_is_refused() -> None:
    with pytest.raises(ImageTooLarge, match="64 x 48"):
        decode_image(jpeg_bytes(64, 48), max_pixels=64 * 48 - 1)


def test_image_at_the_pixel_limit_is_decoded() -> None:
    assert decode_image(png_bytes(64, 48), max_pixels=64 * 48).shape == (3, 48, 64)


def test_huge_png_is_refused_before_it_is_decoded(huge: bytes) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(ImageTooLarge, match="400,000,000"):
        decode_image(huge)

    assert len(huge) < 120_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 20_000


@pytest.mark.parametrize("image_format", ["WEBP", "GIF", "TIFF", "BMP"])
def test_huge_claim_in_the_header_is_refused(image_format: str) -> None:
    headers = {
        "WEBP": b"RIFF\x32\0\0\0WEBPVP8X\x0a\0\0\0" + b"\0" * 4 + b"\x1f\x4e\0" * 2,
        "GIF": b"GIF89a" + struct.pack("<HHBBB", 20_000, 20_000, 0, 0, 0) + b",",
        "TIFF": _tiff_header(HUGE_SIDE_PX),
        "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 20_000, 20_000, 1, 24, 0, 0, 0, 0, 0, 0),
    }

    with pytest.raises((ImageTooLarge, BrokenImage)):
        decode_image(headers[image_format])


def test_size_is_read_without_decoding(huge: bytes) -> None:
    assert read_image_size(huge) == (HUGE_SIDE_PX, HUGE_SIDE_PX)


def test_size_of_a_truncated_image_is_read() -> None:
    assert read_image_size(truncated_jpeg()) == (256, 256)


def test_size_of_other_data_is_refused() -> None:
    with pytest.raises(NotAnImage):
        read_image_size(b"hello")


def test_png_encodes_and_decodes_to_the_same_pixels() -> None:
    assert torch.equal(decode_image(encode_image(gradient_tensor(), "png")), gradient_tensor())


def test_jpeg_encodes_and_decodes_to_nearly_the_same_pixels() -> None:
    decoded = decode_image(encode_image(gradient_tensor(), "jpeg"))

    assert (decoded.int() - gradient_tensor().int()).abs().float().mean() < 4


def test_grey_tensor_encodes_to_a_grey_picture() -> None:
    assert Image.open(BytesIO(encode_image(gradient_tensor()[:1], "png"))).mode == "L"


def _tiff_header(side_px: int) -> bytes:
    tags = ((256, 4, side_px), (257, 4, side_px), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 1))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
