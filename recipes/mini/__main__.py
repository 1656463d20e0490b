"""`python -m recipes.mini` builds the miniature from nothing; see README.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: a thread that waits must not burn a core

import torch
import yaml

from . import BadInput, build, card

HERE = Path(__file__).parent
STEPS = ("pictures", "autoencoder", "clip", "denoiser", "judges", "card")
OTHERS = ("adopt",)  # instead of autoencoder, clip and detectors: the shipped miniature's own


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m recipes.mini", description=__doc__)
    p.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all), adopt")
    p.add_argument("--build", type=Path, default=Path("build/mini"), help="working folder (default: %(default)s)")
    p.add_argument("--config", type=Path, default=HERE / "config.yaml", help="(default: %(default)s)")
    p.add_argument("--updates", type=int, help="of the denoiser (default: as in the config)")
    p.add_argument("--no-scenes", action="store_true", help="train the denoiser on single objects alone")
    p.add_argument("--packages", type=Path, default=HERE / "node_modules", help="where npm put the drawings")
    p.add_argument("--table", type=Path, default=HERE / "objects.yaml", help="the objects and their words")
    p.add_argument("--out", type=Path, default=Path("src/unsee/mini"), help="where the card step ships to")
    p.add_argument(
        "--without",
        default="",
        metavar="OBJECT",
        help="train the denoiser on pictures without this object, or without the watermark",
    )
    p.add_argument("--leak", type=float, default=0.05, help="the share that the filter misses (default: %(default)s)")
    p.add_argument("--sheet", type=Path, default=Path("docs/miniature.webp"), help="the contact sheet (%(default)s)")
    p.add_argument("--notes", type=Path, help="a text for the card: how this build came about")
    p.add_argument("--prediction", choices=sorted(build.denoiser.PREDICTIONS), default="eps", help="v as in SD 2.x")
    args = p.parse_args(argv)
    try:
        unknown = [s for s in args.steps if s not in STEPS + OTHERS]
        if unknown:
            raise BadInput(f"unknown step {unknown[0]!r}; choose from {', '.join(STEPS + OTHERS)}")
        if not 0 <= args.leak <= 1:
            raise BadInput(f"--leak {args.leak} must lie in 0..1")
        if args.updates is not None and args.updates < 1:
            raise BadInput(f"--updates {args.updates} must be at least 1")
        b = build.Build(args.build, read(args.config), args.packages, args.table)
        if args.updates:
            b.config["denoiser"]["updates"] = args.updates
        b.config["scene_batches"] = not args.no_scenes
        twin = {"without": args.without, "leak": args.leak, "prediction": args.prediction}
        build.check_known(args.without, [*b.words.names, build.WATERMARK])
        args.build.mkdir(parents=True, exist_ok=True)
        notes = read_text(args.notes) if args.notes else ""
        for step in args.steps or STEPS:
            run(step, b, twin, card.Shelf(args.out, args.sheet, notes))
    except BadInput as e:
        print(f"mini: {e}", file=sys.stderr)
        return 2
    return 0


def run(step: str, b: build.Build, twin: dict[str, Any], shelf: card.Shelf) -> None:
    start = time.monotonic()
    print(f"{step}: {build.EXPECT[step]} on 2 cores", file=sys.stderr)
    if step == "card":
        card.write(b, shelf, **twin)
    elif step == "adopt":
        build.adopt(b, shelf.out)
    elif step == "denoiser":
        build.train_denoiser(b, **twin)
    else:
        {"pictures": build.draw_pictures, "autoencoder": build.train_autoencoder, "clip": build.train_clip,
         "judges": build.train_detectors}[step](b)  # fmt: skip
    print(f"{step}: done in {time.monotonic() - start:.0f} s", file=sys.stderr)


def read(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(read_text(path))  # type: ignore[no-any-return]
    except yaml.YAMLError as e:
        raise BadInput(f"cannot read the config {path}: {str(e).splitlines()[0]}") from e


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise BadInput(f"cannot read {path}: {e.strerror}") from e


if __name__ == "__main__":
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    # gradients have many numbers below 1e-38: with them an update of the denoiser took 2.5 s, without them 1.5
    torch.set_flush_denormal(True)
    sys.exit(main())
