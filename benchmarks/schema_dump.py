"""How long, and in how much memory, does the schema of a very large installation load? Measured on made-up dumps.

    python benchmarks/schema_dump.py [--megabytes 25 50 100] [--out runs/benchmarks/schema_dump.json]

A dump of the asked size has the classes of a real one (`--from`, by default the project's own nodes) over and over
under other names, and every tenth lists a hundred model files, as installations with many files do. Each is loaded
in a process of its own; its memory is the peak above that of a process that has loaded nothing. Where other work
shares the machine, the CPU's seconds are those of an idle one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowsmith.evaluation.strict_json import dumps
from flowsmith.files import atomic_write
from flowsmith.flows import Schema

OUT = Path("runs/benchmarks/schema_dump.json")
FILES = [
    f"models/of/some/folder/a_checkpoint_with_a_long_name_{number:03}.safetensors" for number in range(100)
]

LOADER = """
import json, sys, time
from flowsmith.flows import Schema
from flowsmith.peak_memory import own_peak
before = own_peak()
start, cpu = time.perf_counter(), time.process_time()
nodes = len(Schema.from_file(sys.argv[1]).nodes) if sys.argv[1] else 0
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
megabytes = (own_peak() - before) / 2**20
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "megabytes": megabytes, "nodes": nodes}))
"""


def write_dump(path: Path, source: dict[str, Any], size: int) -> int:
    """Write a dump of about ``size`` bytes; return how many classes it has."""
    classes = list(source.items())
    count, written = 0, 2
    with path.open("w", encoding="utf-8") as file:
        file.write("{")
        while written < size:
            name, node = classes[count % len(classes)]
            if count % 10 == 0:
                node = node | {"input": {"required": {"model_name": [FILES]}}}
            entry = ("," if count else "") + json.dumps(f"{name} {count}") + ": " + json.dumps(node)
            file.write(entry)
            written += len(entry)
            count += 1
        file.write("}")
    return count


def measured(path: Path) -> dict[str, float]:
    """Load one dump in a new process."""
    ran = subprocess.run(
        [sys.executable, "-c", LOADER, str(path)], capture_output=True, text=True, check=True
    )
    result: dict[str, float] = json.loads(ran.stdout)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, nargs="+", default=[25, 50, 100], help="sizes (25 50 100)")
    parser.add_argument("--from", dest="source", type=Path, help="a real dump whose classes are repeated")
    parser.add_argument("--out", type=Path, default=OUT, help=f"what is written ({OUT})")
    options = parser.parse_args(arguments)
    source = json.loads(options.source.read_text()) if options.source else Schema.core().to_object_info()
    sizes = []
    print(f"{'dump':>10} {'classes':>9} {'seconds':>9} {'CPU':>7} {'memory':>10} {'of its size':>12}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object_info.json"
        for megabytes in options.megabytes:
            classes = write_dump(path, source, int(megabytes * 1e6))
            result = {"dump_megabytes": path.stat().st_size / 1e6, "classes": classes} | measured(path)
            if result["nodes"] != classes:
                raise RuntimeError(f"{result['nodes']} of {classes} classes were loaded")
            sizes.append(result)
            print(
                f"{result['dump_megabytes']:7.0f} MB {classes:9} {result['seconds']:9.1f} "
                f"{result['cpu_seconds']:7.1f} "
                f"{result['megabytes']:7.0f} MB {result['megabytes'] / result['dump_megabytes']:11.1f}x"
            )
    with atomic_write(options.out) as temporary:
        temporary.write_text(dumps({"sizes": sizes}), encoding="utf-8")
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
