"""`fovea classify DIR --out FILE` and its sisters: every image has one line, whatever interrupts the run."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from app.settings import ApiSettings
from tests import children
from tests.app.compass import publish_compass
from tests.app.finders import png
from tests.app.running_api import running_api
from tests.cli.running import fovea
from tests.cli.stub_predictor import Asked, CutOff, Refusal, StubPredictor
from tests.models.spotter import Rectangle
from tests.waiting import PATIENCE_S, wait_until

RED: Rectangle = ("red", 20, 30, 120, 90)
MODELS = {"classify": "compass", "detect": "boxes", "segment": "painter"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve files with names of images, in two directories."""
    directory = tmp_path / "photos"
    for number in range(12):
        path = directory / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")
    return directory


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def classify(stub: StubPredictor, photos: object, out: Path, *flags: object) -> Result:
    return fovea(stub.url, "classify", photos, "--model", "namer", "--out", out, "--images-per-request", 2, *flags)


def lines(out: Path) -> dict[str, Any]:
    """The lines by their path. No path has two."""
    entries = [json.loads(line) for line in out.read_bytes().splitlines()]
    found = {entry.pop("path"): entry for entry in entries}
    assert len(found) == len(entries)
    return found


def check_all_there(photos: Path, out: Path) -> None:
    """Each photo has its own answer."""
    found = {path: entry["classes"][0]["label"] for path, entry in lines(out).items()}
    assert found == {path.relative_to(photos).as_posix(): path.name for path in photos.rglob("*.jpg")}


@pytest.mark.parametrize(
    ("command", "found"), [("classify", "classes"), ("detect", "detections"), ("segment", "segments")]
)
def test_every_picture_of_a_directory_has_a_line(
    finders_url: str, tmp_path: Path, out: Path, command: str, found: str
) -> None:
    for name in ("a.png", "deep/er/a.png", "without-suffix"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(320, 160, RED))
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")

    result = fovea(finders_url, command, tmp_path / "photos", "--model", MODELS[command], "--out", out)

    assert result.exit_code == 1, result.stderr  # one is broken
    assert result.stdout == ""
    assert "4 answers" in result.stderr
    assert "1 of them errors" in result.stderr
    assert "1 other file(s) left out" in result.stderr
    entries = lines(out)
    assert entries.pop("broken.jpg")["error"]["code"] in ("broken_image", "not_an_image")
    assert entries.keys() == {"a.png", "deep/er/a.png", "without-suffix"}
    for entry in entries.values():
        assert entry["image"] == {"width": 320, "height": 160}
        assert entry[found]


def test_server_that_is_full_gets_every_picture_in_the_end(tmp_path: Path, out: Path, redis_url: str) -> None:
    settings = ApiSettings(
        _env_file=None,
        home=tmp_path / "home",
        redis_url=redis_url,
        device="cpu",
        offline=True,
        max_images_per_request=4,
        max_pending_images=6,
    )
    (tmp_path / "photos").mkdir()
    for number in range(24):
        (tmp_path / "photos" / f"{number}.png").write_bytes(png(640, 480, RED))
    with running_api(settings) as api:
        publish_compass(api.services.registry)
        flags = ["--model", "compass", "--out", out, "--in-flight", 8]
        result = fovea(f"http://127.0.0.1:{api.port}", "classify", tmp_path / "photos", *flags)

    assert result.exit_code == 0, result.stderr
    assert len(lines(out)) == 24


def test_directory_is_printed_without_out(stub: StubPredictor, photos: Path) -> None:
    (photos / "notes.txt").write_text("no picture")

    result = fovea(stub.url, "classify", photos, "--model", "namer")

    assert result.exit_code == 0, result.stderr
    assert all(path.name in result.stdout for path in photos.rglob("*.jpg"))
    assert "1 other file(s) left out" in result.stderr
    assert {asked.priority for asked in stub.asked} == {"interactive"}


def test_files_that_are_named_keep_their_names_and_are_asked_once(
    stub: StubPredictor, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)

    result = fovea(stub.url, "classify", "a/0.jpg", "./a/0.jpg", "b", "b/1.jpg", "--model", "namer", "--out", out)

    assert result.exit_code == 0, result.stderr
    assert lines(out).keys() == {"a/0.jpg", *(f"b/{number}.jpg" for number in range(1, 12, 2))}


