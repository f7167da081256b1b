"""What `classify_many` does while a server is full, away, restarted or broken, and with files that cannot be read."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from app.client import Client, ClientError, Pace, ProblemError, ServerUnreachable, UnexpectedAnswer
from app.client.patience import Patience, Stopped, backoff_s
from app.client.questions import CLASSIFY
from tests.cli.stub_predictor import Asked, CutOff, Refusal, StubPredictor
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return write_files(tmp_path, 40)


def write_files(directory: Path, count: int) -> list[Path]:
    paths = [directory / f"{number}.jpg" for number in range(count)]
    for path in paths:
        path.write_bytes(b"picture")
    return paths


def labels(stub: StubPredictor, paths: list[Path], pace: Pace | None = None) -> dict[str, str]:
    """For each file what was said of it: its label or its error's code. Each is there once."""
    with Client(stub.url) as client:
        outcomes = list(client.classify_many(paths, model="namer", pace=pace, top_k=1))
    assert sorted(outcome.path for outcome in outcomes) == sorted(paths)
    said = {}
    for outcome in outcomes:
        entry = outcome.prediction
        said[outcome.path.name] = entry.error.code if entry.error else (entry.classes or [])[0].label
    return said


def own_names(paths: list[Path]) -> dict[str, str]:
    return {path.name: path.name for path in paths}


def test_each_file_has_its_own_prediction_once(stub: StubPredictor, pictures: list[Path]) -> None:
    assert labels(stub, pictures) == own_names(pictures)
    assert Counter(stub.answered) == Counter(path.name for path in pictures)
    assert {len(asked.names) for asked in stub.asked} == {8}


def test_no_files_are_no_predictions(stub: StubPredictor) -> None:
    assert labels(stub, []) == {}


def test_requests_are_in_flight_together_on_kept_connections(stub: StubPredictor, tmp_path: Path) -> None:
    all_there = threading.Barrier(3, timeout=PATIENCE_S)
    requests = 0

    def wait_for_the_others(asked: Asked) -> None:
        nonlocal requests
        requests += 1
        if requests > 1:  # the first one finds out which version answers
            all_there.wait()

    stub.decide = wait_for_the_others
    pictures = write_files(tmp_path, 2 * (1 + 6))

    assert labels(stub, pictures, Pace(in_flight=3, images_per_request=2)) == own_names(pictures)

    assert len({asked.connection for asked in stub.asked}) <= 4


def test_files_are_bulk_and_all_asked_of_the_version_that_answered_first(
    stub: StubPredictor, pictures: list[Path]
) -> None:
    labels(stub, pictures)

    assert {asked.priority for asked in stub.asked} == {"bulk"}
    assert [asked.params["model"] for asked in stub.asked] == [["namer"]] + [["namer/3"]] * 4
    assert all(asked.params["top_k"] == ["1"] for asked in stub.asked)


