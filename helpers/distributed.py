"""One run on many processes, which torchrun starts: who is who, what each of them does, and one voice for all."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar, copy_context
from datetime import timedelta
from itertools import zip_longest

import torch
import torch.distributed as dist

from .settings import BadArgument, CourseError, best_device, first_line

alone = ContextVar("alone", default=False)  # while rank 0 does something for all


def world() -> int:
    """How many processes work together here; 1 where torchrun started none."""
    return dist.get_world_size() if dist.is_initialized() and not alone.get() else 1


def rank() -> int:
    """Which of them this is, counted from 0."""
    return dist.get_rank() if world() > 1 else 0


def how_many(name: str) -> int:
    """What torchrun says in an environment variable; 1 where it says nothing."""
    return int(os.environ.get(name) or 1)


def cores() -> int:
    """How many processor cores this process may use, those of a machine divided among its processes."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // how_many("LOCAL_WORLD_SIZE"))


@contextmanager
def group() -> Iterator[None]:
    """Join the processes that torchrun started, for a while. Only rank 0 prints; the first with an error speaks."""
    if how_many("WORLD_SIZE") == 1:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # how torchrun ends the others when one has died
    on_cpu = not torch.cuda.is_available() or os.environ.get("COURSE_DEVICE", "").startswith("cpu")
    backend = "gloo" if on_cpu or not dist.is_nccl_available() else "cpu:gloo,cuda:nccl"
    try:
        store, me, count = next(dist.rendezvous("env://"))
        # The others wait for a day while rank 0 trains a head. A process that dies is noticed at once, not by this.
        dist.init_process_group(backend, store=store, rank=me, world_size=count, timeout=timedelta(days=1))
    except (dist.DistError, ValueError) as error:
        reason = first_line(error)
        raise CourseError(f"The processes did not find each other ({reason}). Start them with torchrun.") from error
    try:
        with open(os.devnull, "w") as nowhere:
            out, errors = (nowhere, nowhere) if me else (sys.stdout, sys.stderr)
            with redirect_stdout(out), redirect_stderr(errors):
                check_places()
                yield
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends what is left, but first somebody must tell why
        speak(store, error)
        raise
    finally:
        dist.destroy_process_group()


def check_places() -> None:
    """Raise BadArgument for more processes than this machine has GPUs or cores; give each its own GPU."""
    mine, device = how_many("LOCAL_WORLD_SIZE"), best_device().type
    places = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device, os.cpu_count() or 1)
    if mine > places:
        what, more = ("core", "") if device == "cpu" else ("GPU", ", or set COURSE_DEVICE=cpu")
        found = f"{mine} processes on {places} {what}{'s' * (places > 1)}"
        raise BadArgument(f"{found}. Start torchrun with --nproc-per-node {places}{more}.")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))


def speak(store: dist.Store, error: BaseException) -> None:
    """Raise a silent end, unless this process is the first to tell its error. Of one that died, another one tells."""
    if isinstance(error, SystemExit) and not error.code:
        return
    # Only torch's own errors: a file may be called igloo.jpg.
    lost = isinstance(error, SystemExit | dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error))
    dead, who = [], "The processes were ended from outside"
    try:
        store.set(f"left {rank()}", "")
        if store.add("spoken", 1) > 1:
            raise SystemExit(1)
        if not lost:
            return
        end = time.monotonic() + 5
        while (dead := [r for r in range(world()) if not store.check([f"left {r}"])]) and time.monotonic() < end:
            time.sleep(0.1)
    except dist.DistError:  # who kept the store has gone: rank 0, or the torchrun of its machine
        who = "Another process died"
    if dead:
        who = f"Process {', '.join(map(str, dead))} died"
    raise CourseError(f"{who}, so all {world()} ended. What is in checkpoints is safe: run again with --resume.")


def gather(item) -> list:
    """The items of all ranks, in order, on all ranks."""
    items = [item] * world()
    if world() > 1:
        dist.all_gather_object(items, item)
    return items


def once(work: Callable):
    """What `work` returns: rank 0 does it alone and tells the others, who wait."""
    context = copy_context()
    context.run(alone.set, True)
    box = [context.run(work) if rank() == 0 else None]
    if world() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def collected(items: list) -> list:
    """All items, in order, on all ranks: what was dealt out as `items[rank() :: world()]` comes back."""
    return [item for turn in zip_longest(*gather(items)) for item in turn if item is not None]


def agree(**facts) -> None:
    """Raise BadArgument, naming it, if one of these differs between processes."""
    everyone = gather(facts)
    for name, first in everyone[0].items():
        for other, theirs in enumerate(everyone):
            if theirs[name] != first:
                raise BadArgument(f"{name} is {first} in process 0 and {theirs[name]} in process {other}.")