def test_run_that_is_whole_is_not_asked_again(stub: StubPredictor, photos: Path, out: Path) -> None:
    classify(stub, photos, out)
    before = out.read_bytes()

    result = classify(stub, photos, out)

    assert result.exit_code == 0
    assert "None was left to do." in result.stderr
    assert out.read_bytes() == before
    assert len(stub.answered) == 12


def test_new_pictures_are_asked_about_by_the_same_version(stub: StubPredictor, photos: Path, out: Path) -> None:
    classify(stub, photos, out)
    (photos / "new.jpg").write_bytes(b"picture")
    stub.asked.clear()

    result = classify(stub, photos, out)

    assert result.exit_code == 0
    assert stub.answered == ["new.jpg"]
    assert stub.asked[0].params["model"] == ["namer/3"]


def test_torn_last_line_is_cut_and_asked_again(stub: StubPredictor, photos: Path, out: Path) -> None:
    classify(stub, photos, out)
    out.write_bytes(out.read_bytes()[:-30])
    stub.asked.clear()

    result = classify(stub, photos, out)

    assert result.exit_code == 0
    assert len(stub.answered) == 1
    check_all_there(photos, out)


def test_server_gone_for_good_exits_with_3_and_the_same_command_goes_on(
    stub: StubPredictor, photos: Path, out: Path
) -> None:
    def die_after_three(asked: Asked) -> None:
        if len(stub.asked) == 3:
            stub.stop()
            raise CutOff

    stub.decide = die_after_three
    result = classify(stub, photos, out, "--patience", 0.6, "--in-flight", 1)

    assert result.exit_code == 3
    assert "Gave up" in result.stderr
    assert "The same command continues this one." in result.stderr
    assert 0 < len(lines(out)) < 12

    stub.decide = lambda _: None
    stub.start()
    assert classify(stub, photos, out).exit_code == 0
    check_all_there(photos, out)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_run_goes_on_where_it_stopped(
    stub: StubPredictor, photos: Path, out: Path, end: signal.Signals
) -> None:
    is_stuck, goes_on = threading.Event(), threading.Event()

    def stick_after_two(asked: Asked) -> None:
        if len(stub.asked) >= 2:
            is_stuck.set()
            goes_on.wait(PATIENCE_S)

    stub.decide = stick_after_two
    flags = ["--model", "namer", "--out", str(out), "--images-per-request", "2", "--in-flight", "2", "--url", stub.url]
    command = [sys.executable, "-m", "app.cli", "classify", str(photos), *flags]
    with children.child(command, stderr=subprocess.PIPE, text=True) as process:
        assert is_stuck.wait(PATIENCE_S)
        wait_until(lambda: out.read_bytes().count(b"\n") >= 4)
        process.send_signal(end)
        _, said = process.communicate(timeout=PATIENCE_S)
    goes_on.set()

    if end == signal.SIGINT:
        assert process.returncode == 130
        assert "Interrupted. 4 answers are in" in said
        assert "The same command continues this one." in said
        assert "Traceback" not in said
    assert classify(stub, photos, out).exit_code == 0
    check_all_there(photos, out)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--top-k", 2], "--top-k was None and now is 2"),
        (["--category", "ant"], "--category was None and now is ['ant']"),
        (["--model", "other"], "--model was 'namer' and now is 'other'"),
    ],
)
def test_other_question_on_the_same_file_is_refused_with_the_way_out(
    stub: StubPredictor, photos: Path, out: Path, change: list[object], words: str
) -> None:
    classify(stub, photos, out)
    before = out.read_bytes()
    (photos / "new.jpg").write_bytes(b"picture")

    result = classify(stub, photos, out, *change)

    assert result.exit_code == 2
    assert words in result.stderr
    assert "give --out another file" in result.stderr
    assert out.read_bytes() == before


def test_other_command_and_other_directory_are_refused(stub: StubPredictor, photos: Path, out: Path) -> None:
    classify(stub, photos / "a", out)

    assert "directory was" in classify(stub, photos / "b", out).stderr
    result = fovea(stub.url, "segment", photos / "a", "--model", "namer", "--out", out)
    assert "command was 'classify' and now is 'segment'" in result.stderr


def test_version_that_answered_may_be_named_as_such(stub: StubPredictor, photos: Path, out: Path) -> None:
    classify(stub, photos, out)

    assert classify(stub, photos, out, "--model", "namer/3").exit_code == 0


