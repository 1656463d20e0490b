"""`python -m recipes.flow` builds the second miniature; see README.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: a thread that waits must not burn a core

import torch

from recipes.mini import BadInput
from recipes.mini.__main__ import read
from recipes.mini.build import HERE as MINI

from . import build

STEPS = ("pictures", "captions", "transformer", "ship")
OTHERS = ("measure",)  # which `transformer` does every so many updates
SHIPPED = Path("src/unsee")


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m recipes.flow", description=__doc__)
    p.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all), measure")
    p.add_argument("--build", type=Path, default=Path("build/flow"), help="working folder (default: %(default)s)")
    p.add_argument("--config", type=Path, default=build.HERE / "config.yaml", help="(default: %(default)s)")
    p.add_argument("--packages", type=Path, default=MINI / "node_modules", help="where npm put the drawings")
    p.add_argument("--table", type=Path, default=MINI / "objects.yaml", help="the objects and their words")
    p.add_argument("--mini", type=Path, default=SHIPPED / "mini", help="the first miniature (%(default)s)")
    p.add_argument("--state", type=Path, default=build.STATE, help="weights to begin with and to keep (%(default)s)")
    p.add_argument("--out", type=Path, default=SHIPPED / "mini-flow", help="where `ship` writes to (%(default)s)")
    p.add_argument("--stop", type=int, help="leave after this many updates in all")
    args = p.parse_args(argv)
    try:
        if unknown := [s for s in args.steps if s not in STEPS + OTHERS]:
            raise BadInput(f"unknown step {unknown[0]!r}; choose from {', '.join(STEPS + OTHERS)}")
        b = build.Build(args.build, read(args.config), args.packages, args.table)
        args.build.mkdir(parents=True, exist_ok=True)
        for step in args.steps or STEPS:
            start = time.monotonic()
            run(step, b, args)
            print(f"{step}: done in {time.monotonic() - start:.0f} s", file=sys.stderr)
    except BadInput as e:
        print(f"flow: {e}", file=sys.stderr)
        return 2
    return 0


def run(step: str, b: build.Build, args: argparse.Namespace) -> None:
    if step == "pictures":
        build.draw_pictures(b, args.mini)
    elif step == "captions":
        build.encode_captions(b)
    elif step == "transformer":
        build.train_and_measure(b, args.state, args.mini, args.stop)
    elif step == "measure":
        build.measured(b, args.state, args.mini)
    elif step == "ship":
        build.ship(b, args.state, args.mini, args.out)


if __name__ == "__main__":
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)  # gradients have many numbers below 1e-38
    sys.exit(main())
