"""Nested mappings to typed dataclasses, strictly: every unknown, missing or mistyped key is an error with its place.

Does not know: which settings there are. Invariant: every field of what `build` returns has its declared type.
"""

import dataclasses
import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from grhpc.errors import ConfigError

T = TypeVar("T")
WORDS: dict[Any, tuple[str, str]] = {  # what a value may be, in words, and an example
    int: ("a whole number", "8"),
    float: ("a number", "0.5 or 5e-7"),
    str: ("text", "words, or '8' in quotes"),
    bool: ("true or false", "true"),
    list: ("a list", "[first, second]"),
    dict: ("a mapping", "{key: value}"),
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # no tab, no end of line


def build(cls: type[T], tree: Any, where: str) -> T:
    """A dataclass from nested mappings; unknown, missing and mistyped settings raise ConfigError naming the place."""
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{where or 'the file'} must be a mapping, not {type(tree).__name__}", "write `key: value` lines"
        )
    hints = typing.get_type_hints(cls)
    for key in tree:
        if key not in hints:
            raise ConfigError(f"unknown setting {_join(where, str(key))!r}", _nearest(str(key), hints, where))
    values = {key: _convert(hints[key], value, _join(where, key)) for key, value in tree.items()}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        if f.name in values or f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING:
            continue
        place = f"under `{where}`" if where else "to the file"
        raise ConfigError(f"missing setting {_join(where, f.name)!r}", f"add `{f.name}:` {place}")
    return cls(**values)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping: of two, YAML's own loader keeps the last, without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    first = seen[key.value].line + 1
                    raise yaml.constructor.ConstructorError(
                        problem=f"{key.value!r} stands in line {first} already", problem_mark=key.start_mark
                    )
                seen[key.value] = key.start_mark
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises ConfigError."""
    try:
        tree = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        close = difflib.get_close_matches(path.name, sorted(p.name for p in path.parent.glob("*.yaml")), n=1)
        remedy = f"did you mean {path.parent / close[0]}?" if close else "see configs/ for examples"
        raise ConfigError(f"no such config file: {path}", remedy) from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a config file", "name a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text: byte {error.start}", "save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise _bad_yaml(path, error) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no settings", "see configs/ for examples")
    return tree


def _bad_yaml(path: Path, error: yaml.YAMLError) -> ConfigError:
    """Where the parser stopped, what it found, and in what."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ConfigError(f"{path} is not valid YAML: {str(error).splitlines()[0]}", "mend the file")
    place, problem = error.problem_mark, error.problem or "not understood"
    what = f"{path}, line {place.line + 1}, column {place.column + 1}, is not valid YAML: {problem}"
    if error.context and error.context_mark:
        what += f", {error.context} that began in line {error.context_mark.line + 1}"
    hints = {
        " already": "put what belongs to it in one place",
        "'\\t'": "indent with spaces, not tabs",
        "mapping values": "put a value with `: ` in it in quotes, or mend the indentation",
        "<block end>": "indent the lines of one section alike",
    }
    return ConfigError(what, next((hint for sign, hint in hints.items() if sign in problem), "mend that line"))


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one "section.key=value" in nested mappings; the value is YAML. Raises ConfigError."""
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"override {override!r} has no `=`", "write section.key=value")
    *path, last = key.split(".")
    node = tree
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {part} is not a section", "write section.key=value")
    try:
        node[last] = yaml.safe_load(value) if value else ""
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: the value is not valid YAML", "quote it") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), {} if value is None else value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if value is None else _convert(next(a for a in args if a is not type(None)), value, where)
    if origin is list and isinstance(value, list):
        return [_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {str(k): v if args[1] is Any else _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:  # YAML 1.1 reads 5e-7 as text
            return float(value)
        except ValueError:
            pass
    wanted = origin or hint
    if (isinstance(value, bool) and wanted is not bool) or not isinstance(value, wanted):
        name, example = WORDS.get(wanted, (str(hint), ""))
        raise ConfigError(f"{where} must be {name}, not {value!r}", f"write {name}, e.g. {example}")
    if isinstance(value, str) and (found := _CONTROL.search(value)):
        begin, end = max(0, found.start() - 20), found.end() + 20
        raise ConfigError(
            f"{where} holds the control character {found[0]!r}, in {value[begin:end]!r}",
            "in double quotes YAML reads \\b, \\f and others as one: write two backslashes there",
        )
    return value


def _nearest(key: str, known: typing.Iterable[str], where: str) -> str:
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {_join(where, close[0])!r}?"
    return f"known here: {', '.join(known)}"


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
