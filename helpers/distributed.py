"""One run on many processes, which torchrun starts: who is who, what each of them does, and one voice for all."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from datetime import timedelta
from itertools import zip_longest

import torch
import torch.distributed as dist

from .settings import BadArgument, CourseError, best_device, first_line

alone = ContextVar("alone", default=False)  # while rank 0 does something for all


def world() -> int:
    """How many processes work together here; 1 where torchrun started none."""
    together = dist.is_available() and dist.is_initialized() and not alone.get()
    return dist.get_world_size() if together else 1


def rank() -> int:
    """Which of them this is, counted from 0."""
    return dist.get_rank() if world() > 1 else 0


def cores() -> int:
    """How many processor cores this process may use, those of a machine divided among its processes."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


@contextmanager
def group() -> Iterator[None]:
    """Join the processes that torchrun started, for a while. Only rank 0 prints; the first with an error speaks."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # how torchrun ends the others when one has died
    backend = "cpu:gloo,cuda:nccl" if best_device().type == "cuda" and dist.is_nccl_available() else "gloo"
    try:
        store, me, count = next(dist.rendezvous("env://"))
        # The others wait for a day while rank 0 trains a head. A process that dies is noticed at once, not by this.
        dist.init_process_group(backend, store=store, rank=me, world_size=count, timeout=timedelta(days=1))
    except (dist.DistError, ValueError) as error:
        raise CourseError(f"The processes did not find each other ({first_line(error)}). Is the port free?") from error
    try:
        with open(os.devnull, "w") as nowhere:
            out, errors = (nowhere, nowhere) if me else (sys.stdout, sys.stderr)
            with redirect_stdout(out), redirect_stderr(errors):
                check_places()
                yield
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends what is left, but first somebody must tell why
        if (said := spoken(store, error)) is error:
            raise
        raise said from error
    finally:
        dist.destroy_process_group()


def check_places() -> None:
    """Raise BadArgument for more processes than this machine has cores or GPUs; give each its own GPU."""
    mine, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), best_device().type == "cuda"
    places = torch.cuda.device_count() if gpus else os.cpu_count() or 1
    if mine > places:
        what = "GPUs" if gpus else "cores"
        raise BadArgument(f"{mine} processes on {places} {what}. Start torchrun with --nproc-per-node {places}.")
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))


def spoken(store: dist.Store, error: BaseException) -> BaseException:
    """The error, if no other process has spoken yet, else a silent end. Of a process that died, another one tells."""
    if isinstance(error, SystemExit) and not error.code:
        return error
    try:
        store.set(f"left {rank()}", "")
        if store.add("spoken", 1) > 1:
            return SystemExit(1)
        if not isinstance(error, SystemExit | dist.DistError) and "gloo" not in str(error):
            return error
        end = time.monotonic() + 5
        while (dead := [r for r in range(world()) if not store.check([f"left {r}"])]) and time.monotonic() < end:
            time.sleep(0.1)
        who = f"Process {', '.join(map(str, dead))} died" if dead else "The processes were ended from outside"
    except dist.DistError:  # not torchrun keeps the store, but rank 0, and it has gone
        who = "Another process died"
    return CourseError(f"{who}, so all {world()} ended. What is in checkpoints is safe: run again with --resume.")


def gather(item) -> list:
    """The items of all ranks, in order, on all ranks."""
    items = [item] * world()
    if world() > 1:
        dist.all_gather_object(items, item)
    return items


def once(work: Callable):
    """What `work` returns: rank 0 does it alone and tells the others, who wait."""
    if world() == 1:
        return work()
    box, token = [None], alone.set(True)
    try:
        box = [work() if dist.get_rank() == 0 else None]
    finally:
        alone.reset(token)
    dist.broadcast_object_list(box)
    return box[0]


def collected(items: list) -> list:
    """All items, in order, on all ranks: what was dealt out as `items[rank() :: world()]` comes back."""
    return [item for turn in zip_longest(*gather(items)) for item in turn if item is not None]


def in_turn(items: Iterator, count: int) -> Iterator:
    """On rank 0 the `count` items of all ranks, as they were dealt out, one from each at a time; the others give."""
    for _ in range(0, count, world()):
        found = gather(next(items, None))
        yield from (item for item in found if item is not None and rank() == 0)


@contextmanager
def first_here() -> Iterator[None]:
    """One process of each machine does this before the others, which then find it done: a download, for example."""
    waits = int(os.environ.get("LOCAL_RANK", 0)) > 0
    if waits:
        gather(None)
    yield
    if not waits:
        gather(None)


def agree(**facts) -> None:
    """Raise BadArgument, naming it, if one of these differs between processes."""
    first, *others = gather(facts)
    for other, theirs in enumerate(others, start=1):
        for name in first:
            if first[name] != theirs[name]:
                raise BadArgument(f"{name} is {first[name]} in process 0 and {theirs[name]} in process {other}.")
