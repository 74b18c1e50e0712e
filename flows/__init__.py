"""Evergreen's orchestration: the only code that imports prefect, mlflow and dvc."""

from pathlib import Path

import cl

_FOUND, _EXPECTED = Path(str(cl.__file__)).resolve().parent, Path(__file__).resolve().parents[1] / "cl"
if _FOUND != _EXPECTED:
    raise ImportError(
        f"`cl` is another package's ({_FOUND}), not Evergreen's ({_EXPECTED}); install Evergreen in an environment of its own"
    )
