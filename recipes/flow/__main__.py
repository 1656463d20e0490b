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

from . import build, distil
from .measure import Model

STEPS = ("pictures", "captions", "transformer", "turbo", "ship")
OTHERS = ("measure", "goals")  # `transformer` does the first every so many updates; the second takes an hour
SHIPPED = Path("src/unsee")


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m recipes.flow", description=__doc__)
    p.add_argument(
        "steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all), {', '.join(OTHERS)}"
    )
    p.add_argument("--build", type=Path, default=Path("build/flow"), help="working folder (default: %(default)s)")
    p.add_argument("--config", type=Path, default=build.HERE / "config.yaml", help="(default: %(default)s)")
    p.add_argument("--packages", type=Path, default=MINI / "node_modules", help="where npm put the drawings")
    p.add_argument("--table", type=Path, default=MINI / "objects.yaml", help="the objects and their words")
    p.add_argument("--mini", type=Path, default=SHIPPED / "mini", help="the first miniature (%(default)s)")
    p.add_argument("--state", type=Path, default=build.STATE, help="weights to begin with and to keep (%(default)s)")
    p.add_argument("--turbo", type=Path, default=build.TURBO, help="likewise, of the distilled sibling (%(default)s)")
    p.add_argument(
        "--out", type=Path, default=SHIPPED, help="the folder that `ship` puts both models into (%(default)s)"
    )
    p.add_argument("--sheets", type=Path, default=Path("docs"), help="where `goals` puts pictures (%(default)s)")
    p.add_argument("--stop", type=int, help="leave `transformer` or `turbo` after this many updates in all")
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
    elif step == "turbo":
        distil.distil(b, args.state, args.turbo, args.stop)
        build.measured(b, build.turbo_model(b, args.turbo), args.mini)
    elif step == "measure":
        build.measure_checkpoint(b, args.state, args.mini)
    elif step == "goals":
        build.measure_goals(b, models(b, args), args.mini, build.HERE / "goals.md", args.sheets)
    elif step == "ship":
        for model in models(b, args):
            build.ship(b, model, args.mini, args.out / model.name)


def models(b: build.Build, args: argparse.Namespace) -> list[Model]:
    """Those that have weights."""
    both = [build.base_model(b, args.state), build.turbo_model(b, args.turbo)]
    for model in both:
        if not (model.state / "updates.json").is_file():
            print(f"{model.name}: no weights in {model.state} yet", file=sys.stderr)
    return [m for m in both if (m.state / "updates.json").is_file()]


if __name__ == "__main__":
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)  # gradients have many numbers below 1e-38
    sys.exit(main())
