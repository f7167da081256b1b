"""Reading archives of classification: folders of categories, splits, CSV lists, and archives that no format fits."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.datasets.builders import archived, codes, folders, small_image, the_finding
from workers.datasets.dataset import DatasetFormat
from workers.datasets.formats.catalog import read_files
from workers.datasets.formats.reading import Reading
from workers.errors import UnusableDataset

IMAGES = folders(ants=2, bees=2)
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
        reading = read(tmp_path, IMAGES)

        assert reading.format == "image_folder"
        assert labels(reading)["ants/0.png"] == "ants"
        assert set(splits(reading).values()) == {None}
        assert reading.findings == ()

    @pytest.mark.parametrize("wrapper", ["data", "a/b/c", "train"])
    def test_wrapping_folders_are_ignored(self, tmp_path: Path, wrapper: str) -> None:
        reading = read(tmp_path, {f"{wrapper}/{name}": content for name, content in IMAGES.items()})

        assert set(labels(reading).values()) == {"ants", "bees"}

    def test_files_next_to_the_wrapping_folder_do_not_hide_it(self, tmp_path: Path) -> None:
        wrapped = {f"data/{name}": content for name, content in IMAGES.items()}
        reading = read(
            tmp_path, {**wrapped, "README.txt": b"hi", "cover.png": small_image(9), "data/all.png": small_image(8)}
        )

        assert set(labels(reading).values()) == {"ants", "bees"}
        assert the_finding(reading.findings, "images_outside_categories").files == ("cover.png", "data/all.png")

    def test_folders_below_a_category_belong_to_it(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**IMAGES, "ants/red/big/7.png": small_image(7)})

        assert labels(reading)["ants/red/big/7.png"] == "ants"

    @pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
    @pytest.mark.parametrize("train", ["train", "Training"])
    def test_split_folders_are_splits(self, tmp_path: Path, train: str, val: str) -> None:
        files = {
            f"{train}/ants/1.png": small_image(1),
            f"{train}/bees/2.png": small_image(2),
            f"{val}/ants/3.png": small_image(3),
        }
        reading = read(tmp_path, {f"data/{name}": content for name, content in files.items()})

        assert list(splits(reading).values()).count("train") == 2
        assert splits(reading)[f"data/{val}/ants/3.png"] == "val"

    def test_test_split_without_val_becomes_val_and_is_reported(self, tmp_path: Path) -> None:
        reading = read(tmp_path, folders(train__ants=1, train__bees=1, test__ants=1))

        assert splits(reading)["test/ants/0.png"] == "val"
        assert the_finding(reading.findings, "test_split_used_as_val").count == 1

    def test_test_split_beside_val_is_kept_and_reported(self, tmp_path: Path) -> None:
        reading = read(tmp_path, folders(train__ants=1, train__bees=1, val__ants=1, test__ants=3))

        assert [split for name, split in splits(reading).items() if name.startswith("test")] == ["test"] * 3
        assert list(splits(reading).values()).count("test") == 3
        assert the_finding(reading.findings, "test_split_kept").count == 3

    def test_folder_outside_the_splits_is_left_out_and_reported(self, tmp_path: Path) -> None:
        reading = read(tmp_path, folders(train__ants=1, train__bees=1, extra__ants=2))

        assert the_finding(reading.findings, "images_outside_splits").count == 2

    def test_image_in_a_split_without_category_is_left_out_and_reported(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**folders(train__ants=1, train__bees=1), "val/1.png": small_image(7)})

        assert the_finding(reading.findings, "images_outside_categories").files == ("val/1.png",)

    def test_category_called_train_is_a_category(self, tmp_path: Path) -> None:
        reading = read(tmp_path, folders(train=2, car=2, bus=2))

        assert set(labels(reading).values()) == {"train", "car", "bus"}

    def test_files_that_are_not_images_are_left_out_and_reported(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**IMAGES, "ants/notes.txt": b"hi", "model.py": b"import this"})

        assert the_finding(reading.findings, "ignored_files").files == ("ants/notes.txt", "model.py")

    def test_image_without_a_suffix_is_recognised_by_content(self, tmp_path: Path) -> None:
        assert "ants/0007" in labels(read(tmp_path, {**IMAGES, "ants/0007": small_image(7)}))

    def test_text_with_an_image_suffix_counts_as_image(self, tmp_path: Path) -> None:
        assert "ants/7.jpg" in labels(read(tmp_path, {**IMAGES, "ants/7.jpg": b"not found"}))

    def test_text_that_begins_like_a_bitmap_is_not_an_image(self, tmp_path: Path) -> None:
        assert "ants/cars.txt" not in labels(read(tmp_path, {**IMAGES, "ants/cars.txt": b"BMW and others"}))

    def test_hidden_folder_is_not_a_category(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**IMAGES, ".ipynb_checkpoints/1.png": small_image(7)})

        assert set(labels(reading).values()) == {"ants", "bees"}
        assert the_finding(reading.findings, "ignored_files").count == 1

    def test_heic_images_are_reported_with_the_need_to_convert(self, tmp_path: Path) -> None:
        finding = the_finding(read(tmp_path, {**IMAGES, "ants/7.HEIC": b"x"}).findings, "unsupported_image_format")

        assert finding.severity == "error"
        assert "(heic). Convert to JPEG or PNG" in finding.message

    def test_archive_inside_the_archive_is_reported(self, tmp_path: Path) -> None:
        assert "nested_archives" in codes(read(tmp_path, {**IMAGES, "more.zip": b"PK"}).findings)


class TestNothingFits:
    def test_empty_archive_is_refused(self, tmp_path: Path) -> None:
        assert str(refused(tmp_path, {})) == "The archive is empty."

    def test_archive_without_images_is_refused_and_its_files_are_reported(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {"a.txt": b"a", "inner.zip": b"PK\3\4"})

        assert str(error) == "The archive contains no images, only 2 other files."
        assert {problem["code"] for problem in error.problems} == {"no_images", "ignored_files", "nested_archives"}

    def test_images_without_folders_are_refused_with_the_expected_layouts(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {"1.png": small_image(1), "2.png": small_image(2)})

        assert "2 images but nothing that names their categories" in str(error)
        assert "one folder of images per category" in str(error.hint)
        assert "a CSV file with the columns path and label" in str(error.hint)

    def test_requested_folder_format_without_folders_is_refused(self, tmp_path: Path) -> None:
        error = refused(
            tmp_path, {"1.png": small_image(1), "list.csv": b"path,label\n1.png,a\n"}, format="image_folder"
        )

        assert "no folders that name categories" in str(error)

    def test_requested_csv_format_without_a_list_is_refused(self, tmp_path: Path) -> None:
        assert "it contains no CSV file" in str(refused(tmp_path, IMAGES, format="csv"))

    def test_csv_with_other_columns_is_named(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**IMAGES, "labels.csv": b"id,breed\n1,poodle\n"}, format="csv")

        assert "labels.csv has other columns" in str(error)


class TestCsv:
    def test_list_wins_over_folders(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**IMAGES, "labels.csv": LIST})

        assert reading.format == "csv"
        assert labels(reading) == {"ants/0.png": "ant", "bees/0.png": "bee"}
        assert the_finding(reading.findings, "unlisted_images").count == 2

    def test_requested_folder_format_wins_over_list(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**IMAGES, "labels.csv": LIST}, format="image_folder")

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
    def test_variants_of_spreadsheets_are_read(self, tmp_path: Path, content: bytes) -> None:
        assert labels(read(tmp_path, {**IMAGES, "labels.csv": content})) == {"ants/0.png": "ant", "bees/0.png": "bee"}

    def test_other_columns_and_their_order_do_not_matter(self, tmp_path: Path) -> None:
        content = b"id,label,author,path\n1,ant,me,ants/0.png\n2,bee,me,bees/0.png\n"

        assert labels(read(tmp_path, {**IMAGES, "labels.csv": content})) == {"ants/0.png": "ant", "bees/0.png": "bee"}

    @pytest.mark.parametrize("path", [b"0.png", b"images/0.png", b"data/images/0.png", b"../data/images/0.png"])
    def test_paths_are_relative_to_the_list_or_the_archive(self, tmp_path: Path, path: bytes) -> None:
        place = "data/images" if path == b"0.png" else "data"
        files = {"data/images/0.png": small_image(), f"{place}/list.csv": b"path,label\n" + path + b",a\n"}

        assert labels(read(tmp_path, files)) == {"data/images/0.png": "a"}

    def test_split_column_makes_splits(self, tmp_path: Path) -> None:
        content = b"path,label,split\nants/0.png,a,train\nants/1.png,a,Validation\nbees/0.png,b,training\n"
        reading = read(tmp_path, {**IMAGES, "labels.csv": content})

        assert splits(reading) == {"ants/0.png": "train", "ants/1.png": "val", "bees/0.png": "train"}

    def test_lists_named_after_splits_make_splits(self, tmp_path: Path) -> None:
        lists = {"train.csv": b"path,label\nants/0.png,a\nbees/0.png,b\n", "val.csv": b"path,label\nants/1.png,a\n"}

        assert splits(read(tmp_path, {**IMAGES, **lists})) == {
            "ants/0.png": "train",
            "bees/0.png": "train",
            "ants/1.png": "val",
        }

    def test_several_lists_that_name_no_split_are_refused(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**IMAGES, "labels.csv": LIST, "labels-old.csv": LIST})

        assert "labels-old.csv, labels.csv" in str(error)

    def test_missing_listed_file_is_reported(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**IMAGES, "labels.csv": LIST + b"wasps/1.png,wasp\n/etc/passwd,x\n"})

        assert the_finding(reading.findings, "missing_files").files == ("wasps/1.png", "/etc/passwd")

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (b"ants/1.png", "it has too few columns"),
            (b"ants/1.png,,train", "its path or its label is empty"),
            (b",ant,train", "its path or its label is empty"),
            (b"ants/1.png,a\x07b,train", "its label contains control characters"),
            (b"ants/1.png,ant,holdout", "its split is neither train nor val: 'holdout'"),
            (b"ants/1.png,ant,", "its split is neither train nor val: ''"),
        ],
    )
    def test_bad_row_is_left_out_and_reported_with_its_line(self, tmp_path: Path, row: bytes, reason: str) -> None:
        content = b"path,label,split\nants/0.png,ant,train\n" + row + b"\nbees/0.png,bee,val\n"
        reading = read(tmp_path, {**IMAGES, "labels.csv": content})
        finding = the_finding(reading.findings, "bad_rows")

        assert len(reading.files) == 2
        assert finding.files == ("labels.csv:3",)
        assert finding.message.endswith(f"The first, labels.csv:3: {reason}.")

    def test_file_listed_twice_with_the_same_label_counts_once(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**IMAGES, "labels.csv": LIST + LIST.splitlines()[1]})

        assert labels(reading) == {"ants/0.png": "ant", "bees/0.png": "bee"}
        assert "conflicting_rows" not in codes(reading.findings)

    def test_file_listed_with_two_labels_is_left_out_and_reported(self, tmp_path: Path) -> None:
        reading = read(tmp_path, {**IMAGES, "labels.csv": LIST + b"ants/0.png,bee\n"})

        assert labels(reading) == {"bees/0.png": "bee"}
        assert the_finding(reading.findings, "conflicting_rows").files == ("ants/0.png",)

    def test_list_without_any_known_path_is_refused(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**IMAGES, "labels.csv": b"path,label\n/home/me/1.jpg,ant\n"})

        assert str(error) == "No path in labels.csv is a file of the archive."
        assert "relative to the CSV file" in str(error.hint)

    def test_list_in_another_encoding_is_refused_with_a_hint(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**IMAGES, "labels.csv": LIST + "ants/1.png,Käfer\n".encode("cp1252")})

        assert str(error) == "labels.csv is not UTF-8."
        assert "CSV UTF-8" in str(error.hint)

    def test_list_with_an_unclosed_quote_is_refused(self, tmp_path: Path) -> None:
        error = refused(tmp_path, {**IMAGES, "labels.csv": LIST + b'"' + b"x" * 200_000})

        assert "labels.csv is damaged" in str(error)

    def test_decomposed_name_in_the_list_finds_the_file(self, tmp_path: Path) -> None:
        files = {"k\u00e4fer.png": small_image(), "labels.csv": "path,label\nka\u0308fer.png,Ka\u0308fer\n".encode()}

        assert labels(read(tmp_path, files)) == {"käfer.png": "Käfer"}
