"""What tools that share a training among processes do with 501 images, by their defaults; write `results/`.

python -m benchmarks.sharing            measure all and write the table; makes a virtual environment for each tool
python -m benchmarks.sharing --table    only write the table anew from the JSON file

The images are random numbers, 501 of them; the network has two layers; all is computed in float64. Each tool trains for
two epochs on one process with batches of 50, then on two processes with batches of 25 for each, which is the same batch
if a tool leaves nothing out and adds nothing. `ours` gets 50, since it shares the batch itself. Shuffling is off, so
that the order is no difference. Lightning Fabric and accelerate are used as their introductions do.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

IMAGES, BATCH, EPOCHS = 501, 50, 2
PACKAGES = {"ours": [], "fabric": ["lightning"], "accelerate": ["accelerate"]}
LABELS = {"ours": "this course", "fabric": "Lightning Fabric", "accelerate": "Hugging Face accelerate"}


def task(batch: int) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader, DataLoader]:
    """A network, its optimizer, and loaders for training and evaluation: (image, label, the image's number)."""
    torch.manual_seed(0)
    images = torch.rand(IMAGES, 3, 8, 8, dtype=torch.float64)
    labels = (images[:, 0].mean((1, 2)) * 50).long() % 2
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    data = TensorDataset(images, labels, torch.arange(IMAGES))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01), DataLoader(data, batch), DataLoader(data, 2 * batch)


def loop(model, optimizer, train, test, backward, gather) -> dict:
    """Train and evaluate as an introduction shows it; which images were seen, and the losses."""
    seen, tested, losses = [], [], []
    for _ in range(EPOCHS):
        for images, labels, numbers in train:
            optimizer.zero_grad()
            backward(F.cross_entropy(model(images), labels))
            optimizer.step()
            seen.append(numbers)
    with torch.no_grad():
        for images, labels, numbers in test:
            loss = F.cross_entropy(model(images), labels, reduction="none")
            for found, all_of_them in zip((tested, losses), gather((numbers, loss)), strict=True):
                found.append(all_of_them.flatten())
    return {
        "seen": torch.cat(seen).tolist(),
        "tested": torch.cat(tested).tolist(),
        "losses": torch.cat(losses).tolist(),
    }


def with_fabric(world: int) -> tuple[dict, nn.Module]:
    """`fabric.setup`, `setup_dataloaders`, `backward`, `all_gather`."""
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=world, num_nodes=1, strategy="ddp" if world > 1 else "auto")
    fabric.launch()
    model, optimizer, *loaders = task(BATCH // world)
    model, optimizer = fabric.setup(model, optimizer)
    train, test = fabric.setup_dataloaders(*loaders)
    found = loop(model, optimizer, train, test, fabric.backward, fabric.all_gather)
    return found, model.module


def with_accelerate(world: int) -> tuple[dict, nn.Module]:
    """`accelerator.prepare`, `backward`, `gather_for_metrics`."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(*task(BATCH // world))
    found = loop(*prepared, accelerator.backward, accelerator.gather_for_metrics)
    return found, accelerator.unwrap_model(prepared[0])


def ours(world: int) -> tuple[dict, nn.Module]:
    """`Parts`, which `fit` uses, and `evaluate`."""
    from torch.nn.parallel import DistributedDataParallel

    from helpers import distributed, training
    from helpers.data import dealt

    with distributed.group():
        model, optimizer, train, test = task(BATCH)
        learner, seen = DistributedDataParallel(model) if world > 1 else model, []

        def images_and_labels(batch):
            images, labels, numbers = torch.utils.data.default_collate(batch)
            return images, torch.stack([labels, numbers], 1)

        train.collate_fn = test.collate_fn = images_and_labels
        for _ in range(EPOCHS):
            for images, labels, count, weight in training.Parts(train):
                optimizer.zero_grad()
                (F.cross_entropy(learner(images), labels[:, 0]) * weight).backward()
                optimizer.step()
                seen += labels[:count, 1].tolist()
        with torch.no_grad():
            batches = [
                (F.cross_entropy(model(images), labels[:, 0], reduction="none"), labels[:, 1])
                for images, labels in dealt(test)
            ]
        losses, numbers = map(torch.cat, zip(*distributed.collected(batches), strict=True))
        return {"seen": seen, "tested": numbers.tolist(), "losses": losses.tolist()}, model


TOOLS = {"ours": ours, "fabric": with_fabric, "accelerate": with_accelerate}


def be(tool: str, out: Path) -> None:
    """One process of one tool: what it has seen and what it has learned, as a file of its own."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    found, model = TOOLS[tool](world)
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).tolist()
    (out / f"{rank}.json").write_text(json.dumps(found | {"weights": weights}))


