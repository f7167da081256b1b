"""JPEGs for the GPU: which it gets, that they are decoded together and fail alone, and what they become there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from models.errors import BrokenImage, ImageTooLarge
from models.images.decode import decode_image
from models.images.nvjpeg import NvJpeg, largest_difference, on_gpu, open_nvjpeg
from models.images.presets import resize_and_crop, resize_by_turns, scale
from models.manifest import IMAGENET_MEAN, IMAGENET_STD, Preset, ScalePreset
from tests.builders import (
    cmyk_jpeg,
    encoded,
    exif_rotated,
    gradient_image,
    gradient_tensor,
    jpeg_bytes,
    png_bytes,
    truncated_jpeg,
)
from tests.cuda import GPU, needs_cuda
from tests.waiting import PATIENCE_S, wait_until

PLAIN = encoded(gradient_image(), "JPEG", subsampling="4:4:4")
NO_JPEG = b"\xff\xd8 is how one begins"


class Asked:
    """Decodes as libjpeg does, and remembers what it was asked for."""

    def __init__(self, *, answer: Tensor | None = None) -> None:
        self.files: list[bytes] = []
        self._answer = answer

    def __call__(self, data: bytes) -> Tensor | None:
        self.files.append(data)
        return stored_pixels(data) if self._answer is None else self._answer


class Processor:
    """What a GPU does with a list of files: all or none. Waits at the first one until it is told to go on."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.has_begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, files: list[Tensor]) -> Sequence[Tensor]:
        self.batches.append(len(files))
        self.has_begun.set()
        assert self.go_on.wait(PATIENCE_S)
        try:
            return [stored_pixels(bytes(file.tolist())) for file in files]
        except ValueError as error:
            raise RuntimeError("Error while decoding JPEG images") from error


def stored_pixels(data: bytes, *, fast_upsampling: bool = False) -> Tensor:
    """Not upright."""
    pixels = np.asarray(simplejpeg.decode_jpeg(data, "RGB", fastupsample=fast_upsampling))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decoded_by(decoder: NvJpeg, files: Sequence[bytes]) -> list[Tensor | None]:
    """Each in a thread of its own."""
    found: dict[int, Tensor | None] = {}
    threads = [
        threading.Thread(target=lambda number=number, file=file: found.update({number: decoder(file)}))
        for number, file in enumerate(files)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(files))]


def test_plain_jpeg_is_decoded_elsewhere_and_turned_here() -> None:
    asked = Asked()
    turned = exif_rotated(6)
    image = Image.open(BytesIO(turned))
    plain = encoded(image, "JPEG", subsampling="4:4:4", exif=image.getexif())
    assert torch.equal(decode_image(plain, decode_jpeg=asked), decode_image(plain))
    assert asked.files == [plain]
    assert decode_image(plain, decode_jpeg=asked).shape == (3, image.width, image.height)


@pytest.mark.parametrize(
    "data",
    [
        jpeg_bytes(),
        encoded(gradient_image(), "JPEG", subsampling="4:2:2"),
        encoded(gradient_image(), "JPEG", subsampling="4:4:4", progressive=True),
        encoded(gradient_image(), "JPEG", keep_rgb=True),
        encoded(gradient_image().convert("L"), "JPEG"),
        cmyk_jpeg(),
        png_bytes(),
        PLAIN + b"\0",
    ],
    ids=["half the colours", "half in one direction", "progressive", "stored as RGB", "grey", "cmyk", "png", "more"],
)
def test_other_files_are_decoded_by_the_processor(data: bytes) -> None:
    asked = Asked()
    assert torch.equal(decode_image(data, decode_jpeg=asked), decode_image(data))
    assert asked.files == []


