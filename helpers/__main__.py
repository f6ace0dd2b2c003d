"""The course from the command line: `python -m helpers compare|train|predict|explain|evaluate|export|page|audit`."""

import argparse
import csv
import glob
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from .auditing import audit
from .data import Splits, list_files, load_image, load_splits
from .distributed import agree, group, rank, world
from .downloads import write_whole
from .evaluating import as_text
from .explaining import evidence, pool_of
from .exporting import check_packages, export, page_files, write_page
from .models import BACKBONES
from .plots import Plot, image_grid, label, learning_curves, overlay
from .runs import (
    CHECKPOINT_FILE,
    RECIPES,
    RUN_FILE,
    Answer,
    Run,
    check_writable,
    compare,
    comparison_table,
    evaluate_run,
    load_model,
    load_run,
    predict_all,
    read_run,
    transform_of,
)
from .settings import PRECISIONS, SETTINGS, BadArgument, CourseError, Stopped, choose_setting, first_line, printable
from .training import is_out_of_memory


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a failed run, 2 for a bad argument, 130 after Ctrl-C."""
    try:
        if hasattr(sys.stdout, "reconfigure"):  # a file's name may hold letters that the terminal can't show
            sys.stdout.reconfigure(errors="backslashreplace")
        with group():
            options = parser().parse_args(arguments)
            status = options.command(options) or 0
            print(end="", flush=True)  # here, where a broken pipe is understood
            return status
    except BrokenPipeError:  # who read the output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BadArgument as error:
        return complain(error, status=2)
    except (CourseError, OSError) as error:
        return complain(error, status=1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "Close what else uses it, or take --backbone squeezenet1_1"
        return complain(CourseError(f"Out of memory. {hint}"), status=1)
    except KeyboardInterrupt as error:
        return complain(CourseError(str(error) or "Stopped"), status=130)


def complain(error: Exception, *, status: int) -> int:
    """Say what went wrong, on one line of standard error."""
    # In one piece: torchrun, which started this process and others, may write at the same time.
    print(f"error: {printable(first_line(error))}.\n", end="", file=sys.stderr)
    return status


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        raise BadArgument(f"{message}. See: {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = Parser(prog="python -m helpers", description="Transfer learning for images, from the command line.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    both = commands.add_parser("compare", help="train a CNN from scratch and a pretrained network, side by side")
    both.set_defaults(command=compare_command)
    one = commands.add_parser("train", help="train one of the two, or fine-tune the pretrained one")
    one.add_argument("recipe", choices=RECIPES)
    one.add_argument("--resume", action="store_true", help="go on from the last whole epoch of a run that was killed")
    one.add_argument("--balanced", action="store_true", help="learn from each class equally often (transfer only)")
    one.set_defaults(command=train_command)
    for command in (both, one):
        add_training_options(command)
    use = commands.add_parser("predict", help="name the class of images, with a trained model")
    use.add_argument("run", metavar="RUN_DIR", type=a_path, help="the folder of a training run")
    use.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders or patterns such as '*.jpg'")
    use.add_argument("--never-refuse", action="store_true", help="name a class for images unlike all training images")
    form = use.add_mutually_exclusive_group()
    for name, what in {"json": "a JSON object for each image, one a line", "csv": "a table with a header"}.items():
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=f"print {what}")
    use.set_defaults(command=predict_command)
    why = commands.add_parser("explain", help="show which places of images speak for the class that a model names")
    why.add_argument("run", metavar="RUN_DIR", type=a_path, help="the folder of a training run")
    why.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders or patterns such as '*.jpg'")
    why.add_argument("--out", metavar="DIR", type=a_path, required=True, help="a folder for the figures")
    why.set_defaults(command=explain_command)
    test = commands.add_parser("evaluate", help="how good a trained model is, and how sure it should be: a report")
    test.add_argument("--out", metavar="DIR", type=a_path, help="default: RUN_DIR")
    test.set_defaults(command=evaluate_command)
    file = commands.add_parser("export", help="write a trained model as an ONNX file, which other programs can run")
    file.add_argument("--out", metavar="FILE.onnx", type=a_path, required=True)
    file.set_defaults(command=export_command)
    page = commands.add_parser("page", help="write a web page that names images in the browser")
    page.add_argument("--out", metavar="DIR", type=a_path, required=True)
    page.set_defaults(command=page_command)
    for command in (test, file, page):
        command.add_argument("run", metavar="RUN_DIR", type=a_path, help="the folder of a training run")
        settings = "sample|photos|photos-full|DIR"
        command.add_argument("--data", metavar=settings, help="default: the setting that it learned from")
    look = commands.add_parser("audit", help="look for damaged, odd and repeated images in a folder; change nothing")
    look.add_argument("folder", metavar="DIR", type=a_path)
    look.add_argument("--out", metavar="FILE", type=a_path, help="write all findings as CSV")
    look.set_defaults(command=audit_command)
    return top


BACKBONE_HELP = f"{', '.join(BACKBONES)}, others of torchvision or timm:NAME; default: COURSE_BACKBONE, else vgg16"


def add_training_options(command: argparse.ArgumentParser) -> None:
    """The options that `compare` and `train` share."""
    default = "default: COURSE_SETTING, else photos with a GPU and sample without one"
    command.add_argument("--data", metavar="sample|photos|photos-full|DIR", help=default)
    command.add_argument("--backbone", help=BACKBONE_HELP)
    command.add_argument("--weights", metavar="FILE|random", help="default: COURSE_WEIGHTS, else the setting's own")
    command.add_argument("--precision", choices=PRECISIONS, default="fast", help="default: the device's fastest")
    command.add_argument("--seed", type=seed_number, default=0, help="default: 0")
    command.add_argument("--out", metavar="DIR", type=a_path, help="default: runs/compare, or runs/ and the recipe")


def a_path(text: str) -> Path:
    """A path in which ~ is the home folder, or any file called ~$name, for which Path.expanduser fails."""
    return Path(os.path.expanduser(text))


def seed_number(text: str) -> int:
    """A seed that torch accepts."""
    if not -(2**63) <= int(text) < 2**63:
        raise ValueError(text)
    return int(text)


def prepare(options: argparse.Namespace, default: str):
    """The setting, printed, its images, printed, and the output folder."""
    chosen = {name: getattr(options, name) for name in ("backbone", "weights", "precision")}
    setting = choose_setting(options.data, **chosen)
    print(setting)
    agree(settings=f"{setting}, {vars(options) | {'command': None}}", threads=torch.get_num_threads())
    splits = load_splits(setting, seed=options.seed)
    agree(images=splits.digest)
    if world() > len(splits.train):
        raise BadArgument(f"{world()} processes for {len(splits.train)} training images. Start fewer.")
    print(splits)
    return setting, splits, options.out or Path("runs") / default


def compare_command(options: argparse.Namespace) -> None:
    """Train both models; write comparison.json and comparison.png."""
    setting, splits, folder = prepare(options, "compare")
    runs = compare(splits, setting, seed=options.seed, folder=folder)
    if rank() > 0:
        return
    print(comparison_table(runs))
    accuracies = {name: run.summary["test_accuracy"] for name, run in runs.items()}
    figure = learning_curves({name: run.history for name, run in runs.items()}, test_accuracy=accuracies)
    write_figure(figure, folder / "comparison.png")
    print(f"written: {folder / 'comparison.png'}, {folder / 'comparison.json'}")


def write_figure(figure: Plot, file: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_whole(file, image.getvalue())


def train_command(options: argparse.Namespace) -> None:
    """Train one model and save it."""
    if options.balanced and options.recipe != "transfer":
        lacks = "fine-tuning or training from scratch has none"
        raise BadArgument(f"--balanced is for transfer: it draws from stored features, and {lacks}")
    setting, splits, folder = prepare(options, options.recipe)
    if options.resume and (folder / RUN_FILE).exists() and not (folder / CHECKPOINT_FILE).exists():
        load_run(folder, splits)
        print(f"The run in {folder} is finished already.")
        return
    more = {"resume": options.resume} | ({"balanced": True} if options.balanced else {})
    run = RECIPES[options.recipe](splits, setting, seed=options.seed, folder=folder, **more)
    print(f"test: {run.test}")
    print(f"written: {folder}; name images with: python -m helpers predict {folder} IMAGE...")
    if run.history.stopped:
        raise Stopped(f"Stopped. What was learned so far is in {folder}")


def predict_command(options: argparse.Namespace) -> int:
    """Print what each image is, one line an image; 1 if some image could not be read."""
    run, paths, status = read_run(options.run), list(image_files(options.images)), 0
    strangeness = None if options.never_refuse else run.strangeness
    answers = predict_all(run.model, run.about, paths, strangeness=strangeness)
    # On a terminal the lines themselves show how far it is.
    quiet = len(paths) < 1000 or (sys.stdout is not None and sys.stdout.isatty())
    table = csv.DictWriter(sys.stdout or io.StringIO(), COLUMNS, lineterminator="\n")
    if options.form == "csv":
        table.writeheader()
    for path, answer in tqdm(answers, "predict", len(paths), unit=" images", delay=2, disable=quiet):
        failed = isinstance(answer, CourseError)
        status = complain(answer, status=1) if failed else status
        row = {"path": str(path), "error": first_line(answer)} if failed else {"path": str(path)} | columns(answer)
        if options.form == "json":
            print(json.dumps(row))
        elif options.form == "csv":
            table.writerow({key: printable(value) for key, value in row.items()})
        elif not failed:
            print(f"{printable(path)}\t{printable(answer)}\t{answer.probability:.3f}")
    return status


def explain_command(options: argparse.Namespace) -> int:
    """Draw what speaks for each image's class, and print where; 1 if some image could not be read."""
    model, about = load_model(options.run)
    pool_of(model)  # a network of which nothing can be shown is refused before anything is written
    paths, transform, seen, status = [*image_files(options.images)], transform_of(about), Counter(), 0
    check_writable(options.out)
    for path, answer in predict_all(model, about, paths):
        if isinstance(answer, CourseError):
            status = complain(answer, status=1)
            continue
        name, probability, image = answer.name, answer.probability, load_image(path)
        (places,) = evidence(model, transform(image)[None], torch.tensor([about["classes"].index(name)]))
        figure = image_grid([image, overlay(image, places)], [label(path.name), f"{label(name)}, {probability:.1%}"])
        seen[path.stem] += 1  # two folders may each hold an image of this name
        again = f"_{seen[path.stem]}" if seen[path.stem] > 1 else ""
        file = options.out / f"{path.stem}_explained{again}.png"
        write_figure(figure, file)
        print(f"{printable(path)}\t{printable(name)}\t{probability:.3f}\t{printable(file)}")
    return status


