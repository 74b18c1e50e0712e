"""Threads are given back, and freed memory stays with the process."""

import subprocess
import sys

import pytest
import torch

from cl.learning.host import threads


def test_threads_are_given_back_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="inside"), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError("inside")
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is asked through glibc")
def test_memory_that_is_kept_is_not_fetched_from_the_system_again() -> None:
    script = (
        "import resource, sys, torch; from cl.learning.host import keep_memory; 'keep' in sys.argv and keep_memory()\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.ones(64 << 18)\n"  # 64 MB are 16,384 pages
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(*(faults() for _ in range(24)))"
    )

    def later(*arguments: str) -> int:
        sizes = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True).stdout.split()
        return sum(map(int, sizes[18:]))  # small blocks between the large ones settle first

    assert later() > 6 * 16_000 and later("keep") < 16_384