def test_file_that_ends_early_is_broken_whoever_decodes() -> None:
    asked = Asked()
    for data in (truncated_jpeg(), PLAIN[: len(PLAIN) // 2]):
        with pytest.raises(BrokenImage):
            decode_image(data, decode_jpeg=asked)
    assert asked.files == []


def test_limit_of_pixels_is_looked_after_before_anything_is_decoded() -> None:
    asked = Asked()
    with pytest.raises(ImageTooLarge):
        decode_image(PLAIN, max_pixels=64 * 48 - 1, decode_jpeg=asked)
    assert asked.files == []


def test_what_cannot_be_decoded_elsewhere_or_comes_in_another_size_is_decoded_here() -> None:
    for decode in (lambda _: None, Asked(answer=torch.zeros(3, 64, 48, dtype=torch.uint8))):
        assert torch.equal(decode_image(PLAIN, decode_jpeg=decode), decode_image(PLAIN))


def test_files_that_come_while_it_is_busy_are_the_next_batch() -> None:
    processor = Processor()
    decoder = NvJpeg(processor)
    first = threading.Thread(target=decoder, args=(PLAIN,))
    first.start()
    assert processor.has_begun.wait(PATIENCE_S)
    files = [encoded(gradient_image(seed=seed), "JPEG", subsampling="4:4:4") for seed in range(5)]
    found: list[Tensor | None] = []
    others = threading.Thread(target=lambda: found.extend(decoded_by(decoder, files)))
    others.start()
    wait_until(lambda: len(decoder._waiting) == len(files))
    processor.go_on.set()
    first.join()
    others.join()
    assert processor.batches == [1, 5]
    for file, pixels in zip(files, found, strict=True):
        assert pixels is not None
        assert torch.equal(pixels, stored_pixels(file))


def test_corrupt_file_in_a_batch_fails_alone() -> None:
    processor = Processor()
    decoder = NvJpeg(processor)
    first = threading.Thread(target=decoder, args=(PLAIN,))
    first.start()
    assert processor.has_begun.wait(PATIENCE_S)
    found: list[Tensor | None] = []
    others = threading.Thread(target=lambda: found.extend(decoded_by(decoder, [PLAIN, NO_JPEG, PLAIN])))
    others.start()
    wait_until(lambda: len(decoder._waiting) == 3)
    processor.go_on.set()
    first.join()
    others.join()
    assert processor.batches == [1, 3, 1, 1, 1]
    assert [pixels is None for pixels in found] == [False, True, False]
    assert found[0] is not None
    assert torch.equal(found[0], stored_pixels(PLAIN))


def test_decoder_is_compared_with_the_processors_before_it_is_used() -> None:
    right = Processor()
    right.go_on.set()
    assert largest_difference(NvJpeg(right)) == 0
    assert largest_difference(NvJpeg(lambda files: [picture.flip(0) for picture in right(files)])) > 4  # BGR
    with pytest.raises(RuntimeError, match="does not decode a plain JPEG"):
        largest_difference(NvJpeg(lambda files: [picture[:, 1:] for picture in right(files)]))


@pytest.mark.parametrize(("colours", "differs"), [("4:4:4", False), ("4:2:0", True)])
def test_repeated_colours_would_change_what_the_network_sees(colours: str, differs: bool) -> None:
    """nvJPEG as torchvision sets it up repeats them; libjpeg can do the same."""
    preset = Preset(resize_px=256, crop_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    checks = torch.zeros(3, 375, 500, dtype=torch.uint8)
    checks[0] = 255 * ((torch.arange(375)[:, None] // 16 + torch.arange(500) // 16) % 2)
    data = encoded(Image.fromarray(checks.permute(1, 2, 0).numpy()), "JPEG", subsampling=colours, quality=90)
    views = [resize_and_crop(preset, stored_pixels(data, fast_upsampling=fast)).int() for fast in (False, True)]
    largest = int((views[0] - views[1]).abs().max())
    assert (largest > 10) if differs else (largest == 0)


@pytest.mark.parametrize(("interpolation", "most"), [("bilinear", 1), ("bicubic", 2)])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (1280, 720), (180, 240)])
def test_arithmetic_of_a_gpu_gives_the_views_of_the_processor_within_a_level_or_two(
    monkeypatch: pytest.MonkeyPatch, interpolation: str, most: int, width: int, height: int
) -> None:
    preset = Preset.model_validate(
        {"resize_px": 256, "crop_px": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": interpolation}
    )
    image = gradient_tensor(width, height)
    image[:, ::7, ::5] = 255 - image[:, ::7, ::5]  # edges
    expected = resize_and_crop(preset, image).int()
    monkeypatch.setattr(  # bytes are resized as floats then, as they are on a GPU
        "torchvision.transforms.v2.functional._geometry._do_native_uint8_resize_on_cpu", lambda _: False
    )
    if interpolation == "bicubic":
        by_turns = resize_by_turns(image, preset.resize_px)
        found = resize_and_crop(preset, by_turns).int()
    else:
        found = resize_and_crop(preset, image).int()
    difference = (found - expected).abs()
    assert difference.max() <= most
    assert (difference > 1).float().mean() < 0.001


def test_bicubic_in_both_directions_at_once_would_differ_by_twenty_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.randint(0, 256, (3, 80, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    preset = Preset(resize_px=256, crop_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bicubic")
    expected = resize_and_crop(preset, noise).int()
    monkeypatch.setattr(
        "torchvision.transforms.v2.functional._geometry._do_native_uint8_resize_on_cpu", lambda _: False
    )
    by_turns = resize_and_crop(preset, resize_by_turns(noise, preset.resize_px)).int()
    assert (by_turns - expected).abs().max() <= 2
    assert (resize_and_crop(preset, noise).int() - expected).abs().max() >= 20


@needs_cuda
@pytest.mark.filterwarnings("ignore:The image decoding")
def test_nvjpeg_agrees_with_the_processor() -> None:
    decoder = open_nvjpeg(GPU)
    assert decoder is not None
    pixels = decode_image(PLAIN, decode_jpeg=decoder)
    assert pixels.device == GPU
    assert (pixels.cpu().int() - decode_image(PLAIN).int()).abs().max() <= 4


@needs_cuda
@pytest.mark.filterwarnings("ignore:The image decoding")
def test_nvjpeg_decodes_many_at_a_time_and_a_corrupt_one_alone_fails() -> None:
    decoder = NvJpeg(on_gpu(GPU))
    files = [encoded(gradient_image(seed=seed, width=200), "JPEG", subsampling="4:4:4") for seed in range(12)]
    files.insert(5, NO_JPEG)
    alone = [decoder(file) for file in files]
    for _ in range(10):
        for one, other in zip(decoded_by(decoder, files), alone, strict=True):
            assert (one is None) == (other is None)
            assert one is None or other is None or torch.equal(one, other)
    assert [number for number, pixels in enumerate(alone) if pixels is None] == [5]


@needs_cuda
@pytest.mark.parametrize(("interpolation", "most"), [("nearest-exact", 0), ("bilinear", 1), ("bicubic", 2)])
def test_views_made_on_the_gpu_are_the_processors(interpolation: str, most: int) -> None:
    preset = Preset.model_validate(
        {"resize_px": 256, "crop_px": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": interpolation}
    )
    for width, height in ((500, 375), (375, 500), (180, 240)):
        image = gradient_tensor(width, height)
        image[:, ::7, ::5] = 255 - image[:, ::7, ::5]
        found = resize_and_crop(preset, image.to(GPU))
        assert found.device == GPU
        assert (found.cpu().int() - resize_and_crop(preset, image).int()).abs().max() <= most
        scaled = ScalePreset(shorter_px=200, longer_px=300)
        assert (scale(scaled, image.to(GPU)).cpu().int() - scale(scaled, image).int()).abs().max() <= 1
