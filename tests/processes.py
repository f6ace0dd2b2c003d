"""Some processes that work together, as torchrun starts them, but forked from the test: they are there at once."""

import multiprocessing
import os
import sys
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
    fork, store = multiprocessing.get_context("fork"), TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [fork.Process(target=be, args=(rank, world, store.port, folder, work)) for rank in range(world)]
    for process in processes:
        process.start()
    ends = []
    for rank, process in enumerate(processes):
        process.join(PATIENCE)
        hung = process.is_alive()
        if hung:
            process.kill()
            process.join()
        said = [(folder / f"{rank}.{name}").read_text() for name in ("out", "err")]
        assert not hung, f"process {rank} did not end: {said}"
        ends.append(End(process.exitcode, *said))
    return ends


def be(rank, world, port, folder, work):
    """Become one of them."""
    torch.set_num_threads(1)  # threads that the test has started are not there after a fork
    numbers = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    numbers |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}  # the test keeps the store
    os.environ |= {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}
    with open(folder / f"{rank}.out", "w") as sys.stdout, open(folder / f"{rank}.err", "w") as sys.stderr:
        sys.exit(work())
