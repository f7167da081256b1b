"""Unpacking of untrusted zip files."""

from __future__ import annotations

import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tests.datasets.builders import names_of, patched, unpacked, with_central_field, write_crowded_zip, zip_of
from workers.datasets.archives.archive import ArchiveLimits
from workers.datasets.archives.zip_archive import _CountedDirectory
from workers.errors import BrokenArchive, UnsafeArchive

FLAGS, METHOD, UNPACKED_SIZE, LOCAL_OFFSET = 8, 10, 24, 42  # offsets in a central file header


def zip_with_mode(name: str, mode: int) -> BytesIO:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = mode << 16
        file.writestr(info, "/etc/passwd")
    return archive


def test_plain_zip_is_unpacked_in_the_order_of_names(tmp_path: Path) -> None:
    archive = unpacked(zip_of({"bees/2.png": b"two", "ants/1.png": b"one"}), tmp_path)

    assert names_of(archive) == ["ants/1.png", "bees/2.png"]
    assert [file.path.read_bytes() for file in archive.files] == [b"one", b"two"]
    assert [file.size_bytes for file in archive.files] == [3, 3]
    assert archive.files[0].sha256 == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"


def test_source_given_as_path_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(zip_of({"a.txt": b"a"}).getvalue())

    assert names_of(unpacked(path, tmp_path)) == ["a.txt"]


def test_zip_with_comment_is_read(tmp_path: Path) -> None:
    archive = zip_of({"a.txt": b"a"})
    with zipfile.ZipFile(archive, "a") as file:
        file.comment = b"made by hand, with PK\5 in it"

    assert names_of(unpacked(archive, tmp_path)) == ["a.txt"]


def test_zip_after_the_head_of_an_image_is_refused_as_an_image(tmp_path: Path) -> None:
    with pytest.raises(BrokenArchive, match="a JPEG image"):
        unpacked(BytesIO(b"\xff\xd8\xff\xe0" + zip_of({"a.txt": b"a"}).getvalue()), tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../a.png", "ants/../../a.png", "/etc/passwd", "C:\\a.png", "\\\\server\\a.png", "..\\a.png", "__MACOSX/../x"],
)
def test_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeArchive, match=r"absolute path|leads out of it"):
        unpacked(zip_of({"ok.png": b"ok", name: b"bad"}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "words"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "device"), (stat.S_IFIFO, "device")]
)
def test_link_or_device_is_refused(tmp_path: Path, kind: int, words: str) -> None:
    with pytest.raises(UnsafeArchive, match=words):
        unpacked(zip_with_mode("ants/1.png", kind | 0o777), tmp_path)


def test_password_is_refused_with_a_hint(tmp_path: Path) -> None:
    locked = with_central_field(zip_of({"a.png": b"a"}), entry=0, offset=FLAGS, value=struct.pack("<H", 1))

    with pytest.raises(UnsafeArchive, match="password") as caught:
        unpacked(locked, tmp_path)
    assert caught.value.hint == "Pack the folder again without a password."


def test_unsupported_compression_is_named(tmp_path: Path) -> None:
    packed = with_central_field(zip_of({"a.png": b"a"}), entry=0, offset=METHOD, value=struct.pack("<H", 9))

    with pytest.raises(BrokenArchive, match="Deflate64"):
        unpacked(packed, tmp_path)


def test_name_with_nul_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive, match="control characters"):
        unpacked(patched(zip_of({"a?b.png": b"a"}), (b"a?b.png", b"a\0b.png")), tmp_path)


def test_name_with_backslashes_becomes_folders(tmp_path: Path) -> None:
    assert names_of(unpacked(zip_of({"ants\\big\\1.png": b"a"}), tmp_path)) == ["ants/big/1.png"]


def test_name_in_code_page_437_is_decoded(tmp_path: Path) -> None:
    archive = patched(zip_of({"k?fer.png": b"a"}), (b"k?fer", b"k\x84fer"))

    assert names_of(unpacked(archive, tmp_path)) == ["käfer.png"]


def test_name_in_utf8_without_the_flag_is_decoded(tmp_path: Path) -> None:
    archive = patched(zip_of({"k??fer.png": b"a"}), (b"k??fer", "käfer".encode()))

    assert names_of(unpacked(archive, tmp_path)) == ["käfer.png"]


def test_decomposed_unicode_name_is_composed(tmp_path: Path) -> None:
    assert names_of(unpacked(zip_of({"ka\u0308fer.png": b"a"}), tmp_path)) == ["käfer.png"]


def test_name_of_300_characters_is_kept(tmp_path: Path) -> None:
    name = "n" * 300 + ".png"

    assert names_of(unpacked(zip_of({name: b"a"}), tmp_path)) == [name]


def test_names_that_differ_in_case_are_two_files(tmp_path: Path) -> None:
    archive = unpacked(zip_of({"ants/a.png": b"1", "Ants/A.png": b"2"}), tmp_path)

    assert [file.path.read_bytes() for file in archive.files] == [b"2", b"1"]


def test_name_of_a_file_and_a_folder_gives_two_files(tmp_path: Path) -> None:
    assert names_of(unpacked(zip_of({"a": b"1", "a/b.png": b"2"}), tmp_path)) == ["a", "a/b.png"]


def test_repeated_name_gives_the_last_file_and_is_reported(tmp_path: Path) -> None:
    found = unpacked(patched(zip_of({"a.png": b"first", "b.png": b"last"}), (b"b.png", b"a.png")), tmp_path)

    assert [file.path.read_bytes() for file in found.files] == [b"last"]
    assert found.repeated_names == ("a.png",)
    assert len(list((tmp_path / "unpacked").iterdir())) == 1


