"""This course's own command, `python -m helpers train transfer`, with an empty store of features.

python -m benchmarks.contenders.ours FOLDER NETWORK WEIGHTS SEED [one_view]
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from helpers import __main__ as command_line
from helpers import transfer
from helpers.runs import load_run
from helpers.transfer import PLAIN, TRANSFER_RECIPES


def main(folder: str, network: str, weights: str, seed: str, views: str = "") -> None:
    """Train, and print the result as one line of JSON; with `one_view`, none is shown mirrored or zoomed as well."""
    if views == "one_view":
        TRANSFER_RECIPES[network] = replace(TRANSFER_RECIPES[network], views=PLAIN, test_views=PLAIN)
    with TemporaryDirectory() as empty:
        transfer.FEATURES, out = Path(empty) / "features", Path(empty) / "run"
        options = ["--data", folder, "--backbone", network, "--weights", weights, "--seed", seed, "--out", str(out)]
        if status := command_line.main(["train", "transfer", *options]):
            sys.exit(status)
        summary = load_run(out).summary
    print(json.dumps({"test_accuracy": summary["test_accuracy"], "epochs": summary["epochs"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
