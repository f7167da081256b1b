"""The parts of `fovea up`, each alone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from app.processes.address import base_url, check_port, free_port
from app.processes.child import Child, start_child
from app.processes.errors import HomeInUse, HomeNotWritable, PortTaken, RedisMissing
from app.processes.home import lock_home
from app.processes.redis_server import RedisPlan, find_redis_server, prepare, wait_until_answering
from tests import children
from tests.cli.processes import running_in_group
from tests.waiting import BRIEF_S, PATIENCE_S, wait_until

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)


def test_taken_port_is_refused_with_the_flag_to_change_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortTaken) as caught:
        check_port("127.0.0.1", taken.getsockname()[1])

    assert caught.value.hint is not None
    assert "--port" in caught.value.hint


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(PortTaken):
        check_port(host, free_port())


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80")],
)
def test_server_on_every_interface_is_reached_by_loopback(host: str, url: str) -> None:
    assert base_url(host, 80) == url


def test_home_that_is_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "home").touch()

    with pytest.raises(HomeNotWritable, match="home"):
        lock_home(tmp_path / "home", url="http://x")


def test_home_in_use_names_the_process_and_its_address(tmp_path: Path) -> None:
    lock = lock_home(tmp_path, url="http://127.0.0.1:8123")
    try:
        with pytest.raises(HomeInUse, match=rf"process {os.getpid()}.*http://127.0.0.1:8123"):
            lock_home(tmp_path, url="http://x")
    finally:
        lock.release()


def test_home_is_free_again_once_released(tmp_path: Path) -> None:
    lock_home(tmp_path, url="http://x").release()

    lock_home(tmp_path, url="http://x").release()


def test_home_of_a_killed_process_is_waited_for_until_its_children_are_gone(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys, os
from pathlib import Path
from app.processes.home import lock_home
lock = lock_home(Path({str(tmp_path)!r}), url="http://x")
null = subprocess.DEVNULL
subprocess.Popen(["sleep", "0.5"], stdout=null, stderr=null, start_new_session=True, pass_fds=[lock.descriptor])
os._exit(9)
"""
    children.run([sys.executable, "-c", code], check=False)

    lock_home(tmp_path, url="http://y").release()


def test_server_on_the_path_goes_before_the_one_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "valkey-server"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_redis_server() == program


def test_no_server_anywhere_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(RedisMissing) as caught:
        find_redis_server()

    assert caught.value.hint is not None
    assert "apt-get install redis-server" in caught.value.hint
    assert "fovea[embedded]" in caught.value.hint


@pytest.fixture
def plan(tmp_path: Path) -> RedisPlan:
    plan = RedisPlan(program=find_redis_server(), directory=tmp_path / "redis")
    prepare(plan)
    return plan


def test_embedded_redis_keeps_what_was_written_when_it_is_killed(plan: RedisPlan) -> None:
    async def scenario() -> bytes | None:
        child = await _start_redis(plan)
        with redis.Redis.from_url(plan.url) as client:
            client.set("job", "1")
        child.kill()
        await child.ended()
        child = await _start_redis(plan)
        try:
            with redis.Redis.from_url(plan.url) as client:
                value: bytes | None = client.get("job")
                return value
        finally:
            await child.stop(grace_s=PATIENCE_S)

    assert asyncio.run(scenario()) == b"1"


def test_embedded_redis_never_evicts_and_writes_as_it_goes(plan: RedisPlan) -> None:
    async def scenario() -> dict[str, str]:
        child = await _start_redis(plan)
        try:
            with redis.Redis.from_url(plan.url, decode_responses=True) as client:
                names = ("maxmemory-policy", "appendonly", "appendfsync", "bind")
                return {name: client.config_get(name)[name] for name in names}
        finally:
            await child.stop(grace_s=PATIENCE_S)

    config = asyncio.run(scenario())

    assert config == {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "bind": "127.0.0.1",
    }


def test_embedded_redis_is_closed_to_other_users_of_the_machine(plan: RedisPlan) -> None:
    async def scenario() -> bytes:
        child = await _start_redis(plan)
        try:
            with socket.create_connection(("127.0.0.1", plan.port)) as stranger:
                stranger.sendall(b"PING\r\n")
                return stranger.recv(100)
        finally:
            await child.stop(grace_s=PATIENCE_S)

    assert asyncio.run(scenario()).startswith(b"-NOAUTH")
    note = plan.directory / "url"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert note.read_text().strip() == plan.url
    assert plan.password not in repr(plan)
    assert plan.password not in " ".join(plan.argv)


def test_lines_of_a_child_are_handed_on_whole_with_its_name() -> None:
    lines = _run_child("print('one'); print('t', end='', flush=True); print('wo'); print('three', end='')")

    assert lines == [("api", "one"), ("api", "two"), ("api", "three")]


def test_endless_line_of_a_child_is_cut_not_kept() -> None:
    lines = _run_child("print('x' * 300_000)")

    assert sum(len(line) for _, line in lines) == 300_000
    assert len(lines) > 1


def test_child_that_ignores_the_asking_is_killed_with_its_children() -> None:
    async def scenario() -> tuple[int, int]:
        code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]).wait()"
        lines: asyncio.Queue[str] = asyncio.Queue()
        child = await _start(code, lambda _, line: lines.put_nowait(line))
        await asyncio.wait_for(lines.get(), PATIENCE_S)
        return child.pid, await child.stop(grace_s=BRIEF_S)

    pid, code = asyncio.run(scenario())

    assert code == -signal.SIGTERM
    wait_until(lambda: not running_in_group(pid))


def test_child_dies_with_a_parent_that_is_killed() -> None:
    code = f"""
import asyncio, sys
from app.processes.child import start_child
async def main():
    argv = [sys.executable, "-c", {STUBBORN!r}]
    child = await start_child("x", argv, env={{}}, output=lambda name, line: print(child.pid, flush=True))
    await child.ended()
asyncio.run(main())
"""
    with children.child([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()

    wait_until(lambda: not running_in_group(pid))


def _run_child(code: str) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []

    async def scenario() -> None:
        child = await _start(code, lambda name, line: lines.append((name, line)))
        await child.ended()

    asyncio.run(scenario())
    return lines


async def _start(code: str, output: object) -> Child:
    return await start_child("api", [sys.executable, "-c", code], env=os.environ, output=output)  # type: ignore[arg-type]


async def _start_redis(plan: RedisPlan) -> Child:
    child = await start_child(
        "redis",
        plan.argv,
        env=os.environ,
        output=lambda name, line: None,
        standard_input=plan.config,
        directory=plan.directory,
    )
    await wait_until_answering(plan)
    return child