# -------------------------------------------------------------------------------------- measure


def main() -> None:
    """Be one process, or measure (unless --table) and write the table."""
    parser = argparse.ArgumentParser(description="What tools do with images that the processes don't divide.")
    parser.add_argument("--be", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.be:
        return be(options.be, options.out)
    from .pages import RESULTS, write_table

    if not options.table:
        measure(RESULTS / "sharing.json")
    write_table(table(RESULTS / "sharing.json"), command="benchmarks.sharing")


def measure(file: Path) -> None:
    """Each tool on one process and on two."""
    from helpers.runs import write_json
    from helpers.settings import environment

    content = {"date": date.today().isoformat(), "runs": []}
    for tool in TOOLS:
        python, versions = interpreter(tool)
        one, two = (run(python, tool, world) for world in (1, 2))
        content["runs"].append(compare(tool, one, two) | {"versions": versions, "environment": environment()})
        print(content["runs"][-1], flush=True)
        write_json(file, content)


def interpreter(tool: str) -> tuple[str, dict]:
    """A Python that has the tool and the torch of this one, and the tool's version."""
    if not PACKAGES[tool]:
        return sys.executable, {}
    folder = Path(f".venv-{tool}").absolute()
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        places = next(folder.glob("[Ll]ib/**/site-packages"))
        here = next(path for path in sys.path if path.endswith("site-packages"))
        (places / "torch_of_the_course.pth").write_text(here)  # what is there need not be installed again
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[tool]], check=True)
    ask = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    said = subprocess.run([python, "-c", ask, PACKAGES[tool][0]], check=True, capture_output=True, text=True)
    return str(python), {PACKAGES[tool][0]: said.stdout.strip()}


def run(python: str, tool: str, world: int) -> list[dict]:
    """What each of the processes has seen and learned."""
    from tempfile import TemporaryDirectory

    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    with TemporaryDirectory() as out:
        command = [python, *launch, "-m", "benchmarks.sharing", "--be", tool, "--out", out]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return [json.loads(Path(out, f"{rank}.json").read_text()) for rank in range(world)]


def compare(tool: str, one: list[dict], two: list[dict]) -> dict:
    """How often images were seen, and how far losses and weights of two processes are from those of one."""
    tested = two[0]["tested"]
    means = [sum(found[0]["losses"]) / len(found[0]["losses"]) for found in (one, two)]
    pairs = zip(one[0]["weights"], two[0]["weights"], strict=True)
    return {
        "tool": tool,
        "trained_on": [sum(len(process["seen"]) for process in run) / EPOCHS for run in (one, two)],
        "evaluated_on": [len(one[0]["tested"]), len(tested)],
        "evaluated_twice": sorted({number for number in tested if tested.count(number) > 1}),
        "loss": means,
        "largest_difference_of_a_weight": max(abs(a - b) for a, b in pairs),
    }


def table(file: Path) -> str:
    """The file as Markdown."""
    from .pages import note

    content = json.loads(file.read_text(encoding="utf-8"))
    header = (
        "| tool | version | images in an epoch, one process and two | images evaluated | loss after training "
        "| of two processes | largest difference of a weight |"
    )
    lines = [header, "|" + "---|" * (header.count("|") - 1), *map(row, content["runs"])]
    return "\n".join([*lines, "", note(file, content), ""])


def row(found: dict) -> str:
    """One tool."""
    (trained, trained_two), (tested, tested_two) = found["trained_on"], found["evaluated_on"]
    return (
        f"| {LABELS[found['tool']]} | {' '.join(found['versions'].values()) or '–'} | {trained:g}, {trained_two:g} "
        f"| {tested}, {tested_two} | {found['loss'][0]:.6f} | {found['loss'][1]:.6f} "
        f"| {found['largest_difference_of_a_weight']:.0e} |"
    )


if __name__ == "__main__":
    main()
