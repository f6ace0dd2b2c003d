"""Some processes that work together, as torchrun starts them, but forked from the test: they are there at once."""

import faulthandler
import multiprocessing
import os
import socket
import sys
import time
from dataclasses import dataclass

import torch
from torch.distributed import TCPStore

PATIENCE = 120  # seconds, on a machine that does other things too


@dataclass
class End:
    """How a process ended, and what it printed."""

    status: int  # negative: the signal that killed it
    out: str
    err: str


def together(work, folder, world=2):
    """`work` gives an exit status, in so many processes; how each of them ended. None may hang."""
    folder.mkdir(parents=True, exist_ok=True)
    fork, door = multiprocessing.get_context("fork"), socket.create_server(("127.0.0.1", 0))
    port = door.getsockname()[1]
    processes = [fork.Process(target=be, args=(rank, world, port, folder, work)) for rank in range(world)]
    for process in processes:
        process.start()
    # Only now: a process forked while the store's threads look up a name would wait for that lookup for ever.
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=door.detach())
    end = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0, end - time.monotonic()))
    hung = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for rank in hung:
        processes[rank].kill()
        processes[rank].join()
    said = [[(folder / f"{rank}.{name}").read_text() for name in ("out", "err")] for rank in range(world)]
    ends = [End(process.exitcode, *texts) for process, texts in zip(processes, said, strict=True)]
    del store
    assert not hung, f"processes {hung} did not end: {ends}"
    return ends


def be(rank, world, port, folder, work):
    """Become one of them."""
    torch.set_num_threads(1)  # threads that the test has started are not there after a fork
    numbers = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    numbers |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}  # the test keeps the store
    os.environ |= {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}
    with open(folder / f"{rank}.out", "w", 1) as sys.stdout, open(folder / f"{rank}.err", "w", 1) as sys.stderr:
        faulthandler.dump_traceback_later(PATIENCE - 10, file=sys.stderr)  # where one that hangs is
        try:
            sys.exit(work())
        finally:
            faulthandler.cancel_dump_traceback_later()
