"""Where a config lies: as it was typed, or shipped under that name. It is told before anything is imported that takes seconds."""

from pathlib import Path

from cl.errors import ConfigError
from flows.settings import Place


def find_config(name: str, place: Place) -> Path:
    """A path as given, or the shipped config of that name.

    Raises:
        ConfigError: neither exists.
    """
    shipped = Path(__file__).parents[1] / "configs"
    for path in (place.relative(name), shipped / f"{name}.yaml"):
        if path.is_file():
            return path
    groups = sorted({f"{path.parent.name}/..." for path in shipped.glob("*/*.yaml")})
    names = ", ".join([*sorted(path.stem for path in shipped.glob("*.yaml")), *groups])
    raise ConfigError(f"{name}: no such config; give the path of a YAML file, or one of {names or 'none shipped'}")
