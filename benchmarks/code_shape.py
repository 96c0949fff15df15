"""How the code is cut: lengths of functions and files, and cycles of imports; ``python -m benchmarks.code_shape``.

A function's length is its lines from ``def`` to its end, docstring counted, decorators not. A cycle is a set of modules
each of which is reached from each by imports, wherever in a file these stand.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("gptdist", "data_prep", "launch")
ROOT = Path(__file__).parents[1]
LONGEST_FILE = 400


@dataclass(frozen=True)
class Shape:
    """What is measured of the three packages."""

    files: int
    lines: int
    functions: tuple[int, ...]
    """Lengths, the shortest first."""

    long_files: tuple[str, ...]
    """Files of more than ``LONGEST_FILE`` lines."""

    cycles: tuple[tuple[str, ...], ...]
    """Modules that import each other, directly or by way of others."""

    def percentile(self, share: float) -> int:
        """Return the length that ``share`` of the functions do not exceed."""
        return self.functions[min(len(self.functions) - 1, int(share * len(self.functions)))]


def measure(root: Path = ROOT) -> Shape:
    """Read every module of the packages below ``root``."""
    paths = {_module(root, path): path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))}
    texts = {module: path.read_text() for module, path in paths.items()}
    trees = {module: ast.parse(text) for module, text in texts.items()}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, kinds)]
    lengths = sorted((node.end_lineno or node.lineno) - node.lineno + 1 for node in found)
    sizes = {module: text.count("\n") for module, text in texts.items()}
    return Shape(
        files=len(texts),
        lines=sum(sizes.values()),
        functions=tuple(lengths),
        long_files=tuple(module for module, size in sizes.items() if size > LONGEST_FILE),
        cycles=tuple(cycles({module: set(_imported(tree, paths)) for module, tree in trees.items()})),
    )


def _module(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in names]
        else:
            continue
        yield from (name for name in names if name in known)


def cycles(imports: Mapping[str, set[str]]) -> Iterator[tuple[str, ...]]:
    """Yield each set of modules that reach each other, sorted."""
    reached = {module: _reached(module, imports) for module in imports}
    seen: set[str] = set()
    for module in sorted(imports):
        if module in reached[module] and module not in seen:
            together = {other for other in reached[module] if module in reached[other]}
            seen |= together
            yield tuple(sorted(together))


def _reached(module: str, imports: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(imports[module])
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += imports.get(other, ())
    return found


def main() -> None:
    """Print the row of the table in CONTRIBUTING.md, and what is beyond the limits."""
    shape = measure()
    figures = f"{shape.percentile(0.5)} / {shape.percentile(0.9)} / {shape.functions[-1]}"
    print("| files | lines | functions | length: median / p90 / max | files above 400 lines | import cycles |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(
        f"| {shape.files:,} | {shape.lines:,} | {len(shape.functions):,} | {figures} | {len(shape.long_files)} | "
        f"{len(shape.cycles)} |"
    )
    for one in (*shape.long_files, *(" <-> ".join(cycle) for cycle in shape.cycles)):
        print(one)


if __name__ == "__main__":
    main()
