"""Recognises the type of a file by its first bytes. A suffix is no proof: `a.jpg` may contain a web page."""

from __future__ import annotations

HEAD_BYTES = 32  # enough for every image signature below

_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
)
# Many texts begin with these two letters, so such a file counts as an image only if its suffix agrees.
_SHORT_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"BM", "BMP"),
    *((b"P" + digit, "PPM") for digit in (b"1", b"2", b"3", b"4", b"5", b"6")),
)
_SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    ".png": "PNG",
    ".apng": "PNG",
    ".gif": "GIF",
    ".webp": "WebP",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".avif": "AVIF",
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
}
_UNREADABLE_SUFFIXES = frozenset(
    {".heic", ".heif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".ico"}
    | {".dcm", ".exr", ".hdr", ".tga", ".xcf", ".eps"}
)
_ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".xz", ".bz2", ".zst"})
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (257, b"ustar", "a tar archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"%PDF-", "a PDF document"),
)


def image_kind(name: str, head: bytes) -> str | None:
    """Returns `JPEG`, `PNG`, … if `head`, the first bytes of a file, begins such an image, else None.

    The suffix of `name` decides where `head` is ambiguous.
    """
    for offset, signature, kind in _IMAGES:
        if head.startswith(signature, offset):
            return kind
    by_suffix = suffix_kind(name)
    return next((kind for short, kind in _SHORT_SIGNATURES if head.startswith(short) and kind == by_suffix), None)


def suffix_kind(name: str) -> str | None:
    """Returns the kind of image that belongs to the suffix of `name`, or None."""
    return _SUFFIXES.get(_suffix(name))


def is_unreadable_image(name: str) -> bool:
    """Returns True if the suffix of `name` belongs to an image format that Fovea does not read."""
    return _suffix(name) in _UNREADABLE_SUFFIXES


def is_archive_name(name: str) -> bool:
    """Returns True if `name` has the suffix of an archive."""
    return _suffix(name) in _ARCHIVE_SUFFIXES


def describe_content(head: bytes) -> str | None:
    """Describes a file that begins with `head`, for a message that refuses it: `a web page`. None if unknown."""
    if not head:
        return "an empty file"
    for offset, signature, words in _OTHERS:
        if head.startswith(signature, offset):
            return words
    kind = image_kind("", head)
    if kind is not None:
        return f"a {kind} image"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page"
    return None


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""
