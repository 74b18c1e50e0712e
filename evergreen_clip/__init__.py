"""The one name that Evergreen has at the top of site-packages; what starts here sees to it that `cl` and `flows` are Evergreen's.

In the clone both lie beside this folder. A wheel has them inside it, and `evergreen_clip.pth` puts it at the end of Python's path, so
that `import cl` and `import flows` mean the same in both, and no file of another distribution is written over.
"""

import importlib.machinery
import os
import sys
from pathlib import Path
from typing import Any

_OWN = ("cl", "flows")


def home() -> Path:
    """The folder that holds Evergreen's `cl` and `flows`."""
    here = Path(__file__).resolve().parent
    return here if (here / "flows").is_dir() else here.parent


def clash(path: list[str] | None = None) -> str:
    """What is wrong where `cl` or `flows` is found that is not Evergreen's, in a sentence; nothing where all is well.

    Args:
        path: where modules are looked for; default: `sys.path`.
    """
    for name in _OWN:
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        places = [Path(place).resolve() for place in (spec.submodule_search_locations or [spec.origin or ""])] if spec else []
        if places and home() / name not in places:
            return (
                f"Python finds another `{name}` ({places[0]}) before Evergreen's own ({home() / name}), so that Prefect's and MLflow's"
                " processes would run that one; install Evergreen in an environment of its own (python -m venv), or take the other away"
            )
    return ""


def main() -> None:
    """`evergreen`: the command line, unless it would be somebody else's."""
    if told := clash():
        sys.stderr.write(f"evergreen: {told}\n")
        sys.exit(2)
    _reach()
    from flows.cli.main import main as start  # once it can be found

    start()


def mlflow_app() -> Any:
    """MLflow's server behind Evergreen's guard; uvicorn looks in the current folder first, where a project may have its own `flows`."""
    sys.path.insert(0, str(home()))
    from flows.servers.guard import mlflow_app as guarded  # once it can be found

    return guarded()


def _reach() -> None:
    """Put `cl` and `flows` on the path of this process and its children where nothing does: `pip install --target` reads no .pth."""
    if importlib.machinery.PathFinder.find_spec("flows") is None:
        sys.path.append(str(home()))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(home()))))
