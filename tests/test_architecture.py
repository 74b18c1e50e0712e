"""House rules that a machine can check: which module may import which, how long a file is, and what is never called."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for package in ("cl", "evergreen_clip", "flows") for path in (ROOT / package).rglob("*.py"))
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}

every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())


def long(source: str, most: int = 50) -> list[str]:
    """Functions of more than so many lines, the docstring counted."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [each.name for each in functions if (each.end_lineno or 0) - each.lineno >= most]


def prints(source: str) -> list[int]:
    """Lines that call print."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"]


def unpickles(source: str) -> list[int]:
    """Lines that could run code out of a data file: a pickle module, or torch.load, numpy.load and read_pickle where they may."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if PICKLES & {name.name.partition(".")[0] for name in names}:
                lines.append(node.lineno)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in PICKLES:
                lines.append(node.lineno)
            case ast.Call(func=called, keywords=keywords):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
                name = ast.unparse(called)
                unsafe = name == "torch.load" and given.get("weights_only") != "True"
                if unsafe or name.endswith("read_pickle") or given.get("allow_pickle") == "True":
                    lines.append(node.lineno)
    return lines


def vague(source: str) -> list[int]:
    """Lines that give something the name `found`, which says nothing of what it is; a field that is held against what is expected may."""
    tree = ast.parse(source if "found" in source else "")  # most have no such word
    fields = {id(node.target) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and not node.value}
    stored = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields)
    given = (node for node in ast.walk(tree) if isinstance(node, ast.arg))
    return [node.lineno for node in stored if node.id == "found"] + [node.lineno for node in given if node.arg == "found"]


@every_module
def test_a_file_fits_in_300_lines_a_function_in_50_says_what_it_is_and_neither_prints_nor_unpickles(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 300
    assert (ast.get_docstring(ast.parse(source)) or "").strip()
    assert not prints(source) and not unpickles(source)
    assert not long(source) and not vague(source)


def test_what_is_only_called_found_is_found() -> None:
    assert vague(
        "found = 1\nif found := look():\n    pass\nfor found, x in y: pass\nclass Unlike:\n    found: int\n    called.found = 2"
    ) == [1, 2, 4]
    assert vague("def f(found): return lambda found: 1") == [1, 1]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("print(1)", [1]),
        ("console.print(1)\n'print(1)'", []),
    ],
)
def test_a_print_is_found_where_it_is_called(source: str, lines: list[int]) -> None:
    assert prints(source) == lines


def lazy(source: str) -> list[int]:
    """Lines of functions where imports begin of which no comment says why they are not at the top."""
    lines, late = source.splitlines(), []
    for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        imports = sorted(
            (node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)), key=lambda node: node.lineno
        )
        said = 0  # the last line that a comment speaks for: one at the first of several stands for those right below it
        for node in imports:
            if "#" in lines[node.lineno - 1] or node.lineno <= said + 1:
                said = node.end_lineno or node.lineno
            else:
                late.append(node.lineno)
    return sorted(set(late))


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[-2] != "cli"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_an_import_inside_a_function_says_why_but_on_the_command_line_whose_help_comes_at_once(path: Path) -> None:
    assert lazy(path.read_text()) == []


def test_an_import_inside_a_function_without_a_reason_is_found() -> None:
    assert lazy("def f():\n    import a\n    import b  # slow\n    import c\n\n    import d") == [2, 6]


def test_a_function_of_51_lines_is_found() -> None:
    assert long("def f():\n" + "    pass\n" * 50) == ["f"] and long("def f():\n" + "    pass\n" * 49) == []


@pytest.mark.parametrize(
    "source", ["import pickle", "from joblib import load", "torch.load(x)", "torch.load(x, weights_only=False)", "pd.read_pickle(x)"]
)
def test_what_could_run_code_from_a_file_is_found(source: str) -> None:
    assert unpickles(source) == [1] and unpickles("torch.load(x, weights_only=True)\nimport json") == []


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    command = [str(program), "--no-cache", "--no-logo", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_arrows_point_one_way_and_learning_talks_to_no_server() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert [line.endswith("KEPT") for line in done.stdout.splitlines() if line.endswith(("KEPT", "BROKEN"))] == [True] * 4


def test_an_arrow_the_wrong_way_is_found(tmp_path: Path) -> None:
    for path in MODULES:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    (tmp_path / "cl" / "methods" / "losses.py").write_text("import mlflow\nfrom cl.learning.learner import learn\n")
    (tmp_path / "cl" / "methods" / "losses.py").open("a").write("from cl.methods.presets.finetune import FinetuneConfig\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert sum(line.endswith("BROKEN") for line in done.stdout.splitlines()) == 3


def test_what_does_not_need_the_servers_does_not_import_them() -> None:
    # help and a wrong file name are told in half a second; prefect, mlflow, dvc and torch take many
    heavy = ["prefect", "mlflow", "dvc", "torch", "lightning", "open_clip", "avalanche", "pyarrow"]
    asked = [sys.executable, "-c", f"import sys, flows.cli.main; sys.exit([name for name in {heavy} if name in sys.modules] or None)"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
