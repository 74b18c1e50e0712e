"""Project folders as release 0.1.0 left them (made by `make.sh` beside this file, with the code of its last commit), packed.

`three`: three sessions, each learned and promoted. `last_refused`: the gate refused the model of the third. `refused_inside`: the
second was refused, and champion 3 grew out of it. `replay`: two sessions with a buffer. `half`: a third session that was killed.
"""

import sqlite3
import tarfile
from pathlib import Path

NAMES = ("three", "last_refused", "refused_inside", "replay", "half")
_ROOT = "/project"  # where they lay: MLflow keeps whole paths


def unpack(name: str, folder: Path) -> Path:
    """The project `name` in a folder, as if it had been made there."""
    with tarfile.open(Path(__file__).parent / f"{name}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
            for _, column, kind, *_ in database.execute(f"pragma table_info({table})").fetchall():
                if "CHAR" in kind.upper() or "TEXT" in kind.upper():
                    database.execute(
                        f"update {table} set {column} = replace({column}, ?, ?) where instr({column}, ?)", (_ROOT, str(folder), _ROOT)
                    )
    database.close()
    for file in folder.rglob("MLmodel"):
        file.write_text(file.read_text().replace(_ROOT, str(folder)))
    return folder
