"""Names in zips of old programs, which state no encoding: decoded by the annotations, else by what fits best.

The bytes come from Python's codecs, which follow the vendors' tables, and were not made by the code under test.
"""

from __future__ import annotations

import json
import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from tests.datasets.builders import (
    NOW,
    coco_json,
    coco_object,
    codes,
    image_64x48,
    names_of,
    small_image,
    the_finding,
    unpacked,
)
from workers.datasets.archives.name_encoding import find_name_encoding
from workers.datasets.formats.xml_tree import BadXml, parse_xml
from workers.datasets.intake import ingest_archive
from workers.datasets.store import DatasetStore


def old_zip(files: dict[bytes, bytes]) -> BytesIO:
    """A zip without the flag for UTF-8. Python's zipfile cannot write one."""
    out, directory = b"", b""
    for raw, data in files.items():
        crc, size = zlib.crc32(data), len(data)
        fields = (20, 0, 0, 0, 0, crc, size, size, len(raw), 0)
        directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, *fields, 0, 0, 0, 0, len(out)) + raw
        out += struct.pack("<4s5H3I2H", b"PK\3\4", *fields) + raw + data
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(files), len(files), len(directory), len(out), 0)
    return BytesIO(out + directory + end)


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("gbk", ["数据/猫", "数据/狗"]),
        ("gbk", ["安全帽检测", "未戴安全帽"]),
        ("cp949", ["데이터/고양이", "데이터/강아지 사진"]),
        ("cp932", ["データ/ねこ", "データ/いぬ"]),
        ("cp932", ["猫の画像", "犬の画像"]),
        ("big5", ["資料庫/貓的照片", "資料庫/狗的照片"]),
        ("cp866", ["Данные/кошка", "Данные/собаки"]),
        ("cp437", ["Käfer", "Wespen/größe", "Abeja pequeña"]),
        ("cp850", ["Maçã", "João", "pão de açúcar"]),
    ],
)
def test_names_are_read_in_the_code_page_that_fits(tmp_path: Path, encoding: str, words: list[str]) -> None:
    names = [f"{word}/{number}.png" for word in words for number in range(3)]
    found = unpacked(old_zip({name.encode(encoding): small_image(1) for name in names}), tmp_path)

    assert names_of(found) == sorted(names)
    assert found.name_encoding is not None


@pytest.mark.parametrize("name", ["a.png", "Käfer.png", "猫.png"])
def test_ascii_and_utf8_need_no_guess(tmp_path: Path, name: str) -> None:
    found = unpacked(old_zip({name.encode(): small_image(1)}), tmp_path)

    assert names_of(found) == [name]
    assert found.name_encoding is None


@pytest.mark.parametrize("encoding", ["gbk", "big5", "cp932", "cp949", "cp866"])
@pytest.mark.parametrize("is_escaped", [True, False])
def test_names_in_the_annotations_decide(encoding: str, is_escaped: bool) -> None:
    word = {"cp949": "개와 새", "cp866": "ёж"}.get(encoding, "數據")
    word = "数据" if encoding in ("gbk", "cp932") else word
    text = json.dumps({"file_name": f"{word}.jpg"}, ensure_ascii=is_escaped).encode()
    found = find_name_encoding([f"{word}.jpg".encode(encoding)], [text])

    assert f"{word}.jpg".encode(encoding).decode(found.name) == f"{word}.jpg"
    assert found.reason == "the annotations have these names"


def test_nothing_that_fits_is_said() -> None:
    found = find_name_encoding([b"\xff\xfe\xfd.jpg"], [])

    assert found.name == "cp437"
    assert "may be wrong" in found.reason


def test_utf8_name_beside_others_stays_readable(tmp_path: Path) -> None:
    names = {"猫.png".encode("gbk"): b"1", "狗狗.png".encode("gbk"): b"2", "é1.png".encode(): b"3", b"a/b.png": b"4"}

    assert {"猫.png", "狗狗.png", "a/b.png"} <= set(names_of(unpacked(old_zip(names), tmp_path)))


def test_intake_warns_and_finds_the_images_of_the_annotations(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"安全帽{n}.png", "width": 64, "height": 48} for n in range(6)]
    files = {f"images/安全帽{n}.png".encode("gbk"): image_64x48(n) for n in range(6)}
    files[b"a.json"] = coco_json(images, [coco_object(n) for n in range(6)])
    store = DatasetStore(tmp_path / "datasets")
    info = ingest_archive(old_zip(files), name="hats", store=store, now=NOW).info

    assert sum(split.images for split in info.splits.values()) == 6
    finding = the_finding(info.report, "name_encoding")
    assert (finding.severity, finding.count) == ("warning", 6)
    assert "took gbk: the annotations have these names" in finding.message
    assert "missing_images" not in codes(info.report)


@pytest.mark.parametrize("encoding", ["GBK", "gb2312", "Shift_JIS", "big5", "windows-1251", "EUC-KR"])
def test_xml_in_another_encoding_is_read(encoding: str) -> None:
    word = {"windows-1251": "кот", "EUC-KR": "고양이", "Shift_JIS": "猫"}.get(encoding, "人")
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation><name>{word}</name></annotation>'

    assert parse_xml(text.encode(encoding)).find_text("name") == word


@pytest.mark.parametrize("encoding", ["GBK", "unknown-8", "rot13", "utf-7", "idna"])
def test_xml_in_a_false_encoding_is_refused_with_the_way_out(encoding: str) -> None:
    data = f'<?xml version="1.0" encoding="{encoding}"?><annotation>'.encode() + b"\xff\xff\x80+-</annotation>"

    with pytest.raises(BadXml):
        parse_xml(data)
