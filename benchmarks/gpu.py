"""On a machine with a GPU: the device checks, then the timings, written to a record.

python benchmarks/gpu.py [--json FILE]

It needs torch, lightning, numpy, pandas, h5py, Pillow and safetensors, and nothing is installed.
`make gpu` runs it; `pytest -m gpu` makes the same checks.
"""

import argparse
import sys
import time
import traceback
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "gpu.json"
sys.path[:0] = [str(ROOT / folder) for folder in ("", "tests", "benchmarks", "examples")]


def without_jaxtyping() -> None:
    """Where jaxtyping is not installed, annotations of shapes stand for the type alone."""
    try:
        import jaxtyping  # noqa: F401
    except ModuleNotFoundError:

        class Shape:
            def __class_getitem__(cls, item):
                return item[0]

        def shape(name: str) -> type:
            if name.startswith("_"):
                raise AttributeError(name)
            return Shape

        stand_in = types.ModuleType("jaxtyping")
        stand_in.__getattr__ = shape
        sys.modules["jaxtyping"] = stand_in


def check() -> list[str]:
    """The names of the device checks that fail, whose tracebacks are printed."""
    import device_checks
    import torch

    failed = []
    for name, made in device_checks.CHECKS.items():
        try:
            made(device_checks.Device())
        except Exception:
            failed.append(name)
            traceback.print_exc()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=RECORD, help=f"the record ({RECORD.name})")
    options = parser.parse_args(arguments)
    without_jaxtyping()
    import torch

    if not torch.cuda.is_available():
        print("gpu: torch finds no GPU on this machine", file=sys.stderr)
        return 2
    import bench
    import device_checks

    begun = time.monotonic()
    failed = check()
    print(f"{len(device_checks.CHECKS) - len(failed)} device checks pass, {len(failed)} fail")
    print(*failed, sep="\n")
    bench.main(["--device", "cuda", "--rounds", "5", "--json", str(options.json)])
    print(f"\n{options.json}: after {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