def test_files_of_operating_systems_are_skipped(tmp_path: Path) -> None:
    junk = ["__MACOSX/ants/._1.png", "ants/.DS_Store", "Thumbs.db", "ants/desktop.ini", "._ants", "Icon\r"]

    assert names_of(unpacked(zip_of(dict.fromkeys([*junk, "ants/1.png"], b"a")), tmp_path)) == ["ants/1.png"]


def test_folders_are_not_listed_as_files(tmp_path: Path) -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.mkdir("ants")
        file.writestr("bees\\", b"")

    assert names_of(unpacked(archive, tmp_path)) == []


def test_empty_zip_has_no_files(tmp_path: Path) -> None:
    assert names_of(unpacked(zip_of({}), tmp_path)) == []


@pytest.mark.parametrize("claimed", [1_000_000, 1])
def test_million_entries_are_refused_in_little_memory(tmp_path: Path, claimed: int) -> None:
    path = tmp_path / "crowded.zip"
    write_crowded_zip(path, entries=1_000_000, claimed_entries=claimed)
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeArchive, match="more than 200,000 files"):
            unpacked(path, tmp_path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 2 * 2**20


def test_entries_up_to_the_limit_are_unpacked(tmp_path: Path) -> None:
    archive = zip_of({f"{number}.png": b"a" for number in range(5)})

    assert len(unpacked(archive, tmp_path, limits=ArchiveLimits(max_files=5)).files) == 5


def test_entries_above_the_limit_are_refused(tmp_path: Path) -> None:
    archive = zip_of({f"{number}.png": b"a" for number in range(6)})

    with pytest.raises(UnsafeArchive, match="more than 5 files"):
        unpacked(archive, tmp_path, limits=ArchiveLimits(max_files=5))


def test_directory_with_long_extra_fields_is_refused(tmp_path: Path) -> None:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        info = zipfile.ZipInfo("a.png")
        info.extra = struct.pack("<HH", 0x9999, 5000) + bytes(5000)
        file.writestr(info, b"a")

    with pytest.raises(UnsafeArchive, match="larger than the names of its files"):
        unpacked(archive, tmp_path, limits=ArchiveLimits(max_files=4))


def test_ratio_of_a_thousand_is_refused(tmp_path: Path) -> None:
    bomb = zip_of({"a.png": bytes(50_000_000)})

    with pytest.raises(UnsafeArchive, match="more than 100 times its size"):
        unpacked(bomb, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_the_limit_are_refused(tmp_path: Path) -> None:
    archive = zip_of({"a.png": b"a" * 600, "b.png": b"b" * 600}, compression=zipfile.ZIP_STORED)

    with pytest.raises(UnsafeArchive, match="more than 1,000 bytes"):
        unpacked(archive, tmp_path, limits=ArchiveLimits(max_bytes=1000))


def test_entry_larger_than_it_claims_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    archive = zip_of({"a.png": b"a", "bomb.png": bytes(5_000_000)})
    liar = with_central_field(archive, entry=1, offset=UNPACKED_SIZE, value=struct.pack("<I", 1000))

    with pytest.raises(BrokenArchive, match="damaged"):
        unpacked(liar, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    archive = zip_of({"a.png": b"a" * 100, "b.png": b"b" * 100})
    overlapping = with_central_field(archive, entry=1, offset=LOCAL_OFFSET, value=struct.pack("<I", 0))

    with pytest.raises(UnsafeArchive, match="overlap"):
        unpacked(overlapping, tmp_path)


def test_large_read_outside_the_counted_directory_is_refused() -> None:
    size = 3 * 2**20
    reader = _CountedDirectory(BytesIO(bytes(3 * size)), (size, size))

    reader.seek(size)
    assert len(reader.read(size)) == size
    for start, length in ((0, size), (size, size + 1), (0, -1)):
        reader.seek(start)
        with pytest.raises(BrokenArchive, match="two directories"):
            reader.read(length)


@pytest.mark.parametrize("cut", [lambda data: data[: len(data) // 2], lambda data: data[:-5], lambda data: data[:30]])
def test_truncated_zip_is_broken(tmp_path: Path, cut: Callable[[bytes], bytes]) -> None:
    data = zip_of({"a.png": b"a" * 1000, "b.png": bytes(range(256)) * 50}).getvalue()

    with pytest.raises(BrokenArchive, match=r"ends early|damaged") as caught:
        unpacked(BytesIO(cut(data)), tmp_path)
    assert caught.value.hint is not None
    assert list(tmp_path.iterdir()) == []


def test_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    archive = zip_of({"a.png": b"a sentence to be changed"}, compression=zipfile.ZIP_STORED)

    with pytest.raises(BrokenArchive, match="damaged"):
        unpacked(patched(archive, (b"sentence", b"sentince")), tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"just a text", r"not a zip, tar or tar.gz archive\.$"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
        (b"Rar!\x1a\x07\1", "a RAR archive"),
        (b"  <!DOCTYPE html><html>", "a web page"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    ],
)
def test_file_that_is_not_an_archive_is_refused_by_its_real_type(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(BrokenArchive, match=words):
        unpacked(BytesIO(data), tmp_path)


def test_progress_is_reported_after_every_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    archive = zip_of({f"{number}.png": bytes(range(256)) * 100 for number in range(3)})

    unpacked(archive, tmp_path, on_progress=lambda done, total: seen.append((done, total)))

    assert len(seen) == 3
    assert {total for _, total in seen} == {len(archive.getvalue())}
