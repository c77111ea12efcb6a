"""How long `ldmctl --help` takes, beside `import torch`, in turn.

python benchmarks/help.py
"""

import statistics
import subprocess
import sys
import time

from machine import describe, keep

COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "help": [sys.executable, "-m", "ldmctl", "--help"],
    "version": [sys.executable, "-m", "ldmctl", "--version"],
    "plugins_list": [sys.executable, "-m", "ldmctl", "plugins", "list"],
    "import_torch": [sys.executable, "-c", "import torch"],
}
ROUNDS = 11


def main() -> None:
    """Time each command once per round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: round(statistics.median(values[1:]), 3) for name, values in seconds.items()}
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, ldmctl.cli; print('torch' in sys.modules)"], check=True, capture_output=True, text=True
    )
    keep(
        "help",
        {
            "median_seconds": medians,
            "rounds": ROUNDS,
            "help_over_import_torch": round(medians["help"] / medians["import_torch"], 3),
            "command_line_imports_torch": loaded.stdout.strip() == "True",
        },
        describe(),
    )


if __name__ == "__main__":
    main()
