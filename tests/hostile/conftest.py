"""What several hostile tests share."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from flows.settings import Place
from tests.test_serve import Program, free


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The real servers of `evergreen up`, once for all slow tests here."""
    root, prefect, mlflow = tmp_path_factory.mktemp("up"), free(), free()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("EVERGREEN_ROOT", str(root))
        patch.setenv("PREFECT_HOME", str(root / ".prefect"))
        program = Program("up", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow))
    try:
        program.wait_for("Ctrl-C stops them")
        yield SimpleNamespace(place=Place(root), prefect=prefect, mlflow=mlflow, said=program.said, pid=program.process.pid)
    finally:
        assert program.stop() == 0
