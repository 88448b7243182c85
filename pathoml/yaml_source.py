"""YAML read as plain data that remembers its line numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pathoml.errors import ConfigError, Problem

KeyPath = tuple[str | int, ...]
_MAX_BYTES = 1 << 20
_MAX_DEPTH = 20
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "timestamp", "map", "seq")}


@dataclass(frozen=True)
class YamlSource:
    """Plain data and where each key of it stands.

    Parameters
    ----------
    data : dict
        Mappings, lists and scalars.
    lines : mapping of key path to str
        ``file:line`` of every key.
    """

    data: dict[str, Any]
    lines: Mapping[KeyPath, str]

    def where(self, path: KeyPath) -> str:
        """Return ``file:line`` of a key, or of its nearest ancestor that the file holds.

        Parameters
        ----------
        path : tuple of str or int
            Keys and list positions from the root.

        Returns
        -------
        str
            ``file:line``; empty if nothing of the path stands in a file.
        """
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return ""


def read_yaml(path: Path) -> YamlSource:
    """Read a YAML 1.2 file that holds one mapping.

    Parameters
    ----------
    path : Path
        The file; at most 1 MiB, no anchors or tags of its own.

    Returns
    -------
    YamlSource
        Its data with line numbers.

    Raises
    ------
    ConfigError
        If the file is missing, too large, not YAML, or uses a feature that is refused.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file")
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB; a configuration is a short text file")
    try:
        text = path.read_text(encoding="utf-8")
        root = YAML(typ="safe", pure=True).compose(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path.name}:{line}: not valid YAML: {error.problem}") from error
    except YAMLError as error:
        raise ConfigError(f"{path.name}: not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path.name}: nested deeper than {_MAX_DEPTH} levels") from error
    if not isinstance(root, MappingNode):
        raise ConfigError(
            f"{path.name}:1: expected 'key: value' lines, found {'nothing' if root is None else 'something else'}"
        )
    return _Builder(path.name).build(root)


def read_scalar(text: str) -> Any:
    """Read the value of a ``--set key=value`` option as YAML would.

    Parameters
    ----------
    text : str
        For example ``3``, ``true``, ``[1, 2]`` or a word.

    Returns
    -------
    Any
        The plain value.
    """
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except (YAMLError, RecursionError) as error:
        raise ConfigError(
            f"--set ...={text}: not a YAML value ({type(error).__name__}); put quotes around text"
        ) from error
    if root is None:
        return None
    builder = _Builder("--set")
    value = builder.value(root, (), 0)
    builder.raise_problems()
    return value


class _Builder:
    """Turns YAML nodes into plain data, noting lines on the way."""

    def __init__(self, file_name: str) -> None:
        self._file_name = file_name
        self._lines: dict[KeyPath, str] = {}
        self._seen: set[int] = set()
        self._problems: list[Problem] = []

    def build(self, root: MappingNode) -> YamlSource:
        self._lines[()] = f"{self._file_name}:1"
        data = self.value(root, (), 0)
        self.raise_problems()
        return YamlSource(data, self._lines)

    def raise_problems(self) -> None:
        if self._problems:
            raise ConfigError(f"{self._file_name}: {len(self._problems)} problem(s)", self._problems)

    def value(self, node: Node, path: KeyPath, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ConfigError(f"{self._where(node)}: nested deeper than {_MAX_DEPTH} levels")
        if id(node) in self._seen:
            self._refuse(node, "anchors and aliases (&name, *name) are not allowed; write the value out")
            return None
        self._seen.add(id(node))
        if str(node.tag) not in _TAGS:
            self._refuse(node, f"the tag {node.tag} is not allowed; put quotes around text")
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, SequenceNode):
            return [self._item(item, (*path, index), depth) for index, item in enumerate(node.value)]
        return self._scalar(node) if isinstance(node, ScalarNode) else None

    def _item(self, node: Node, path: KeyPath, depth: int) -> Any:
        self._lines[path] = self._where(node)
        return self.value(node, path, depth + 1)

    def _mapping(self, node: MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in data:
                self._refuse(key_node, f"key '{key}' stands twice; keep one")
            self._lines[(*path, key)] = self._where(key_node)
            data[key] = self.value(value_node, (*path, key), depth + 1)
        return data

    def _scalar(self, node: ScalarNode) -> Any:
        kind = str(node.tag).rsplit(":", 1)[-1]
        try:
            return _construct(node, kind)
        except ValueError as error:
            self._refuse(node, f"not a valid {kind} ({error}); put quotes around text")
            return None

    def _where(self, node: Node) -> str:
        return f"{self._file_name}:{node.start_mark.line + 1}"

    def _refuse(self, node: Node, message: str) -> None:
        self._problems.append(Problem(self._where(node), message))


def _construct(node: ScalarNode, kind: str) -> Any:
    """Build a scalar with the rules of ruamel's own safe constructor."""
    constructor: Any = SafeConstructor(loader=YAML(typ="safe", pure=True))
    builders: dict[str, Callable[[], Any]] = {
        "null": lambda: None,
        "bool": lambda: constructor.construct_yaml_bool(node),
        "int": lambda: constructor.construct_yaml_int(node),
        "float": lambda: constructor.construct_yaml_float(node),
        "str": lambda: str(node.value),
        "timestamp": lambda: str(node.value),  # YAML 1.2 has no dates
    }
    return builders[kind]()
