"""`python -m recipes.nsfw` makes a detector of explicit pictures of the npm package nsfwjs; see README.md."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from . import build

HERE = Path(__file__).parent


def unpacked(folder: Path) -> None:
    subprocess.run(["node", HERE / "original.cjs", "unpack", folder], check=True)


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m recipes.nsfw", description=__doc__)
    p.add_argument("--out", type=Path, default=Path("build/nsfw"), help="the folder to write (default: %(default)s)")
    out = p.parse_args().out
    if not (HERE / "node_modules/nsfwjs").is_dir():
        print(f"nsfw: the package is not there: (cd {HERE} && npm ci --ignore-scripts)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        unpacked(Path(folder))
        build.model(build.read(Path(folder))).save_pretrained(out)
    build.processor().save_pretrained(out)
    print(f"{out}: unsee evaluate ... --detector explicit={out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
