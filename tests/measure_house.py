"""Measure the shape of the package: `python tests/measure_house.py` prints one row per measure with its bound.

The source is read as text; nothing of it is imported. `test_architecture.py` asserts the same numbers.
"""

import ast
import io
import sys
import tokenize
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "histofeat"
#: The wings from the ground up: a wing imports only from wings before it.
WINGS = (
    "exceptions",
    "model_selection",
    "images",
    "datasets",
    "metrics",
    "networks",
    "features",
    "models",
    "evaluation",
    "studies",
    "reporting",
    "cli",
)
#: The entry of the program, which belongs to no wing: it may call the topmost.
ENTRY = PACKAGE / "__main__.py"
#: What counts beside Python: templates, and the stubs in which faces list their names.
TEMPLATES = (".html", ".j2", ".css", ".js", ".svg", ".pyi")
#: What `self` and `cls` are for: they are no parameters of a call.
OWN = ("self", "cls")


def modules(folder=PACKAGE):
    """Give all Python files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


@cache
def tree_of(path):
    """Parse a file once."""
    return ast.parse(path.read_text())


def dotted(path):
    """Name of the module that a file holds, such as "histofeat.images._decoding.decoding"."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def wing_of(module):
    """Name of the wing of a module; "" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@cache
def face(package):
    """Names that a package's stub gives away, each with the module that defines it."""
    stub = PACKAGE.parent.joinpath(*package.split("."), "__init__.pyi")
    found = {}
    for node in tree_of(stub).body if stub.exists() else ():
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{package}.{node.module}" for alias in node.names}
    return found


@cache
def imports(path):
    """Give (module, name or None, line) for every import of histofeat in a file, inside functions too."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, None, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [(node.module, alias.name, node.lineno) for alias in node.names]
    return tuple(row for row in found if row[0].split(".")[0] == "histofeat")


def is_face(path):
    """Whether a file is the face of a package, which lists names and uses none."""
    return path.name == "__init__.py" and bool(face(dotted(path)))


def origin(module, name):
    """Name of the module that defines an imported name, seen through faces."""
    while name in face(module):
        module = face(module)[name]
    if name is not None and f"{module}.{name}" in _names():
        return f"{module}.{name}"
    return module


@cache
def _modules():
    return tuple(modules())


@cache
def _names():
    return {dotted(path) for path in _modules()}


def edges():
    """Imports between files: a mapping of each module to the set of modules that define what it imports."""
    return {
        dotted(path): set() if is_face(path) else {origin(module, name) for module, name, _ in imports(path)}
        for path in _modules()
    }


def circles():
    """Groups of files that import each other in a circle, by Tarjan's algorithm."""
    graph, index, low, stack, found = edges(), {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def _across():
    for path in (path for path in _modules() if path != ENTRY):
        here = wing_of(dotted(path))
        for module, name, line in imports(path):
            there = wing_of(module)
            if there and here and there != here:
                yield path, line, here, module, name


def past_faces():
    """Imports of another wing that do not go through its face, as "file:line module"."""
    return [
        f"{path.relative_to(REPOSITORY)}:{line} {module}.{name}"
        for path, line, _, module, name in _across()
        if module.count(".") > 1 or (module != "histofeat.exceptions" and name not in face(module))
    ]


def upward():
    """Imports of a wing that does not lie below, as "file:line module"."""
    return [
        f"{path.relative_to(REPOSITORY)}:{line} {module}"
        for path, line, here, module, _ in _across()
        if here not in WINGS or wing_of(module) not in WINGS[: WINGS.index(here)]
    ]


@cache
def code_lines(path):
    """Lines that hold code: no docstring, comment or blank line; of templates all but blank lines."""
    text = path.read_text()
    if path.suffix != ".py":
        return sum(bool(line.strip()) for line in text.splitlines())
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in quiet:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree_of(path)):
        body = getattr(node, "body", None)
        for item in body if isinstance(body, list) else ():
            # A string on its own documents what stands before it: a module, a definition or a constant.
            if (
                isinstance(item, ast.Expr)
                and isinstance(item.value, ast.Constant)
                and isinstance(item.value.value, str)
            ):
                lines -= set(range(item.lineno, item.end_lineno + 1))
    return len(lines)


def all_code(folder):
    """Lines of code and of templates below a folder."""
    templates = [path for path in folder.rglob("*") if path.suffix in TEMPLATES]
    return sum(code_lines(path) for path in [*modules(folder), *templates])


def signatures():
    """Give (parameters, whether a constructor, place) for every function outside `cli`, longest first."""
    found = []
    for path in _modules():
        if wing_of(dotted(path)) == "cli":
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = sum(argument.arg not in OWN for argument in every)
                found.append(
                    (count, node.name == "__init__", f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}")
                )
    return sorted(found, reverse=True)


def entries():
    """Files and folders at the top of the package, the entry of the program and what is no Python aside."""
    return sorted(
        path.name
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" and path != ENTRY) or (path / "__init__.py").exists()
    )


def small_files(bound=40):
    """Files of the package with fewer lines of code than the bound; faces hold no code."""
    return [path for path in _modules() if code_lines(path) < bound and path.name != "__init__.py"]


def table():
    """Rows of (measure, value, bound)."""
    every = signatures()
    return [
        ("entries at the top of histofeat/", len(entries()), 13),
        ("circles between files", len(circles()), 0),
        ("imports past a face", len(past_faces()), 0),
        ("imports upward", len(upward()), 0),
        ("code lines, library", all_code(PACKAGE), 30_070),
        ("code lines, library and benchmarks", all_code(PACKAGE) + all_code(REPOSITORY / "benchmarks"), 33_000),
        ("files in the library", len(_modules()), 204),
        ("files under 40 code lines, faces aside", len(small_files()), 15),
        ("parameters of a function", next(count for count, constructor, _ in every if not constructor), 12),
        ("parameters of a constructor", next(count for count, constructor, _ in every if constructor), 14),
    ]


def main(arguments=()):
    """Print the table, and with --detail what stands behind it."""
    for measure, value, bound in table():
        print(f"{measure:<40} {value:>7,}  at most {bound:>6,}{'' if value <= bound else '  <-- over'}")
    if "--detail" in arguments:
        for title, rows in (("circles", circles()), ("past a face", past_faces()), ("upward", upward())):
            print(f"\n{title}:", *rows, sep="\n  ")
        print("\nsmall files:", *(path.relative_to(REPOSITORY) for path in small_files()), sep="\n  ")
        print("\nlongest signatures:", *(f"{count} {place}" for count, _, place in signatures()[:20]), sep="\n  ")


if __name__ == "__main__":
    main(sys.argv[1:])