def test_answers_before_the_first_picture_are_kept(stub: StubPredictor, photos: Path, out: Path) -> None:
    stub.decide = lambda asked: None if "0.jpg" in asked.names else Refusal(status=415, code="not_an_image")

    result = classify(stub, photos, out, "--images-per-request", 1)

    assert result.exit_code == 1
    assert "11 of them errors" in result.stderr
    assert json.loads(out.with_name("results.jsonl.question.json").read_bytes())["used"]["version"] == 3


def test_unknown_model_ends_it_before_a_line_is_written(finders_url: str, photos: Path, out: Path) -> None:
    result = fovea(finders_url, "classify", photos, "--model", "nomer", "--out", out)

    assert result.exit_code == 1
    assert "nomer" in result.stderr
    assert out.read_bytes() == b""


def test_full_disk_is_said_and_the_file_stays_whole(stub: StubPredictor, photos: Path, out: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        result = classify(stub, photos, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)

    assert result.exit_code == 1
    assert f"{out} cannot be written: File too large. It has" in result.stderr
    assert "The same command continues this one." in result.stderr
    assert 0 < len(lines(out)) < 12
    assert classify(stub, photos, out).exit_code == 0
    check_all_there(photos, out)


def test_out_that_cannot_be_written_is_refused_before_anything_is_asked(
    stub: StubPredictor, photos: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text("{}\n")
    without_question = tmp_path / "without.jsonl"
    without_question.write_text('{"path": "a/0.jpg"}\n')
    for out, words in (
        (tmp_path / "nowhere" / "results.jsonl", "No such file or directory"),
        (Path("/dev/null"), "is not a regular file"),
        (foreign, "Line 1 of"),
        (without_question, "without.jsonl.question.json with its question is missing"),
    ):
        result = classify(stub, photos, out)
        assert result.exit_code == 1, out
        assert words in result.stderr
        assert "give --out another file" in result.stderr.replace("Give", "give") or out == foreign
    assert classify(stub, photos, tmp_path).exit_code == 2
    assert stub.answered == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_out_without_permission_is_refused(stub: StubPredictor, photos: Path, out: Path) -> None:
    out.touch(mode=0o400)

    result = classify(stub, photos, out)

    assert result.exit_code == 1
    assert "Permission denied" in result.stderr


def test_file_that_another_command_writes_is_refused(stub: StubPredictor, photos: Path, out: Path) -> None:
    with out.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        result = classify(stub, photos, out)

    assert result.exit_code == 1
    assert "Another command is writing to" in result.stderr


def test_question_that_is_damaged_is_refused(stub: StubPredictor, photos: Path, out: Path) -> None:
    classify(stub, photos, out)
    out.with_name("results.jsonl.question.json").write_text("{")

    result = classify(stub, photos, out)

    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


@pytest.mark.parametrize("flag", [["--json"], ["--save", "drawn"]])
def test_out_goes_with_neither_json_nor_save(stub: StubPredictor, photos: Path, out: Path, flag: list[str]) -> None:
    assert classify(stub, photos, out, *flag).exit_code == 2
    assert not out.exists()


def test_directory_without_pictures_is_said(stub: StubPredictor, tmp_path: Path, out: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("no picture")

    assert "There are no images among 1 file(s)." in classify(stub, tmp_path / "photos", out).stderr
    assert fovea(stub.url, "classify", tmp_path / "photos", "--model", "namer").exit_code == 2


def test_file_whose_name_is_no_text_is_found_again(stub: StubPredictor, tmp_path: Path, out: Path) -> None:
    directory = tmp_path / "photos"
    directory.mkdir()
    names = [b"\xff\xfe.jpg", b'quote".jpg', b"line\nbreak.jpg", "\u00fc.jpg".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(directory) + b"/" + name)).write_bytes(b"picture")

    assert classify(stub, directory, out).exit_code == 0
    assert classify(stub, directory, out).exit_code == 0

    assert {os.fsencode(path) for path in lines(out)} == set(names)
    assert len(stub.answered) == 4


def test_results_in_the_directory_itself_are_no_other_files(stub: StubPredictor, photos: Path) -> None:
    out = photos / "results.jsonl"

    for _ in range(2):
        result = classify(stub, photos, out)

        assert result.exit_code == 0
        assert "left out" not in result.stderr
    assert len(lines(out)) == 12
