"""The course from the command line: `python -m helpers compare|train|predict|explain|evaluate|export|page|audit`."""

import argparse
import csv
import glob
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
from tqdm import tqdm

from .auditing import audit
from .data import Splits, list_files, load_image, load_splits
from .distributed import agree, group, rank, world
from .downloads import check_new_file, check_writable, write_whole
from .evaluating import as_text
from .explaining import evidence, pool_of
from .exporting import check_packages, export, page_files, write_page
from .models import BACKBONES
from .runs import RECIPES, compare, evaluate_run, is_finished, predict_all, read_run, transform_of
from .settings import PRECISIONS, SETTINGS, BadArgument, CourseError, Stopped, choose_setting, first_line, printable
from .training import is_out_of_memory


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a failed run, 2 for a bad argument, 130 after Ctrl-C."""
    try:
        if hasattr(sys.stdout, "reconfigure"):  # a file's name may hold letters that the terminal can't show
            sys.stdout.reconfigure(errors="backslashreplace")
        with group():
            arguments = sys.argv[1:] if arguments is None else arguments
            if "" in arguments:  # of a shell's variable that is not set, which must not mean the working folder
                raise BadArgument("An argument is empty. Is a variable on the command line not set?")
            options = parser().parse_args(arguments)
            status = options.command(options) or 0
            print(end="", flush=True)  # here, where a broken pipe is understood
            return status
    except BrokenPipeError:  # who read the output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CourseError, OSError) as error:
        return complain(error, status=2 if isinstance(error, BadArgument) else 1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return complain(CourseError("Out of memory. Close other programs, or take --backbone squeezenet1_1"), status=1)
    except KeyboardInterrupt as error:
        return complain(CourseError(str(error) or "Stopped"), status=130)


def complain(error: Exception, *, status: int) -> int:
    """Say what went wrong, on one line of standard error."""
    # In one piece: torchrun, which started this process and others, may write at the same time.
    text = printable(first_line(error))
    print(f"error: {text}{'' if text.endswith('?') else '.'}\n", end="", file=sys.stderr)
    return status


def say(*cells: object) -> None:
    """Print them on one line, apart by tabs, whatever files are called."""
    print("\t".join(map(printable, cells)))


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        raise BadArgument(f"{message}. See: {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """All commands and options; what a command does is told by its function's docstring."""
    top = Parser(prog="python -m helpers", description="Transfer learning for images, from the command line.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def add(work: Callable[[argparse.Namespace], int | None]) -> argparse.ArgumentParser:
        command = commands.add_parser(work.__name__.removesuffix("_command"), help=work.__doc__)
        command.set_defaults(command=work)
        return command

    to_compare, to_train, to_predict = map(add, (compare_command, train_command, predict_command))
    to_explain, to_evaluate, to_export = map(add, (explain_command, evaluate_command, export_command))
    to_page, to_audit = map(add, (page_command, audit_command))
    names = f"{', '.join(BACKBONES)}, others of torchvision or timm:NAME; default: COURSE_BACKBONE, else vgg16"
    default = "default: COURSE_SETTING, else photos with a GPU and sample without one"
    data = "sample|photos|photos-full|DIR"
    for command in (to_compare, to_train):
        command.add_argument("--data", metavar=data, help=default)
        command.add_argument("--backbone", help=names)
        command.add_argument("--weights", metavar="FILE|random", help="default: COURSE_WEIGHTS, else the setting's own")
        command.add_argument("--precision", choices=PRECISIONS, default="fast", help="default: the device's fastest")
        command.add_argument("--seed", type=seed_number, default=0, help="default: 0")
        command.add_argument("--out", metavar="DIR", type=a_path, help="default: runs/compare, or runs/ and the recipe")
    to_train.add_argument("recipe", choices=RECIPES)
    to_train.add_argument("--resume", action="store_true", help="go on from the last whole epoch of a killed run")
    to_train.add_argument("--balanced", action="store_true", help="learn from each class equally often (transfer only)")
    for command in (to_predict, to_explain, to_evaluate, to_export, to_page):
        command.add_argument("run", metavar="RUN_DIR", type=a_path, help="the folder of a training run")
    for command in (to_predict, to_explain):
        command.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders or patterns such as '*.jpg'")
    to_predict.add_argument("--never-refuse", action="store_true", help="name a class for images unlike all known ones")
    form = to_predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object for each image, one a line")
    form.add_argument("--csv", action="store_true", help="print a table with a header")
    for command in (to_evaluate, to_export, to_page):
        command.add_argument("--data", metavar=data, help="default: the setting that it learned from")
    to_explain.add_argument("--out", metavar="DIR", type=a_path, required=True, help="a folder for the figures")
    to_evaluate.add_argument("--out", metavar="DIR", type=a_path, help="default: RUN_DIR")
    to_export.add_argument("--out", metavar="FILE.onnx", type=a_path, required=True)
    to_page.add_argument("--out", metavar="DIR", type=a_path, required=True)
    to_audit.add_argument("folder", metavar="DIR", type=a_path)
    to_audit.add_argument("--out", metavar="FILE", type=a_path, help="write all findings as CSV")
    return top


def a_path(text: str) -> Path:
    """A path in which ~ is the home folder, or any file called ~$name, for which Path.expanduser fails."""
    return Path(os.path.expanduser(text))


def seed_number(text: str) -> int:
    """A seed that torch accepts."""
    with suppress(ValueError):
        if -(2**63) <= int(text) < 2**63:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at most 63 bits")


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
    """Train a CNN from scratch and a pretrained network, side by side."""
    from .plots import learning_curves  # here, because only who draws needs matplotlib, which takes a while to load

    setting, splits, folder = prepare(options, "compare")
    runs = compare(splits, setting, seed=options.seed, folder=folder)
    if rank() > 0:
        return
    accuracies = {name: run.summary["test_accuracy"] for name, run in runs.items()}
    figure = learning_curves({name: run.history for name, run in runs.items()}, test_accuracy=accuracies)
    write_figure(figure, folder / "comparison.png")
    say(f"written: {folder / 'comparison.png'}, {folder / 'comparison.json'}")


def write_figure(figure, file: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_whole(file, image.getvalue())


def train_command(options: argparse.Namespace) -> None:
    """Train one of the two, or fine-tune the pretrained one."""
    if options.balanced and options.recipe != "transfer":
        lacks = "fine-tuning or training from scratch has none"
        raise BadArgument(f"--balanced is for transfer: it draws from stored features, and {lacks}")
    setting, splits, folder = prepare(options, options.recipe)
    wanted = {"network": "small_cnn" if options.recipe == "scratch" else setting.backbone, "seed": options.seed}
    wanted["training"] = {"fine-tune": "fine-tuned"}.get(options.recipe)
    if options.resume and is_finished(folder, splits, **wanted):
        say(f"The run in {folder} is finished already.")
        return
    more = {"resume": options.resume} | ({"balanced": True} if options.balanced else {})
    run = RECIPES[options.recipe](splits, setting, seed=options.seed, folder=folder, **more)
    print(f"test: {run.test}")
    say(f"written: {folder}; name images with: python -m helpers predict {folder} IMAGE...")
    if run.history.stopped:
        raise Stopped(f"Stopped. What was learned so far is in {folder}")


def predict_command(options: argparse.Namespace) -> int:
    """Name the class of images, with a trained model."""
    run, paths, status = read_run(options.run), list(image_files(options.images)), 0
    strangeness = None if options.never_refuse else run.strangeness
    answers = predict_all(run.model, run.about, paths, strangeness=strangeness)
    # On a terminal the lines themselves show how far it is.
    quiet = len(paths) < 1000 or (sys.stdout is not None and sys.stdout.isatty())
    header = ("path", "class", "probability", "strangeness", "refused", "error")
    table = csv.DictWriter(sys.stdout or io.StringIO(), header, lineterminator="\n")
    if options.csv:
        table.writeheader()
    for path, answer in tqdm(answers, "predict", len(paths), unit=" images", delay=2, disable=quiet):
        failed = isinstance(answer, CourseError)
        status = complain(answer, status=1) if failed else status
        row = {"path": str(path), **({"error": first_line(answer)} if failed else answer.columns())}
        if options.json:
            print(json.dumps(row))
        elif options.csv:
            table.writerow({key: printable(value) for key, value in row.items()})
        elif not failed:
            say(path, answer, f"{answer.probability:.3f}")
    return status


def explain_command(options: argparse.Namespace) -> int:
    """Show which places of images speak for the class that a model names."""
    from .plots import image_grid, label, overlay

    run = read_run(options.run)
    model, about = run.model, run.about
    pool_of(model)  # a network of which nothing can be shown is refused before anything is written
    paths, transform, seen, status = [*image_files(options.images)], transform_of(about), Counter(), 0
    check_writable(options.out)
    for path, answer in predict_all(model, about, paths, strangeness=run.strangeness):
        if isinstance(answer, CourseError):
            status = complain(answer, status=1)
            continue
        image, title = load_image(path), f"{label(answer)}, {answer.probability:.1%}"
        (places,) = evidence(model, transform(image)[None], torch.tensor([about["classes"].index(answer.name)]))
        figure = image_grid([image, overlay(image, places)], [label(path.name), title])
        seen[path.stem] += 1  # two folders may each hold an image of this name
        again = f"_{seen[path.stem]}" if seen[path.stem] > 1 else ""
        file = options.out / f"{path.stem}_explained{again}.png"
        write_figure(figure, file)
        say(path, answer, f"{answer.probability:.3f}", file)
    return status


def evaluate_command(options: argparse.Namespace) -> None:
    """Report how good a trained model is, and how sure it should be."""
    run, folder = read_run(options.run), options.out or (options.run if options.run.is_dir() else options.run.parent)
    print(as_text(evaluate_run(run, splits_of(run.about, options.data), folder=folder)))
    say(f"written: {folder / 'evaluation.html'}, {folder / 'evaluation.json'}")


def splits_of(about: dict, data: str | None) -> Splits:
    """The images that are named, by default those that a run learned from, in the splits that it had."""
    if not data and about.get("data") and about["data"] not in SETTINGS:
        raise BadArgument(f"This run learned from a folder {about['data']}. Name it with --data DIR")
    if not ({"seed"} if data else {"seed", "data", "splits"}) <= {*about}:
        raise BadArgument("This run does not say what it learned from: an older version wrote it. Train again.")
    splits = load_splits(choose_setting(data or about["data"]), seed=about["seed"])
    if not data and splits.digest != about["splits"]:  # it learned from a folder that is called like a setting
        raise BadArgument(f"This run learned from other images than those of {splits.name}. Name them with --data DIR")
    return splits


def export_command(options: argparse.Namespace) -> None:
    """Write a trained model as an ONNX file, which other programs can run."""
    check_new_file(options.out)
    write_whole(options.out, exported(options))
    say(f"written: {options.out}")


def exported(options: argparse.Namespace) -> bytes:
    """The content of the ONNX file, which agrees with torch about every validation image."""
    check_packages()
    run = read_run(options.run)
    return export(run, [path for path, _ in splits_of(run.about, options.data).validation])


def page_command(options: argparse.Namespace) -> None:
    """Write a web page that names images in the browser."""
    check_packages()
    check_writable(options.out.absolute().parent)
    page_files(options.out)  # fetched before the long work
    write_page(options.out, exported(options))
    command = f"python -m http.server --bind 127.0.0.1 --directory {options.out}"
    say(f"written: {options.out}; to see it: {command}")


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
    """Look for damaged, odd and repeated images in a folder; change nothing."""
    if options.out:
        check_new_file(options.out)
    report = audit(options.folder)
    print(report)
    print(f"{report.seconds:.1f} s, {report.images / report.seconds:,.0f} images a second")
    if options.out:
        report.save(options.out)
        say(f"written: {options.out}")


if __name__ == "__main__":
    sys.exit(main())