def test_full_server_is_asked_again_after_the_time_it_says(stub: StubPredictor, pictures: list[Path]) -> None:
    refused = iter(range(6))
    waits: list[tuple[str, float]] = []

    def full_at_first(asked: Asked) -> Refusal | None:
        is_full = next(refused, None) is not None
        return Refusal(status=503, code="engine_full", retry_after_s=0.15) if is_full else None

    stub.decide = full_at_first
    with Client(stub.url) as client:
        answers = client.ask_many(
            CLASSIFY, pictures, {"model": "namer"}, on_wait=lambda error, wait_s: waits.append((str(error), wait_s))
        )
        assert sum(len(answered.outcomes) for answered in answers) == len(pictures)

    assert waits == [("It is engine_full.", 0.15)] * 6
    assert Counter(stub.answered) == Counter(path.name for path in pictures)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_proxy_of_a_server_that_is_away_is_waited_for(
    stub: StubPredictor, pictures: list[Path], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.client.asking.backoff_s", lambda tries: 0.1)
    refusals = iter([Refusal(status=status, code="", is_from_proxy=True)])
    stub.decide = lambda _: next(refusals, None)

    assert labels(stub, pictures) == own_names(pictures)


def test_page_of_another_server_ends_it_at_once(stub: StubPredictor, pictures: list[Path]) -> None:
    stub.decide = lambda _: Refusal(status=403, code="", is_from_proxy=True)

    with Client(stub.url) as client, pytest.raises(UnexpectedAnswer, match="403"):
        list(client.classify_many(pictures, model="namer"))


def test_proxy_with_a_smaller_limit_gets_smaller_groups(stub: StubPredictor, pictures: list[Path]) -> None:
    too_large = Refusal(status=413, code="", is_from_proxy=True)
    stub.decide = lambda asked: too_large if len(asked.names) > 3 else None

    assert labels(stub, pictures) == own_names(pictures)


def test_connections_that_break_lose_no_file(stub: StubPredictor, pictures: list[Path]) -> None:
    broken = iter(range(5))

    def breaks_at_first(asked: Asked) -> None:
        if len(asked.names) > 1 and next(broken, None) is not None:
            raise CutOff

    stub.decide = breaks_at_first

    assert labels(stub, pictures) == own_names(pictures)
    assert Counter(stub.answered) == Counter(path.name for path in pictures)


def test_server_that_is_killed_and_started_again_is_waited_for(stub: StubPredictor, pictures: list[Path]) -> None:
    is_away = threading.Event()

    def start_again(failure: ClientError, wait_s: float) -> None:
        if is_away.is_set() and "No Fovea server answers" in str(failure):
            is_away.clear()
            stub.start()

    with Client(stub.url) as client:
        answers = client.ask_many(
            CLASSIFY, pictures, {"model": "namer"}, pace=Pace(in_flight=2, images_per_request=1), on_wait=start_again
        )
        found = [next(answers), next(answers)]
        is_away.set()
        stub.stop()
        found += answers

    assert not is_away.is_set()
    outcomes = [outcome for answered in found for outcome in answered.outcomes]
    assert sorted(outcome.path for outcome in outcomes) == sorted(pictures)
    assert not [outcome for outcome in outcomes if outcome.prediction.error]


def test_server_that_is_gone_for_good_is_given_up(stub: StubPredictor, pictures: list[Path]) -> None:
    with Client(stub.url) as client:
        outcomes = client.classify_many(
            pictures, model="namer", pace=Pace(in_flight=2, images_per_request=1, patience_s=0.6)
        )
        next(outcomes)
        stub.stop()
        with pytest.raises(ServerUnreachable, match=r"Gave up: no request succeeded for 0\.6 s"):
            list(outcomes)


def test_server_that_is_not_there_at_first_is_said_at_once(tmp_path: Path) -> None:
    stub = StubPredictor()

    with Client(stub.url) as client, pytest.raises(ServerUnreachable, match="No Fovea server answers"):
        list(client.classify_many(write_files(tmp_path, 1), model="namer"))


def test_model_that_is_not_there_ends_it_at_once(stub: StubPredictor, pictures: list[Path]) -> None:
    stub.decide = lambda _: Refusal(status=404, code="unknown_model")

    with Client(stub.url) as client, pytest.raises(ProblemError, match="unknown_model"):
        list(client.classify_many(pictures, model="nomer"))


@pytest.mark.parametrize(("status", "code"), [(503, "weights_unavailable"), (503, "proposals_unavailable")])
def test_waiting_in_vain_is_not_tried(stub: StubPredictor, pictures: list[Path], status: int, code: str) -> None:
    retry_after_s = 0.1 if code == "weights_unavailable" else None
    stub.decide = lambda _: Refusal(status=status, code=code, retry_after_s=retry_after_s)

    with Client(stub.url) as client, pytest.raises(ProblemError, match=code):
        list(client.classify_many(pictures, model="resnet18"))


def test_group_without_a_picture_gives_each_its_own_error(stub: StubPredictor, pictures: list[Path]) -> None:
    wrong = {"0.jpg": "not_an_image", "1.jpg": "broken_image", "2.jpg": "image_too_large"}

    def refuse_where_all_are_wrong(asked: Asked) -> Refusal | None:
        codes = [wrong.get(name) for name in asked.names]
        return None if None in codes else Refusal(status=415, code=str(codes[0]))

    stub.decide = refuse_where_all_are_wrong

    said = labels(stub, pictures, Pace(images_per_request=3))

    assert said == own_names(pictures) | wrong


def test_group_that_is_too_much_is_asked_in_parts(stub: StubPredictor, pictures: list[Path]) -> None:
    stub.decide = lambda asked: Refusal(status=413, code="body_too_large") if len(asked.names) > 2 else None

    assert labels(stub, pictures) == own_names(pictures)


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refusal(status=500, code="internal_error"), "internal_error"),
        (Refusal(status=504, code="deadline_exceeded"), "deadline_exceeded"),
        (Refusal(status=507, code="out_of_device_memory"), "out_of_device_memory"),
        (None, "connection_lost"),
    ],
)
def test_picture_that_the_server_fails_on_is_found_and_the_others_answered(
    stub: StubPredictor, pictures: list[Path], refusal: Refusal | None, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.client.asking.backoff_s", lambda tries: 0.1)

    def fail_on_one(asked: Asked) -> Refusal | None:
        if "13.jpg" not in asked.names:
            return None
        if refusal is None:
            raise CutOff
        return refusal

    stub.decide = fail_on_one

    assert labels(stub, pictures) == own_names(pictures) | {"13.jpg": code}


def test_server_that_fails_on_everything_is_given_up(stub: StubPredictor, pictures: list[Path]) -> None:
    stub.decide = lambda _: Refusal(status=500, code="internal_error")

    with Client(stub.url) as client, pytest.raises(ServerUnreachable, match="Gave up"):
        list(client.classify_many(pictures, model="namer", pace=Pace(patience_s=0.3)))


def test_too_many_faults_in_a_row_are_the_servers() -> None:
    patience = Patience(1.0)
    for _ in range(16):
        patience.fault(ClientError("It broke."))
    patience.answered()
    for _ in range(16):
        patience.fault(ClientError("It broke."))

    with pytest.raises(ServerUnreachable, match="16 images in a row"):
        patience.fault(ClientError("It broke."))


def test_patience_is_renewed_by_any_answer() -> None:
    now = 0.0
    patience = Patience(10.0, now=lambda: now)
    patience.wait(ClientError("busy"), 0.1)
    now = 9.95
    with pytest.raises(ServerUnreachable, match="The last reason: busy"):
        patience.wait(ClientError("busy"), 0.1)

    patience.answered()

    patience.wait(ClientError("busy"), 0.1)


def test_wait_longer_than_the_patience_is_not_begun() -> None:
    with pytest.raises(ServerUnreachable):
        Patience(120.0).wait(ClientError("busy"), 3600.0)


def test_wait_ends_when_nobody_listens_any_more() -> None:
    patience = Patience(3600.0)
    patience.stop()

    with pytest.raises(Stopped):
        patience.wait(ClientError("busy"), 1800.0)


def test_backoff_doubles_up_to_five_seconds() -> None:
    assert [backoff_s(tries) for tries in (1, 2, 3, 4, 5, 10_000)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_file_that_cannot_be_read_is_an_error_and_not_the_end(stub: StubPredictor, pictures: list[Path]) -> None:
    pictures[3].unlink()
    pictures[5].unlink()
    pictures[5].symlink_to(pictures[5])
    pictures[7].write_bytes(bytes(32_001))

    said = labels(stub, pictures)

    wrong = {"3.jpg": "unreadable_file", "5.jpg": "unreadable_file", "7.jpg": "image_too_large"}
    assert said == own_names(pictures) | wrong
    assert not set(wrong) & set(stub.answered)


def test_requests_stay_below_the_servers_limit_of_bytes(stub: StubPredictor, tmp_path: Path) -> None:
    pictures = write_files(tmp_path, 8)
    for picture in pictures:
        picture.write_bytes(bytes(20_000))

    assert labels(stub, pictures) == own_names(pictures)
    assert {len(asked.names) for asked in stub.asked} == {2, 3}


def test_who_stops_listening_leaves_no_thread(stub: StubPredictor, pictures: list[Path]) -> None:
    with Client(stub.url) as client:
        outcomes = client.classify_many(pictures, model="namer", pace=Pace(images_per_request=1))
        for _ in range(3):
            next(outcomes)
        outcomes.close()  # type: ignore[attr-defined]  # a generator, as its users know by `for`

        wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "bulk"])


@pytest.mark.parametrize(
    "values", [{"in_flight": 0}, {"in_flight": 65}, {"images_per_request": 0}, {"patience_s": float("nan")}]
)
def test_pace_that_is_none_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Pace(**values)
