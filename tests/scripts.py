"""The scripts of bench/, which is no package: they import each other by name, as they do where they are run."""

import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))
import presets  # noqa: E402
import results  # noqa: E402

sys.path.remove(str(BENCH))

__all__ = ["BENCH", "presets", "results"]
