"""Redis, the API and a worker as child processes: started in order, watched, stopped in the reverse order."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from app.processes.address import base_url, check_port, free_port
from app.processes.child import Child, start_child
from app.processes.errors import ChildDied, HomeNotWritable, StackError
from app.processes.home import lock_home
from app.processes.redis_server import RedisPlan, find_redis_server, prepare, wait_until_answering
from app.processes.screen import Screen
from app.settings import ApiSettings
from workers.supervision.child_process import code_environment

_LONGEST_BACKOFF_S = 30.0
_STABLE_AFTER_S = 60.0
_STILL_WAITING_AFTER_S = 20.0
_API_GRACE_S = 15.0
_REDIS_GRACE_S = 15.0
_WORKER_GRACE_S = 75.0  # a trainer may take a minute to write its checkpoint


def run_up(settings: ApiSettings, *, flags: Mapping[str, str], screen: Screen | None = None) -> int:
    """Runs everything until a signal or a death. Returns 0 after Ctrl-C or SIGTERM, 1 if the API or Redis ended.

    flags: the settings given on the command line, as text, for the children. Raises StackError if it cannot start.
    """
    port = settings.port or free_port(settings.host)
    check_port(settings.host, port)
    # Without FOVEA_REDIS_URL an embedded Redis is started.
    plan = None if "redis_url" in settings.model_fields_set else _plan_redis(settings.home)
    url = base_url(settings.host, port)
    lock = lock_home(settings.home, url=url)
    try:
        if plan:
            _prepare(plan)
        stack = Stack(
            env=child_environment(flags, port=port, redis_url=plan.url if plan else None),
            redis=plan,
            url=url,
            home=settings.home,
            lock_descriptor=lock.descriptor,
            programs={name: [sys.executable, "-m", "app.cli", name] for name in ("serve", "worker")},
            worker_grace_s=settings.cancel_grace_s + _WORKER_GRACE_S,
            screen=screen or Screen(),
        )
        return asyncio.run(stack.run())
    finally:
        lock.release()


class Stack:
    """The processes of one `fovea up`."""

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        redis: RedisPlan | None,
        url: str,
        home: Path,
        lock_descriptor: int,
        programs: Mapping[str, Sequence[str]],
        worker_grace_s: float,
        screen: Screen,
    ) -> None:
        self._env = env
        self._redis_plan = redis
        self._url = url
        self._home = home
        self._lock_descriptor = lock_descriptor
        self._programs = programs
        self._worker_grace_s = worker_grace_s
        self._screen = screen
        self._children: dict[str, Child] = {}
        self._is_ending = False
        self._is_impatient = False

    async def run(self) -> int:
        """Runs until a signal or a death, then stops everything. Returns the exit code."""
        life = asyncio.current_task()
        assert life is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, life)
        try:
            code = await self._until_over(life)
        finally:
            self._is_ending = True
            await self._take_down()
        self._screen.say("Stopped.")
        return code

    async def _until_over(self, life: asyncio.Task[object]) -> int:
        try:
            try:
                await self._live()
            except* StackError as deaths:
                for death in deaths.exceptions:
                    self._screen.complain(str(death))
        except asyncio.CancelledError:
            life.uncancel()
            self._screen.say("Stopping. Press Ctrl-C again to kill.")
            return 0
        return 1

    def _on_signal(self, life: asyncio.Task[object]) -> None:
        if not self._is_ending:
            self._is_ending = True
            life.cancel()
            return
        self._is_impatient = True
        for child in self._children.values():
            child.kill()

    async def _live(self) -> None:
        if self._redis_plan:
            await self._start_redis(self._redis_plan)
        await self._start_fovea("api", "serve")
        async with asyncio.TaskGroup() as group:
            for name in list(self._children):
                group.create_task(self._mourn(name))
            group.create_task(self._keep_worker())
            group.create_task(self._announce())

    async def _start_redis(self, plan: RedisPlan) -> None:
        child = await start_child(
            "redis",
            plan.argv,
            env=self._env,
            output=self._screen.relay,
            standard_input=plan.config,
            directory=plan.directory,
            keep_open=[self._lock_descriptor],
        )
        self._children["redis"] = child
        async with asyncio.TaskGroup() as group:
            death = group.create_task(self._mourn("redis"))
            await wait_until_answering(plan)
            death.cancel()

    async def _start_fovea(self, name: str, command: str) -> Child:
        child = await start_child(
            name,
            self._programs[command],
            env=self._env,
            output=self._screen.relay,
            keep_open=[self._lock_descriptor],
        )
        self._children[name] = child
        return child

    async def _mourn(self, name: str) -> None:
        code = await self._children[name].ended()
        raise ChildDied(f"{name} ended by itself ({_ending(code)}); everything else is stopped.")

    async def _keep_worker(self) -> None:
        backoff_s = 1.0
        while True:
            started = time.monotonic()
            child = await self._start_fovea("worker", "worker")
            code = await child.ended()
            child.kill()
            if time.monotonic() - started > _STABLE_AFTER_S:
                backoff_s = 1.0
            self._screen.complain(f"worker ended by itself ({_ending(code)}); it restarts in {backoff_s:.0f} s.")
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _announce(self) -> None:
        started = warned = time.monotonic()
        async with httpx.AsyncClient(base_url=self._url, timeout=5, trust_env=False) as client:
            while (answer := await _readiness(client)) != "ready":
                if time.monotonic() - warned > _STILL_WAITING_AFTER_S:
                    warned = time.monotonic()
                    self._screen.complain(f"Not ready after {warned - started:.0f} s, and still waiting: {answer}")
                # A server that answers "not ready" is asked less often than one that does not answer yet.
                await asyncio.sleep(0.05 if answer.startswith("no answer") else 0.5)
        self._screen.banner(
            {
                "API": self._url,
                "Swagger UI": f"{self._url}/docs",
                "Home": str(self._home.absolute()),
                "Redis": f"embedded, {self._redis_plan.program}" if self._redis_plan else "from FOVEA_REDIS_URL",
            }
        )

    async def _take_down(self) -> None:
        """Stops the worker first, so that it can hand back its job, and Redis last, so that everything is written."""
        for name, grace_s in (("worker", self._worker_grace_s), ("api", _API_GRACE_S), ("redis", _REDIS_GRACE_S)):
            if child := self._children.get(name):
                await child.stop(grace_s=0 if self._is_impatient else grace_s)


async def _readiness(client: httpx.AsyncClient) -> str:
    try:
        answer = await client.get("/readyz")
    except httpx.TransportError as error:
        return f"no answer yet ({type(error).__name__})"
    return "ready" if answer.is_success else f"{answer.status_code} {answer.text[:500]}"


def _plan_redis(home: Path) -> RedisPlan:
    return RedisPlan(program=find_redis_server(), directory=home / "redis")


def _prepare(plan: RedisPlan) -> None:
    try:
        prepare(plan)
    except OSError as error:
        raise HomeNotWritable(
            f"Nothing can be written to {plan.directory.absolute()} ({error.strerror}).",
            hint="Choose another directory with --home (FOVEA_HOME).",
        ) from error


def child_environment(flags: Mapping[str, str], *, port: int, redis_url: str | None) -> dict[str, str]:
    """This process's environment with the flags added, so that children get the same settings."""
    env = code_environment()
    env.update({f"FOVEA_{name}".upper(): str(value) for name, value in flags.items()})
    env["FOVEA_PORT"] = str(port)
    if redis_url:
        env["FOVEA_REDIS_URL"] = redis_url
    return env


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
