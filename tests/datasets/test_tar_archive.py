"""Unpacking of untrusted tar files, plain and gzipped."""

from __future__ import annotations

import gzip
import tarfile
import tracemalloc
from io import BytesIO
from pathlib import Path

import pytest

from tests.datasets.builders import names_of, patched, tar_of, unpacked
from workers.datasets.archives.archive import ArchiveLimits
from workers.errors import BrokenArchive, UnsafeArchive


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


def claiming(name: str, kind: bytes, size: int) -> bytes:
    """The header of a member that claims to have `size` bytes."""
    member = special(name, kind)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("gzipped", [False, True])
def test_tar_is_unpacked_in_the_order_of_names(tmp_path: Path, gzipped: bool) -> None:
    archive = unpacked(tar_of({"bees/2.png": b"two", "./ants/1.png": b"one"}, gzipped=gzipped), tmp_path)

    assert names_of(archive) == ["ants/1.png", "bees/2.png"]
    assert [file.path.read_bytes() for file in archive.files] == [b"one", b"two"]


def test_folders_are_not_listed_as_files(tmp_path: Path) -> None:
    assert names_of(unpacked(tar_of({}, special("ants", tarfile.DIRTYPE)), tmp_path)) == []


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "ants/../../a.png"])
def test_path_that_leads_out_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeArchive, match=r"absolute path|leads out of it"):
        unpacked(tar_of({"ok.png": b"ok", name: b"bad"}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_link_is_refused_with_a_hint(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(UnsafeArchive, match="a link") as caught:
        unpacked(tar_of({"a.png": b"a"}, special("b.png", kind, "a.png")), tmp_path)
    assert "--dereference" in str(caught.value.hint)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_device_is_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(UnsafeArchive, match="a device or another special file"):
        unpacked(tar_of({}, special("a.png", kind)), tmp_path)


def test_control_characters_in_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive, match="control characters"):
        unpacked(tar_of({"a\nb.png": b"a"}), tmp_path)


def test_name_in_code_page_437_is_decoded(tmp_path: Path) -> None:
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT, encoding="cp437") as file:
        file.addfile(tarfile.TarInfo("käfer.png"))

    assert names_of(unpacked(archive, tmp_path)) == ["käfer.png"]


def test_name_of_300_characters_is_kept(tmp_path: Path) -> None:
    name = "n" * 300 + ".png"

    assert names_of(unpacked(tar_of({name: b"a"}), tmp_path)) == [name]


def test_repeated_name_gives_the_last_file_and_is_reported(tmp_path: Path) -> None:
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        for content in (b"first", b"last!"):
            member = tarfile.TarInfo("a.png")
            member.size = 5
            file.addfile(member, BytesIO(content))
    found = unpacked(archive, tmp_path)

    assert [file.path.read_bytes() for file in found.files] == [b"last!"]
    assert found.repeated_names == ("a.png",)


def test_entries_above_the_limit_are_refused(tmp_path: Path) -> None:
    archive = tar_of({f"{number}.png": b"a" for number in range(6)}, gzipped=True)

    with pytest.raises(UnsafeArchive, match="more than 5 files"):
        unpacked(archive, tmp_path, limits=ArchiveLimits(max_files=5))
    assert list(tmp_path.iterdir()) == []


def test_many_entries_take_little_memory(tmp_path: Path) -> None:
    headers = b"".join(claiming(f"{number}", tarfile.DIRTYPE, 0) for number in range(3000))
    archive = BytesIO(headers + bytes(1024))
    tracemalloc.start()
    try:
        unpacked(archive, tmp_path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 2**20  # keeping 3000 headers would take 3 MB


@pytest.mark.parametrize("name", ["a.png", "__MACOSX/a.png"])
def test_ratio_of_a_thousand_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeArchive, match="more than 100 times its size"):
        unpacked(tar_of({name: bytes(20_000_000)}, gzipped=True), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive, match="more than 5,000 bytes"):
        unpacked(tar_of({"a.png": bytes(6000)}), tmp_path, limits=ArchiveLimits(max_bytes=5000))


def test_sparse_file_counts_with_its_unpacked_size(tmp_path: Path) -> None:
    member = special("a.png", tarfile.GNUTYPE_SPARSE)
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"100000000000"  # the real size: 8 GB, none of them stored
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)

    with pytest.raises(UnsafeArchive, match="more than 100 times its size"):
        unpacked(BytesIO(bytes(header) + bytes(1024)), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_header_that_claims_to_be_huge_is_not_read(tmp_path: Path, kind: bytes) -> None:
    archive = BytesIO(gzip.compress(claiming("x", kind, 100_000_000) + bytes(30_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeArchive, match="claims 100,000"):
            unpacked(archive, tmp_path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 2**20


def test_headers_that_extend_each_other_without_end_are_broken(tmp_path: Path) -> None:
    with pytest.raises(BrokenArchive, match="damaged"):
        unpacked(BytesIO(claiming("x", tarfile.XHDTYPE, 0) * 5000), tmp_path)


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_tar_is_broken(tmp_path: Path, share: float, gzipped: bool) -> None:
    data = tar_of({f"{number}.png": bytes(range(256)) * 40 for number in range(9)}, gzipped=gzipped).getvalue()

    with pytest.raises(BrokenArchive, match=r"ends early|damaged"):
        unpacked(BytesIO(data[: int(len(data) * share)]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tar_cut_between_two_files_is_broken(tmp_path: Path) -> None:
    data = tar_of({"a.png": bytes(512), "b.png": bytes(512)}).getvalue()

    with pytest.raises(BrokenArchive, match="ends early"):
        unpacked(BytesIO(data[:1024]), tmp_path)


def test_damaged_header_in_the_middle_is_broken(tmp_path: Path) -> None:
    with pytest.raises(BrokenArchive, match="ends early or is damaged"):
        unpacked(patched(tar_of({"a.png": b"a", "b.png": b"b"}), (b"b.png", b"c.png")), tmp_path)


def test_gzip_of_something_else_is_broken(tmp_path: Path) -> None:
    with pytest.raises(BrokenArchive, match="damaged"):
        unpacked(BytesIO(gzip.compress(b"just a text" * 100)), tmp_path)


def test_damaged_gzip_is_broken(tmp_path: Path) -> None:
    data = bytearray(tar_of({"a.png": bytes(range(256)) * 100}, gzipped=True).getvalue())
    data[len(data) // 2] ^= 0xFF

    with pytest.raises(BrokenArchive, match="damaged"):
        unpacked(BytesIO(bytes(data)), tmp_path)