COLUMNS = ("path", "class", "probability", "strangeness", "refused", "error")


def columns(answer: Answer) -> dict:
    """What --json and --csv print of an answer: where it is refused, the class is only the nearest one."""
    found = {"class": answer.name, "probability": round(answer.probability, 6)}
    known = {"strangeness": round(answer.strangeness, 6), "refused": answer.refused}
    return found | (known if answer.strangeness == answer.strangeness else {"refused": False})  # NaN is no JSON


def evaluate_command(options: argparse.Namespace) -> None:
    """Print how good a run is; write evaluation.json and evaluation.html."""
    run, folder = read_run(options.run), options.out or (options.run if options.run.is_dir() else options.run.parent)
    print(as_text(evaluate_run(run, splits_of(run, options.data), folder=folder)))
    print(f"written: {folder / 'evaluation.html'}, {folder / 'evaluation.json'}")


def splits_of(run: Run, data: str | None) -> Splits:
    """The images that are named, by default those that a run learned from, in the splits that it had."""
    if not data and run.about["data"] not in SETTINGS:
        raise BadArgument(f"This run learned from a folder {printable(run.about['data'])}. Name it with --data DIR")
    return load_splits(choose_setting(data or run.about["data"], backbone=None), seed=run.about["seed"])


def export_command(options: argparse.Namespace) -> None:
    """Write a run as an ONNX file, after it was compared with torch."""
    check_new_file(options.out)
    write_whole(options.out, exported(options))
    print(f"written: {options.out}")


