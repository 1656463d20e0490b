"""Peak memory of erasing over plain inference on the miniature, each in a process of its own.

    python -m benchmarks.memory

Prints resident peaks and their ratio. Both load the same pipeline; inference draws as many pictures side by side as
recording does runs.
"""

import subprocess
import sys

LOAD = "import unsee; from unsee.runs.erase import peak_memory; from unsee import ESD; pipe = unsee.load('mini'); "
WORK = {
    "loaded": "",
    "inference": "pipe(prompt=['a church'] * 2 * ESD().batch, num_inference_steps=5); ",
    "erasing": "ESD()(pipe, unsee.Concept('church')); ",
}


def measures() -> dict[str, float]:
    peaks = {}
    for name, work in WORK.items():
        command = [sys.executable, "-c", LOAD + work + "print(peak_memory())"]
        peaks[name] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        print(f"{name:<10} {peaks[name] / 1e6:6.0f} MB")
    ratio = peaks["erasing"] / peaks["inference"]
    print(f"erasing / inference {ratio:.2f}")
    return {"memory on the miniature": ratio}


if __name__ == "__main__":
    measures()
