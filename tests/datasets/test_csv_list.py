"""Tables that name the category of each image, as people's tools and competitions write them."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given

from tests.datasets.builders import archived, folders, small_image, the_finding
from tests.datasets.fuzzing import accounted_images, damaged, many_examples, read_or_refused
from workers.datasets.formats.catalog import read_files
from workers.datasets.formats.reading import Reading
from workers.errors import UnusableDataset

IMAGES = {f"images/{number:03}.png": small_image(number) for number in range(6)}
STEMS = [f"{number:03}" for number in range(6)]
COLOURS = ["blue", "red"] * 3


def read(directory: Path, files: Mapping[str, bytes]) -> Reading:
    return read_files(archived(directory, files))


def labels(reading: Reading) -> dict[str, str]:
    return {each.file.name: each.label for each in reading.files}


def table(header: str, *, suffix: str = ".png", folder: str = "") -> str:
    return "\n".join(
        [header, *(f"{folder}{stem}{suffix},{colour}" for stem, colour in zip(STEMS, COLOURS, strict=True))]
    )


EXPECTED = dict(zip(IMAGES, COLOURS, strict=True))


@pytest.mark.parametrize(
    "content",
    [
        table("filename,class"),
        table("file_name,label"),
        table("path,label"),
        table("Image Name,Category"),
        table("image_id,label"),
        table("image_id,label", suffix=""),
        table("image_id,label", suffix=".jpg"),
        table("id,breed", suffix=""),
        table("Image,Id"),
        table("filepaths,labels"),
        table("filename,class", folder="C:\\Users\\me\\images\\"),
        table("filename,class", folder="/home/me/images/"),
        table("filename,class", folder="images/"),
        table("filename,class", folder="./"),
        table("filename,class").replace(",", ";"),
        table("filename,class").replace(",", "\t"),
        "sep=;\n" + table("filename,class").replace(",", ";"),
        table("filename,class").replace("\n", "\r\n"),
    ],
)
def test_usual_headers_and_names_are_read(tmp_path: Path, content: str) -> None:
    reading = read(tmp_path, {**IMAGES, "labels.csv": content.encode()})

    assert (reading.format, labels(reading)) == ("csv", EXPECTED)
    assert reading.findings == ()


@pytest.mark.parametrize(
    "encoded",
    [
        codecs.BOM_UTF8 + table("filename,class").encode(),
        table("filename,class").encode("utf-16"),
        codecs.BOM_UTF16_BE + table("filename,class").encode("utf-16-be"),
        table("filename,class").encode("utf-16-le"),
    ],
    ids=["BOM", "UTF-16", "UTF-16 BE", "UTF-16 without BOM"],
)
def test_encodings_of_spreadsheets_are_read(tmp_path: Path, encoded: bytes) -> None:
    assert labels(read(tmp_path, {**IMAGES, "labels.csv": encoded})) == EXPECTED


def test_names_of_columns_decide_when_several_could_name_the_image(tmp_path: Path) -> None:
    rows = "\n".join(
        f"{number},{stem}.png,{colour}" for number, (stem, colour) in enumerate(zip(STEMS, COLOURS, strict=True))
    )

    assert labels(read(tmp_path, {**IMAGES, "list.csv": f"id,image,label\n{rows}".encode()})) == EXPECTED


class TestOneColumnPerCategory:
    @pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1.0", "0.0"), (" 1", " 0"), ("True", "False")])
    @pytest.mark.parametrize("suffix", ["", ".png"])
    def test_the_marked_column_is_the_category(self, tmp_path: Path, yes: str, no: str, suffix: str) -> None:
        rows = [
            f"{stem}{suffix},{yes},{no}" if colour == "red" else f"{stem}{suffix},{no},{yes}"
            for stem, colour in EXPECTED_ROWS
        ]
        content = "\n".join(["image, red, blue", *rows])

        assert labels(read(tmp_path, {**IMAGES, "GroundTruth.csv": content.encode()})) == EXPECTED

    def test_row_that_marks_no_category_is_left_out_and_counted(self, tmp_path: Path) -> None:
        rows = [f"{stem},1,0" for stem in STEMS[:5]]
        reading = read(tmp_path, {**IMAGES, "l.csv": "\n".join(["image,red,blue", *rows, "005,0,0"]).encode()})

        assert the_finding(reading.findings, "bad_rows").files == ("l.csv:7",)
        assert len(reading.files) == 5

    def test_splits_of_roboflow_come_from_the_folders(self, tmp_path: Path) -> None:
        files = {**folders(train=4, valid=2)}
        files["train/_classes.csv"] = b"filename, blue, red\n" + b"".join(b"%d.png, 1, 0\n" % n for n in range(4))
        files["valid/_classes.csv"] = b"filename, blue, red\n0.png, 1, 0\n1.png, 0, 1\n"
        reading = read(tmp_path, files)

        assert [each.split for each in reading.files] == ["train"] * 4 + ["val"] * 2
        assert labels(reading)["valid/1.png"] == "red"


EXPECTED_ROWS = list(zip(STEMS, COLOURS, strict=True))


class TestKaggle:
    def kaggle(self, more: Mapping[str, str] | None = None, *, list_name: str = "train.csv") -> dict[str, bytes]:
        files = {f"train/{stem}.png": small_image(number) for number, stem in enumerate(STEMS)}
        files |= {f"test/{stem}.png": small_image(number + 50) for number, stem in enumerate(STEMS)}
        texts = {list_name: table("id,label", suffix=""), **(more or {})}
        return files | {name: text.encode() for name, text in texts.items()}

    @pytest.mark.parametrize("list_name", ["train.csv", "trainLabels.csv", "train_labels.csv"])
    def test_the_list_means_the_images_of_its_split(self, tmp_path: Path, list_name: str) -> None:
        reading = read(tmp_path, self.kaggle(list_name=list_name))

        assert labels(reading) == {f"train/{stem}.png": colour for stem, colour in EXPECTED_ROWS}
        assert the_finding(reading.findings, "unlisted_images").count == 6

    def test_example_of_an_answer_is_not_a_list(self, tmp_path: Path) -> None:
        answer = "id,label\n" + "\n".join(f"{stem},red" for stem in STEMS)
        reading = read(tmp_path, self.kaggle({"sample_submission.csv": answer, "test.csv": "id\n" + "\n".join(STEMS)}))

        assert {name.split("/")[0] for name in labels(reading)} == {"train"}


class TestHuggingFace:
    def test_metadata_in_json_lines_is_read(self, tmp_path: Path) -> None:
        lines = "\n".join(f'{{"file_name": "{stem}.png", "label": "{colour}"}}' for stem, colour in EXPECTED_ROWS)

        assert labels(read(tmp_path, {**IMAGES, "images/metadata.jsonl": lines.encode()})) == EXPECTED

    def test_metadata_of_each_split_is_read(self, tmp_path: Path) -> None:
        files = folders(train=2, test=1)
        files["train/metadata.csv"] = b"file_name,label\n0.png,3\n1.png,4\n"
        files["test/metadata.csv"] = b"file_name,label\n0.png,3\n"
        reading = read(tmp_path, files)

        assert labels(reading) == {"train/0.png": "3", "train/1.png": "4", "test/0.png": "3"}

    def test_line_that_is_not_json_is_left_out_and_counted(self, tmp_path: Path) -> None:
        lines = ['{"file_name": "000.png", "label": "a"}', '{"file_nam', '{"file_name": "002.png", "label": "b"}']
        reading = read(tmp_path, {**IMAGES, "images/metadata.jsonl": "\n".join(lines).encode()})

        assert the_finding(reading.findings, "bad_rows").files == ("images/metadata.jsonl:2",)


@pytest.mark.parametrize(
    "content",
    [
        "image,labels\n000.png,scab rust\n001.png,scab\n002.png,rust\n003.png,scab\n",
        "image,label\n000.png,a|b\n001.png,a\n002.png,b\n003.png,a\n",
        "image,sunny,warm,dry\n000.png,1,1,0\n001.png,1,1,1\n002.png,0,1,1\n003.png,1,0,0\n",
        "image_name,tags\n000.png,haze primary\n001.png,clear primary\n002.png,clear\n003.png,clear\n",
    ],
    ids=["combined words", "separated", "several marks", "tags"],
)
def test_several_categories_per_image_are_refused_with_the_way_out(tmp_path: Path, content: str) -> None:
    with pytest.raises(UnusableDataset, match="several categories per image") as caught:
        read(tmp_path, {**IMAGES, "labels.csv": content.encode()})
    assert "one dataset per category" in str(caught.value.hint)


@pytest.mark.parametrize(
    "content",
    [
        "id,price\n000,1.25\n001,2.5\n002,1.25\n003,2.5\n",
        "ImageId,EncodedPixels\n000.png,1 5\n001.png,1 5\n002.png,\n",
        "filename,class,xmin,ymin,xmax\n000.png,red,1,2,3\n",
        "name,r,g,b\nred,255,0,0\nblue,0,0,255\n",
    ],
    ids=["numbers", "run lengths", "half a box", "colours"],
)
def test_other_tables_are_not_lists_of_categories(tmp_path: Path, content: str) -> None:
    reading = read(tmp_path, {**folders(ants=4, bees=4), "table.csv": content.encode()})

    assert reading.format == "image_folder"


@many_examples
@given(damaged((table("filename,class") + "\n").encode()))
def test_no_damage_loses_an_image_without_a_finding(content: bytes) -> None:
    reading = read_or_refused({**IMAGES, "other/9.png": small_image(9), "labels.csv": content})

    if reading is not None and reading.format == "csv":
        assert accounted_images(reading) == len(IMAGES) + 1
        if not {each.code for each in reading.findings} & {"bad_rows", "missing_files", "conflicting_rows"}:
            rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig", errors="replace"), newline="")))
            named = {cells[0].strip() for cells in rows[1:] if cells and any(map(str.strip, cells))}
            assert len(reading.files) >= len({name for name in named if name in {f"{stem}.png" for stem in STEMS}})