def exported(options: argparse.Namespace) -> bytes:
    """The content of the ONNX file, which agrees with torch about every validation image."""
    check_packages()
    run = read_run(options.run)
    return export(run, [path for path, _ in splits_of(run, options.data).validation])


def page_command(options: argparse.Namespace) -> None:
    """Write a web page with a run in it."""
    check_packages()
    check_writable(options.out.absolute().parent)
    files = page_files(options.out)  # before the long work
    write_page(options.out, files, exported(options))
    print(f"written: {options.out}; to see it: python -m http.server --bind 127.0.0.1 --directory {options.out}")


def image_files(names: list[str]) -> Iterator[Path]:
    """The files that are meant: each file itself, all in a folder, all that fit a pattern; BadArgument for none."""
    for name in names:
        path = a_path(name)
        if "://" in name:
            raise BadArgument(f"{name} is an address. Download the image first, and give its file.")
        found = list_files(path) if path.is_dir() else [path]
        if not path.exists() and glob.has_magic(name):
            found = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if os.path.isfile(match))
        if not found:
            raise BadArgument(f"There is no file in {name}." if path.is_dir() else f"There is no file like {name}.")
        yield from found


def audit_command(options: argparse.Namespace) -> None:
    """Print what the audit of a folder found; write it as CSV if asked to."""
    if options.out:
        check_new_file(options.out)
    report = audit(options.folder)
    print(report)
    print(f"{report.seconds:.1f} s, {report.images / report.seconds:,.0f} images a second")
    if options.out:
        report.save(options.out)
        print(f"written: {options.out}")


def check_new_file(file: Path) -> None:
    """Raise BadArgument if the file can't be written, before any work is done for it."""
    if file.is_dir():
        raise BadArgument(f"{file} is a folder; --out takes the name of a file.")
    check_writable(file.parent)


if __name__ == "__main__":
    sys.exit(main())
