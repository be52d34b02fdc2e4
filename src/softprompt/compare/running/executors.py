"""Runs jobs in this process, in processes of this machine, or on a Ray cluster.

An executor yields results as they come: (job's number, result or exception). This file knows no trials.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar, final

from ..._system.quiet import own_process
from ..._system.threads import wait_quietly
from ...errors import SoftPromptError
from . import main_script

J = TypeVar("J")
Work = Callable[[Any], Any]
RETRIES = (
    2  # of a job whose worker on a cluster died; Ray's own count would have no end where memory runs out
)


class Executor(Protocol):
    """Runs jobs, in any order."""

    workers: int

    def run(self, work: Work, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield each job's number, and the result of `work` or the exception that ended it."""
        ...

    def close(self) -> None:
        """End the processes that it started; of running jobs only the checkpoints are kept."""
        ...


class Lost(Exception):
    """A process ended without a result: it was killed, or out of memory."""


@final
class Serial:
    """Runs jobs in this process, one after another: for tests and debuggers."""

    workers = 1

    def run(self, work: Work, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for number, job in enumerate(jobs):
            try:
                result = work(job)
            except Exception as error:
                result = error
            yield number, result

    def close(self) -> None:
        pass


@final
class Local:
    """Runs jobs in `workers` processes of `threads` threads. One that dies loses its own job only."""

    def __init__(self, workers: int, threads: int) -> None:
        self.workers, self._threads = workers, threads
        self._pools: list[ProcessPoolExecutor | None] = [None] * workers
        self._context = main_script.context()  # a fork would inherit torch's threads

    def run(self, work: Work, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        for number in range(len(jobs)):
            waiting.put(number)
        stop = threading.Event()

        def feed(worker: int) -> None:
            while not stop.is_set():
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                done.put((number, self._run_job(worker, work, jobs[number])))

        count = min(self.workers, len(jobs))
        feeders = [threading.Thread(target=feed, args=(w,), daemon=True) for w in range(count)]
        for feeder in feeders:
            feeder.start()
        try:
            for _ in jobs:
                yield done.get()
        finally:
            stop.set()

    def _run_job(self, worker: int, work: Work, job: Any) -> Any:
        # a pool of one, so that the job that ended a process is known
        pool = self._pools[worker]
        if pool is None:
            pool = ProcessPoolExecutor(1, self._context, initializer=_begin, initargs=(self._threads,))
            self._pools[worker] = pool
        try:
            return pool.submit(work, job).result()
        except BrokenProcessPool:
            self._pools[worker] = None
            return Lost("the process that ran it ended without a result")
        except Exception as error:
            return error

    def close(self) -> None:
        for pool in self._pools:
            if pool is None:
                continue
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
        self._pools = [None] * self.workers


def _begin(threads: int) -> None:
    """Set up a new process, before torch is loaded."""
    # Ctrl-C reaches the whole group: the parent decides what ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    wait_quietly()
    own_process()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent ends: a killed parent cannot end its children."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@final
class Ray:
    """Runs jobs as tasks of a Ray cluster (`ray.init(address)`), which must see the same folders.

    A job whose worker dies runs again, on another worker, up to `RETRIES` times.
    """

    def __init__(self, threads: int, workers: int | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise SoftPromptError(
                "compare.executor=ray needs ray", "it is not installed", "pip install 'softprompt[ray]'"
            ) from None
        self._ray, self._threads = ray, threads
        if not ray.is_initialized():
            with contextlib.redirect_stdout(None):
                # the address of a running cluster is in RAY_ADDRESS; else one of this machine is started
                ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        cores = int(ray.cluster_resources().get("CPU", 1))
        self.workers = workers or max(1, cores // threads)

    def run(self, work: Work, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        ray = self._ray
        environment = {"env_vars": {"OMP_NUM_THREADS": str(self._threads)}}
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(num_cpus=self._threads, num_gpus=gpus, max_retries=0, runtime_env=environment)(
            work
        )
        waiting = list(range(len(jobs)))[::-1]
        running: dict[Any, int] = {}
        lost = [0] * len(jobs)
        while waiting or running:
            while waiting and len(running) < self.workers:
                number = waiting.pop()
                running[remote.remote(jobs[number])] = number
            (ready, *_), _ = ray.wait(list(running))
            number = running.pop(ready)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                result = error.cause if isinstance(error.cause, Exception) else error
            except ray.exceptions.RayError as error:
                lost[number] += 1
                if lost[number] <= RETRIES:
                    waiting.append(number)
                    continue
                result = Lost(str(error).splitlines()[0])
            yield number, result

    def close(self) -> None:
        self._ray.shutdown()


def executor(kind: str, workers: int | None, threads: int | None) -> Executor:
    """Return the executor that the recipe's `compare` section names; by default one process for two cores."""
    from ..._system.threads import from_environment, right_number

    cores = right_number()
    if kind == "ray":
        return Ray(threads or 2 if cores > 1 else 1, workers)
    count = workers or max(1, cores // (threads or 2))
    return Local(count, threads or from_environment() or max(1, cores // count))
