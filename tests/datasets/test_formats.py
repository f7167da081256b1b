"""What an archive's files mean: folders of categories, splits, lists, and what cannot be read."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.datasets.builders import archived, codes, folders, picture, the_finding
from workers.datasets.dataset import DatasetFormat
from workers.datasets.formats.catalog import read_files
from workers.datasets.formats.reading import Reading
from workers.errors import UnusableDataset

PICTURES = folders(ants=2, bees=2)
LIST = b"path,label\nants/0.png,ant\nbees/0.png,bee\n"


def read(directory: Path, files: Mapping[str, bytes], *, format: DatasetFormat | None = None) -> Reading:  # noqa: A002
    return read_files(archived(directory, files), format=format)


def labels(reading: Reading) -> dict[str, str]:
    return {each.file.name: each.label for each in reading.files}


def splits(reading: Reading) -> dict[str, str | None]:
    return {each.file.name: each.split for each in reading.files}


def refused(directory: Path, files: Mapping[str, bytes], **options: DatasetFormat) -> UnusableDataset:
    with pytest.raises(UnusableDataset) as caught:
        read(directory, files, **options)
    assert caught.value.hint is not None
    return caught.value


class TestImageFolder:
    def test_folders_are_categories_without_splits(self, tmp_path: Path) -> None:
        reading = read(tmp_path, PICTURES)

        assert reading.format == "image_folder"
        assert labels(reading)["ants/0.png"] == "ants"
        assert set(splits(reading).values()) == {None}
        assert reading.findings == ()

    @pytest.mark.parametrize("wrapper", ["data", "a/b/c", "train"])
    def test_wrapping_folders_are_looked_through(self, tmp_path: Path, wrapper: str) -> None:
        reading = read(tmp_path, {f"{wrapper}/{name}": content for name, content in PICTURES.items()})

        assert set(labels(reading).values()) == {"ants", "bees"}

    def test_files_beside_the_wrapping_folder_do_not_hide_it(self, tmp_path: Path) -> None:
        wrapped = {f"data/{name}": content for name, content in PICTURES.items()}
        reading = read(tmp_path, {**wrapped, "README.txt": b"hi", "cover.png": picture(9), "data/all.png": picture(8)})

        assert set(labels(reading).values()) == {"ants", "bees"}
        assert the_finding(reading.findings, "images_outside_categories").files == ("cover.png", "data/all.png")

    def test_folders_below_a_category_belong_to_it(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**PICTURES, "ants/red/big/7.png": picture(7)})

        assert labels(reading)["ants/red/big/7.png"] == "ants"

    @pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
    @pytest.mark.parametrize("train", ["train", "Training"])
    def test_split_folders_are_splits(self, tmp_path: Path, train: str, val: str) -> None:
        files = {f"{train}/ants/1.png": picture(1), f"{train}/bees/2.png": picture(2), f"{val}/ants/3.png": picture(3)}
        reading = read(tmp_path, {f"data/{name}": content for name, content in files.items()})

        assert list(splits(reading).values()).count("train") == 2
        assert splits(reading)[f"data/{val}/ants/3.png"] == "val"

    def test_test_split_stands_in_for_val_and_is_said(self, tmp_path: Path) -> None:
        reading = read(tmp_path, folders(train__ants=1, train__bees=1, test__ants=1))

        assert splits(reading)["test/ants/0.png"] == "val"
        assert the_finding(reading.findings, "test_split_used_as_val").count == 1

    def test_test_split_beside_val_is_left_out_and_said(self, tmp_path: Path) -> None:
        reading = read(tmp_path, folders(train__ants=1, train__bees=1, val__ants=1, test__ants=3))

        assert not [name for name in labels(reading) if name.startswith("test")]
        assert the_finding(reading.findings, "test_split_ignored").count == 3

    def test_folder_beside_the_splits_is_left_out_and_said(self, tmp_path: Path) -> None:
        reading = read(tmp_path, folders(train__ants=1, train__bees=1, extra__ants=2))

        assert the_finding(reading.findings, "images_outside_splits").count == 2

    def test_image_in_a_split_but_in_no_category_is_left_out_and_said(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**folders(train__ants=1, train__bees=1), "val/1.png": picture(7)})

        assert the_finding(reading.findings, "images_outside_categories").files == ("val/1.png",)

    def test_category_called_train_is_a_category(self, tmp_path: Path) -> None:
        reading = read(tmp_path, folders(train=2, car=2, bus=2))

        assert set(labels(reading).values()) == {"train", "car", "bus"}

    def test_files_that_are_no_pictures_are_left_out_and_said(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**PICTURES, "ants/notes.txt": b"hi", "model.py": b"import this"})

        assert the_finding(reading.findings, "ignored_files").files == ("ants/notes.txt", "model.py")

    def test_picture_without_a_suffix_is_found_by_content(self, tmp_path: Path) -> None:
        assert "ants/0007" in labels(read(tmp_path, {**PICTURES, "ants/0007": picture(7)}))

    def test_text_with_a_picture_suffix_counts_as_picture(self, tmp_path: Path) -> None:
        assert "ants/7.jpg" in labels(read(tmp_path, {**PICTURES, "ants/7.jpg": b"not found"}))

    def test_text_that_begins_like_a_bitmap_is_no_picture(self, tmp_path: Path) -> None:
        assert "ants/cars.txt" not in labels(read(tmp_path, {**PICTURES, "ants/cars.txt": b"BMW and others"}))

    def test_hidden_folder_is_no_category(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**PICTURES, ".ipynb_checkpoints/1.png": picture(7)})

        assert set(labels(reading).values()) == {"ants", "bees"}
        assert the_finding(reading.findings, "ignored_files").count == 1

    def test_heic_photos_are_said_to_need_conversion(self, tmp_path: Path) -> None:
        finding = the_finding(read(tmp_path, {**PICTURES, "ants/7.HEIC": b"x"}).findings, "unsupported_image_format")

        assert finding.severity == "error"
        assert "(heic): convert to JPEG or PNG" in finding.message

    def test_archive_inside_the_archive_is_said(self, tmp_path: Path) -> None:
        assert "nested_archives" in codes(read(tmp_path, {**PICTURES, "more.zip": b"PK"}).findings)


class TestNothingFits:
    def test_empty_archive_says_so(self, tmp_path: Path) -> None:
        assert str(refused(tmp_path, {})) == "The archive is empty."

    def test_no_images_says_what_is_there(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {"a.txt": b"a", "inner.zip": b"PK\3\4"})

        assert str(error) == "There is no image in the archive, only 2 other files."
        assert {problem["code"] for problem in error.problems} == {"no_images", "ignored_files", "nested_archives"}

    def test_images_without_folders_say_what_is_expected(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {"1.png": picture(1), "2.png": picture(2)})

        assert "2 images but nothing that names their categories" in str(error)
        assert "a folder of images for each category" in str(error.hint)
        assert "a CSV file with the columns path and label" in str(error.hint)

    def test_folder_format_asked_for_without_folders_is_refused(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {"1.png": picture(1), "list.csv": b"path,label\n1.png,a\n"}, format="image_folder")

        assert "no folders that name categories" in str(error)

    def test_csv_format_asked_for_without_a_list_is_refused(self, tmp_path: Path) -> None:
        assert "there is no CSV file at all" in str(refused(tmp_path, PICTURES, format="csv"))

    def test_csv_with_other_columns_is_named(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**PICTURES, "labels.csv": b"id,breed\n1,poodle\n"}, format="csv")

        assert "labels.csv has other columns" in str(error)


class TestCsv:
    def test_list_wins_over_folders(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**PICTURES, "labels.csv": LIST})

        assert reading.format == "csv"
        assert labels(reading) == {"ants/0.png": "ant", "bees/0.png": "bee"}
        assert the_finding(reading.findings, "unlisted_images").count == 2

    def test_folder_format_asked_for_wins_over_list(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**PICTURES, "labels.csv": LIST}, format="image_folder")

        assert set(labels(reading).values()) == {"ants", "bees"}

    @pytest.mark.parametrize(
        "content",
        [
            codecs.BOM_UTF8 + LIST,
            LIST.replace(b",", b";"),
            LIST.replace(b",", b"\t"),
            LIST.replace(b"\n", b"\r\n"),
            LIST.replace(b"path,label", b' "Path" , LABEL'),
            LIST.replace(b"ants/0.png", b'"ants\\0.png"'),
            LIST.replace(b"ants/0.png", b"./ants//0.png"),
            LIST + b"\n,\n",
        ],
        ids=["bom", "semicolon", "tab", "crlf", "header", "backslash", "dots", "blank lines"],
    )
    def test_what_spreadsheets_write_is_read(self, tmp_path: Path, content: bytes) -> None:
        assert labels(read(tmp_path, {**PICTURES, "labels.csv": content})) == {"ants/0.png": "ant", "bees/0.png": "bee"}

    def test_other_columns_in_another_order_are_no_matter(self, tmp_path: Path) -> None:
        content = b"id,label,author,path\n1,ant,me,ants/0.png\n2,bee,me,bees/0.png\n"

        assert labels(read(tmp_path, {**PICTURES, "labels.csv": content})) == {"ants/0.png": "ant", "bees/0.png": "bee"}

    @pytest.mark.parametrize("path", [b"0.png", b"images/0.png", b"data/images/0.png", b"../data/images/0.png"])
    def test_paths_are_relative_to_the_list_or_the_archive(self, tmp_path: Path, path: bytes) -> None:
        place = "data/images" if path == b"0.png" else "data"
        files = {"data/images/0.png": picture(), f"{place}/list.csv": b"path,label\n" + path + b",a\n"}

        assert labels(read(tmp_path, files)) == {"data/images/0.png": "a"}

    def test_split_column_makes_splits(self, tmp_path: Path) -> None:
        content = b"path,label,split\nants/0.png,a,train\nants/1.png,a,Validation\nbees/0.png,b,training\n"
        reading = read(tmp_path, {**PICTURES, "labels.csv": content})

        assert splits(reading) == {"ants/0.png": "train", "ants/1.png": "val", "bees/0.png": "train"}

    def test_lists_named_after_splits_make_splits(self, tmp_path: Path) -> None:
        lists = {"train.csv": b"path,label\nants/0.png,a\nbees/0.png,b\n", "val.csv": b"path,label\nants/1.png,a\n"}

        assert splits(read(tmp_path, {**PICTURES, **lists})) == {
            "ants/0.png": "train",
            "bees/0.png": "train",
            "ants/1.png": "val",
        }

    def test_several_lists_that_name_no_split_are_refused(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**PICTURES, "labels.csv": LIST, "labels-old.csv": LIST})

        assert "labels-old.csv, labels.csv" in str(error)

    def test_listed_file_that_is_missing_is_said(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**PICTURES, "labels.csv": LIST + b"wasps/1.png,wasp\n/etc/passwd,x\n"})

        assert the_finding(reading.findings, "missing_files").files == ("wasps/1.png", "/etc/passwd")

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (b"ants/1.png", "too few columns"),
            (b"ants/1.png,,train", "no path or no label"),
            (b",ant,train", "no path or no label"),
            (b"ants/1.png,a\x07b,train", "control characters in the label"),
            (b"ants/1.png,ant,holdout", "a split that is neither train nor val: 'holdout'"),
            (b"ants/1.png,ant,", "a split that is neither train nor val: ''"),
        ],
    )
    def test_bad_row_is_left_out_and_named_by_line(self, tmp_path: Path, row: bytes, reason: str) -> None:
        content = b"path,label,split\nants/0.png,ant,train\n" + row + b"\nbees/0.png,bee,val\n"
        reading = read(tmp_path, {**PICTURES, "labels.csv": content})
        finding = the_finding(reading.findings, "bad_rows")

        assert len(reading.files) == 2
        assert finding.files == ("labels.csv:3",)
        assert reason in finding.message

    def test_file_listed_twice_alike_counts_once(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**PICTURES, "labels.csv": LIST + LIST.splitlines()[1]})

        assert labels(reading) == {"ants/0.png": "ant", "bees/0.png": "bee"}
        assert "conflicting_rows" not in codes(reading.findings)

    def test_file_listed_with_two_labels_is_left_out_and_said(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**PICTURES, "labels.csv": LIST + b"ants/0.png,bee\n"})

        assert labels(reading) == {"bees/0.png": "bee"}
        assert the_finding(reading.findings, "conflicting_rows").files == ("ants/0.png",)

    def test_list_that_leads_nowhere_is_refused(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**PICTURES, "labels.csv": b"path,label\n/home/me/1.jpg,ant\n"})

        assert str(error) == "No row of labels.csv leads to a file of the archive."
        assert "relative to the CSV file" in str(error.hint)

    def test_list_in_another_encoding_is_refused_with_a_way_out(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**PICTURES, "labels.csv": LIST + "ants/1.png,Käfer\n".encode("cp1252")})

        assert str(error) == "labels.csv is not UTF-8."
        assert "CSV UTF-8" in str(error.hint)

    def test_list_with_an_endless_field_is_refused(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**PICTURES, "labels.csv": LIST + b'"' + b"x" * 200_000})

        assert "labels.csv is damaged" in str(error)

    def test_decomposed_name_in_the_list_finds_the_file(self, tmp_path: Path) -> None:
        files = {"k\u00e4fer.png": picture(), "labels.csv": "path,label\nka\u0308fer.png,Ka\u0308fer\n".encode()}

        assert labels(read(tmp_path, files)) == {"käfer.png": "Käfer"}
