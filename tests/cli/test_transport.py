"""What the client does when requests go wrong."""

from __future__ import annotations

import httpx
import pytest

from app.client import Client, ProblemError, ServerUnreachable, UnexpectedAnswer
from app.client.transport import Call
from app.processes.address import free_port
from tests.cli.answers import ScriptedServer, problem
from workers.configs.fine_tune import FineTuneConfig

SYSTEM = Call(method="GET", path="/v1/system")
CONFIG = FineTuneConfig(model="resnet18", dataset="ants-bees")


def test_problem_details_become_an_error_with_all_their_parts() -> None:
    server = ScriptedServer(problem(404, "unknown_model", hint="Registered models: digits."))

    with pytest.raises(ProblemError) as caught:
        server.client().models.get("digitz")

    error = caught.value
    assert (error.status, error.code, error.detail) == (404, "unknown_model", "It is unknown_model.")
    assert (error.hint, error.request_id) == ("Registered models: digits.", "r-1")


def test_problem_with_several_faults_lists_each() -> None:
    errors = [
        {"field": "hyperparameters.epochs", "where": "body", "message": "too small"},
        {"field": "model", "where": "body", "message": "no such model"},
    ]
    server = ScriptedServer(problem(422, "invalid_request", errors=errors))

    with pytest.raises(ProblemError) as caught:
        server.client().models.get("digits")

    assert caught.value.details == ("hyperparameters.epochs: too small", "model: no such model")


def test_error_page_of_a_proxy_is_an_unexpected_answer() -> None:
    server = ScriptedServer(httpx.Response(502, text="<html>Bad Gateway</html>"))

    with pytest.raises(UnexpectedAnswer, match="502 Bad Gateway without a reason"):
        server.client().models.get("digits")


def test_answer_of_another_server_is_an_unexpected_answer() -> None:
    server = ScriptedServer(httpx.Response(200, text="Welcome to nginx!"))

    with pytest.raises(UnexpectedAnswer, match="cannot read"):
        server.client().models.get("digits")


def test_nobody_listening_is_said_at_once_with_the_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    with Client(url) as client, pytest.raises(ServerUnreachable, match=url) as caught:
        client.system()

    assert caught.value.hint is not None
    assert "fovea up" in caught.value.hint


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://", "ftp://fovea", "http://host:port"])
def test_address_that_is_none_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ServerUnreachable) as caught:
        Client(url)

    assert caught.value.hint == "Write it as http://127.0.0.1:8000."


def test_creating_post_that_broke_off_is_sent_again_under_the_same_key() -> None:
    server = ScriptedServer(httpx.ReadError("reset"), problem(422, "invalid_job"))

    with pytest.raises(ProblemError):
        server.client().jobs.create(CONFIG)

    first, second = (request.headers["Idempotency-Key"] for request in server.requests)
    assert first == second


def test_two_creating_posts_have_different_keys() -> None:
    server = ScriptedServer(problem(422, "invalid_job"), problem(422, "invalid_job"))
    client = server.client()

    for _ in range(2):
        with pytest.raises(ProblemError):
            client.jobs.create(CONFIG)

    first, second = (request.headers["Idempotency-Key"] for request in server.requests)
    assert first != second


def test_first_try_still_in_progress_is_waited_for_beyond_the_retries() -> None:
    in_progress = [problem(409, "request_in_progress", retry_after_s=1) for _ in range(6)]
    server = ScriptedServer(httpx.ReadError("reset"), *in_progress, problem(422, "invalid_job"))

    with pytest.raises(ProblemError) as caught:
        server.client(retries=1).jobs.create(CONFIG)

    assert caught.value.code == "invalid_job"


def test_busy_server_is_asked_again_when_it_says_so() -> None:
    server = ScriptedServer(problem(503, "engine_full", retry_after_s=1), problem(404, "unknown_model"))

    with pytest.raises(ProblemError) as caught:
        server.client().classify(b"", model="digits")

    assert caught.value.code == "unknown_model"


def test_server_that_is_away_for_long_is_not_waited_for() -> None:
    server = ScriptedServer(problem(503, "weights_unavailable", retry_after_s=60))

    with pytest.raises(ProblemError):
        server.client().classify(b"", model="resnet18")

    assert len(server.requests) == 1


def test_post_that_acts_on_a_job_is_not_repeated() -> None:
    server = ScriptedServer(httpx.ReadError("reset"))

    with pytest.raises(ServerUnreachable, match="was lost"):
        server.client().jobs.cancel("job-1")

    assert len(server.requests) == 1


def test_name_with_a_slash_stays_one_segment_of_the_path() -> None:
    server = ScriptedServer(problem(422, "invalid_name"))

    with pytest.raises(ProblemError):
        server.client().datasets.get("../secrets")

    assert server.requests[0].url.raw_path == b"/v1/datasets/..%2Fsecrets"


def test_job_request_holds_only_what_was_said() -> None:
    server = ScriptedServer(problem(422, "invalid_job"))

    with pytest.raises(ProblemError):
        server.client().jobs.create(CONFIG)

    assert httpx.Response(200, content=server.requests[0].content).json() == {
        "type": "fine_tune",
        "model": "resnet18",
        "dataset": "ants-bees",
    }


def test_pages_are_followed_to_the_last() -> None:
    def page(names: list[str], following: str | None) -> httpx.Response:
        data = [{"name": name, "versions": [1], "aliases": {}, "latest": MANIFEST | {"name": name}} for name in names]
        return httpx.Response(200, json={"data": data, "has_more": following is not None, "next": following})

    server = ScriptedServer(page(["a", "b"], "b"), page(["c"], None))

    assert [model.name for model in server.client().models.list()] == ["a", "b", "c"]
    assert server.requests[1].url.params["after"] == "b"


MANIFEST = {
    "name": "a",
    "version": 1,
    "created_at": "2026-01-01T00:00:00Z",
    "architecture": "garment_classifier",
    "categories": ["x", "y"],
    "preset": {"channels": 1, "resize_px": 28, "crop_px": 28, "mean": [0.5], "std": [0.5]},
    "parameters": 1,
    "size_bytes": 1,
    "sha256": "0",
}
