"""YAML as plain values, whoever wrote it: what a few lines can blow up into, by aliases, merges or depth, is bounded before it is built."""

from collections.abc import Hashable
from typing import Any

import yaml

from cl.errors import ConfigError

LARGEST = 500_000  # characters: the parser takes 12 s for a million
_DEPTH = 50  # a config has a handful of levels
_VALUES = 100_000  # with each alias as large as what it stands for
_DIGITS = 1_000  # of one number: 1:59:59:... takes the square of its length


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice (the second would silently win), and which is as small as it looks."""

    def get_single_data(self) -> Any:
        """The value of the one document, None of an empty one."""
        node = self.get_single_node()
        if node is None:
            return None
        _measure(node)
        return self.construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping, after a look at its keys."""
        first: dict[str, yaml.ScalarNode] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<" and first.setdefault(key.value, key) is not key:
                before = first[key.value].start_mark.line + 1
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice, first in line {before}", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:  # of a date or number that is none: PyYAML lets Python's own errors through
            raise yaml.MarkedYAMLError(
                problem=f"a value is not of the kind it looks like: {error}; quote it", problem_mark=node.start_mark
            ) from error


def parse(text: str, source: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        ConfigError: it is not YAML, or over 500,000 characters, 50 levels, or 100,000 values once its aliases are written out.
    """
    if len(text) > LARGEST:
        raise ConfigError(f"{source}: {len(text):,} characters; a config has at most {LARGEST:,}")
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise ConfigError(f"{source}{line}: not valid YAML ({getattr(error, 'problem', 'syntax error')})") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply; a config has a handful of levels") from error


def _measure(root: yaml.Node) -> None:
    """Raise where aliases, written out, make too much of a document; each node is visited once, however often it is meant."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()
    todo = [(root, False)]
    while todo:
        node, left = todo.pop()
        children = _children(node)
        if left:
            open_.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            if sizes[id(node)] > _VALUES:
                raise yaml.MarkedYAMLError(problem=f"aliases make over {_VALUES:,} values of it", problem_mark=node.start_mark)
        elif id(node) in open_:
            raise yaml.MarkedYAMLError(problem="an alias stands for what it is part of", problem_mark=node.start_mark)
        elif id(node) not in sizes:
            if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")) and len(node.value) > _DIGITS:
                raise yaml.MarkedYAMLError(problem=f"a number of over {_DIGITS:,} characters", problem_mark=node.start_mark)
            if len(open_) >= _DEPTH:
                raise yaml.MarkedYAMLError(problem=f"nested over {_DEPTH} levels deep", problem_mark=node.start_mark)
            open_.add(id(node))
            todo.append((node, True))
            todo += [(child, False) for child in children if id(child) not in sizes]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
