"""Peak memory of a process and of those that it waited for."""

import subprocess
import sys

import pytest
import torch

from flowsmith.peak_memory import children_peak


def test_the_peak_is_that_of_the_process_itself() -> None:
    """And not of a larger one that started it."""
    ballast = torch.ones(400 * 2**20, dtype=torch.uint8)
    told = "from flowsmith.peak_memory import own_peak; print(own_peak())"
    peaks = []
    for size in (0, 100):
        block = f"import torch; held = torch.ones({size} * 2**20, dtype=torch.uint8); {told}"
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 2**20)
    assert peaks[1] - peaks[0] == pytest.approx(100, abs=25)
    del ballast


def test_the_largest_child_is_counted() -> None:
    block = "import torch; held = torch.ones(900 * 2**20, dtype=torch.uint8)"
    subprocess.run([sys.executable, "-c", block], check=True)
    assert children_peak() > 900 * 2**20
