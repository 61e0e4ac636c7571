"""Settings out of YAML: read with guards, laid over each other, and every value knows where it came from."""

import difflib
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from colorcli.errors import PresetError
from colorcli.files import TooLargeError, read_plain

MAX_FILE_BYTES = 256 * 1024
MAX_VALUES = 10_000   # after aliases are expanded: "billion laughs" stops here
MAX_DEPTH = 24
LONGEST_QUOTE = 200   # characters of what was typed
NOT_SETTINGS = ("extends", "description")   # keys of a file that say something about the file itself


class Group(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


GroupT = TypeVar("GroupT", bound=Group)


@dataclass(frozen=True)
class Key:
    """One setting: its dotted path, what it may be, its default, what it means."""

    path: str       # "sampling.steps"
    allowed: str    # "a whole number, 1 to 100"
    default: Any
    meaning: str
    entries: tuple["Key", ...] = ()   # of a setting that is a list of groups: what stands in each of them


@dataclass(frozen=True)
class Layer:
    """The values of one file or one command line: dotted path -> (value, where it stands)."""

    label: str                               # "mystyle.yaml" or "--set"
    values: Mapping[str, tuple[Any, str]]    # "sampling.steps" -> (12, "mystyle.yaml:7")


@dataclass(frozen=True)
class Problem:
    """Something wrong in a layer, in the words of an error message."""

    message: str
    hint: str | None = None


class PlainLoader(yaml.SafeLoader):
    """YAML with the scalars of YAML 1.2 only: `off` and `no` are words, `010` is ten, and a date is text."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (the type is PyYAML's own)

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.nodes, self.depth = 0, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML, but it ends where no settings file goes on: to read a long one to its end takes seconds."""
        self.nodes += 1
        self.depth += 1
        if self.depth > MAX_DEPTH + 2:
            raise RecursionError
        if self.nodes > 2 * MAX_VALUES:   # keys count here as well
            raise _TooMuchError
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _TooMuchError(Exception):
    """More values than any settings file has."""


BOOL, INT, FLOAT, NULL, STR = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null", "str"))
PlainLoader.add_implicit_resolver(BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
PlainLoader.add_implicit_resolver(INT, re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
PlainLoader.add_implicit_resolver(
    FLOAT, re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)
PlainLoader.add_implicit_resolver(NULL, re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])


def read_yaml(path: Path) -> yaml.Node | None:
    """Read a YAML file as a tree of nodes (nothing is built from it yet); None if it holds no value.

    Raises PresetError if it cannot be read, is larger than 256 kB, is no text, or is no YAML.
    """
    if path.is_dir():
        raise PresetError(f"{path} is a folder, not a YAML file")
    try:
        data = read_plain(path, MAX_FILE_BYTES)
    except TooLargeError:
        raise PresetError(f"{path} is larger than {MAX_FILE_BYTES // 1024} kB, which no settings file is",
                          hint="check that it is the file you meant") from None
    except FileNotFoundError:
        raise PresetError(f"there is no file {path}", hint="check the name, or see `colorcli presets list`") from None
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise PresetError(f"{path} cannot be read: {reason}", hint="check its name and its permissions") from None
    try:
        return parse_yaml(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise PresetError(f"{path} is no UTF-8 text", hint="check that it is the file you meant") from None


def parse_yaml(text: str, label: str) -> yaml.Node | None:
    """Parse YAML text into a tree of nodes. Raises PresetError naming `label` and the line."""
    try:
        return cast("yaml.Node | None", yaml.compose(text, Loader=PlainLoader))
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        line = f":{mark.line + 1}" if mark else ""
        tabbed = "'\\t'" in str(failure.problem)
        hint = "indent with spaces, not with tabs" if tabbed else "check that line and the one above"
        raise PresetError(f"{label}{line} is no readable YAML: {failure.problem}", hint=hint) from None
    except yaml.YAMLError as failure:
        raise PresetError(f"{label} is no readable YAML: {failure}") from None
    except RecursionError:
        raise PresetError(f"{label} is nested too deeply to be a settings file") from None
    except _TooMuchError:
        raise _too_much(label) from None


def _too_much(label: str) -> PresetError:
    return PresetError(f"{label} expands to more than {MAX_VALUES} values or {MAX_DEPTH} levels: refused",
                       hint="take the aliases (*name) out of it, and look whether it is the file you meant")


class NodeReader:
    """Turns YAML nodes into plain values, and stops at what no settings file needs."""

    def __init__(self, label: str, *, one_line: bool = False) -> None:
        self.label = label
        self.one_line = one_line
        self.values_read = 0

    def where(self, node: yaml.Node) -> str:
        return self.label if self.one_line else f"{self.label}:{node.start_mark.line + 1}"

    def value(self, node: yaml.Node, depth: int = 0) -> Any:
        """The plain value of a node; lists become tuples. Raises PresetError for tags, bombs and duplicate keys."""
        self.values_read += 1
        if self.values_read > MAX_VALUES or depth > MAX_DEPTH:
            raise _too_much(self.label)
        if isinstance(node, yaml.MappingNode):
            return {name: self.value(child, depth + 1) for name, child, _ in self.items(node)}
        if isinstance(node, yaml.SequenceNode):
            self.refuse_tag(node, "tag:yaml.org,2002:seq")
            return tuple(self.value(child, depth + 1) for child in node.value)
        text = str(node.value)
        try:
            if node.tag == INT:
                return int(text)
            if node.tag == FLOAT:
                return float(text)
        except ValueError:
            raise PresetError(f"{self.where(node)}: {shown(text)} is no number") from None
        if node.tag == BOOL:
            return text.lower() == "true"
        if node.tag == NULL:
            return None
        self.refuse_tag(node, STR)
        return text

    def items(self, node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, str]]:
        """The (key, value node, where) of a mapping. Raises PresetError for a key that is no word or comes twice."""
        self.refuse_tag(node, "tag:yaml.org,2002:map")
        seen: dict[str, str] = {}
        for key_node, child in node.value:
            where = self.where(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise PresetError(f"{where}: a key has to be a word")
            self.refuse_tag(key_node, key_node.tag if key_node.tag in (INT, FLOAT, BOOL, NULL) else STR)
            name = str(key_node.value)
            if name == "<<":
                raise PresetError(f"{where}: merging with << is not supported", hint="use `extends:` instead")
            if name in seen:
                raise PresetError(f"{where}: {name} is set twice, first at {seen[name]}", hint="keep one of them")
            seen[name] = where
            yield name, child, where

    def refuse_tag(self, node: yaml.Node, expected: str) -> None:
        if node.tag != expected:
            tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
            raise PresetError(f"{self.where(node)}: the tag {tag} is refused, a settings file holds plain values only",
                              hint=f"take {tag} out; nothing in the file was run")


def read_layer(cls: type[Group], path: Path, label: str | None = None) -> tuple[Layer, dict[str, Any], list[Problem]]:
    """Read a settings file as (layer, what the file says about itself, problems with its keys).

    Raises PresetError if the file is no plain YAML mapping at all.
    """
    label = label or str(path)
    node = read_yaml(path)
    reader = NodeReader(label)
    values: dict[str, tuple[Any, str]] = {}
    about: dict[str, Any] = {}
    problems: list[Problem] = []
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == NULL):
        return Layer(label, values), about, problems
    if not isinstance(node, yaml.MappingNode):
        raise PresetError(f"{label} holds {shown(reader.value(node))}, but it must hold settings such as `sampling:`",
                          hint="`colorcli presets show cel` prints a preset to start from")
    for name, child, where in reader.items(node):
        if name in NOT_SETTINGS and name not in cls.model_fields:
            about[name] = reader.value(child)
            if not isinstance(about[name], str):
                problems.append(Problem(f"{where}: {name} is {shown(about[name])}, but it must be text"))
                about[name] = ""
        else:
            _collect(cls, reader, (name,), child, where, values, problems)
    return Layer(label, values), about, problems


def _collect(cls: type[Group], reader: NodeReader, path: tuple[str, ...], node: yaml.Node, where: str,
             values: dict[str, tuple[Any, str]], problems: list[Problem]) -> None:
    """Add what stands at `path` to `values`, group by group, and what is wrong with its keys to `problems`."""
    dotted = ".".join(path)
    inner = group_at(cls, path)
    if inner is None:
        if dotted not in {key.path for key in keys_of(cls)}:
            problems.append(unknown_key(cls, dotted, where))
        else:
            values[dotted] = (reader.value(node), where)
    elif isinstance(node, yaml.MappingNode):
        for name, child, child_where in reader.items(node):
            _collect(cls, reader, (*path, name), child, child_where, values, problems)
    elif reader.value(node) is not None:   # a group whose lines are all commented out is an empty group
        names = ", ".join(inner.model_fields)
        problems.append(Problem(f"{where}: {dotted} is {shown(reader.value(node))}, but it is a group of settings",
                                hint=f"write one of these below it: {names}"))


def override_layer(cls: type[Group], overrides: Sequence[str]) -> tuple[Layer, list[Problem]]:
    """Read `sampling.steps=12` texts of the command line as (layer, problems with their keys).

    Raises PresetError if one has no `=` or its value is no YAML.
    """
    values: dict[str, tuple[Any, str]] = {}
    problems: list[Problem] = []
    keys = {key.path: key for key in keys_of(cls)}
    for override in overrides:
        name, equals, text = override.partition("=")
        name, short = name.strip(), override[:LONGEST_QUOTE] + ("..." if len(override) > LONGEST_QUOTE else "")
        where = f"--set {short}"
        if not equals or not name:
            raise PresetError(f"{where} is not of the form key=value", hint="for example --set sampling.steps=12")
        if name not in keys:
            inner = group_at(cls, tuple(name.split(".")))
            problems.append(unknown_key(cls, name, where) if inner is None else Problem(
                f"{where}: {name} is a group of settings", hint=f"set one of {', '.join(inner.model_fields)} in it"))
            continue
        node = parse_yaml(text, where)
        value = NodeReader(where, one_line=True).value(node) if node else None
        if keys[name].allowed == "text" and isinstance(node, yaml.ScalarNode):
            value = str(node.value)   # a model may be called "2"
        values[name] = (value, where)
    return Layer("--set", values), problems


def build(cls: type[GroupT], layers: Sequence[Layer]) -> tuple[GroupT | None, dict[str, str], list[Problem]]:
    """Lay the layers over the defaults, later ones on top: (settings, where each value came from, problems).

    The settings are None if there are problems. Values that no layer sets come from "default".
    """
    nested: dict[str, Any] = {}
    origins = {key.path: "default" for key in keys_of(cls)}
    for layer in layers:
        for dotted, (value, where) in layer.values.items():
            *groups, last = dotted.split(".")
            group = nested
            for name in groups:
                group = group.setdefault(name, {})
            group[last] = value
            origins[dotted] = where
    try:
        return cls.model_validate(nested, strict=True), origins, []
    except ValidationError as failure:
        return None, origins, _wrong_values(cls, nested, origins, failure)


def _wrong_values(cls: type[Group], nested: Mapping[str, Any], origins: Mapping[str, str],
                  failure: ValidationError) -> list[Problem]:
    keys = {key.path: key for key in keys_of(cls)}
    problems: dict[str, Problem] = {}   # one for each key: a union of types reports one failure for each of them
    for detail in failure.errors():
        parts = [str(part) for part in detail["loc"]]
        dotted = next((".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in keys), None)
        if dotted is None:   # a rule over several settings of a group
            dotted = ".".join(parts)
            problems.setdefault(dotted, Problem(f"{dotted or cls.__name__}: {detail['msg']}"))
            continue
        value: Any = nested
        for name in dotted.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        inside = detail["loc"][len(dotted.split(".")):]
        if keys[dotted].entries and inside and isinstance(value, tuple):
            found = _wrong_entry(keys[dotted], value, inside, detail["type"], origins[dotted])
            problems.setdefault(found.message, found)
            continue
        problems.setdefault(dotted, Problem(
            f"{origins[dotted]}: {dotted} is {shown(value)}, but it must be {keys[dotted].allowed}",
            hint=_hint_for(keys[dotted], value)))
    return list(problems.values())


def _wrong_entry(key: Key, value: tuple[Any, ...], inside: tuple[int | str, ...], kind: str, origin: str) -> Problem:
    """The problem at a place `inside` (1, "scale", ...) the list of groups that a setting is; entries count from 1."""
    number, rest = int(inside[0]), inside[1:]
    entry, place = value[number], f"{key.path}, entry {number + 1}"
    names = ", ".join(inner.path for inner in key.entries)
    if not rest:
        return Problem(f"{origin}: {place} is {shown(entry)}, but it must be a group of settings",
                       hint=f"write it as {{{key.entries[0].path}: ..., ...}}; it may hold {names}")
    setting = next((inner for inner in key.entries if inner.path == rest[0]), None)
    if setting is None:
        near = difflib.get_close_matches(str(rest[0]), [inner.path for inner in key.entries], n=1)
        return Problem(f"{origin}: {place}: {rest[0]} is no setting",
                       hint=f"did you mean {near[0]}?" if near else f"it may hold {names}")
    if kind == "missing" and len(rest) == 1:   # not a value that lacks in a list of them
        return Problem(f"{origin}: {place} has no {setting.path}", hint=f"{setting.path}: {setting.meaning}")
    return Problem(f"{origin}: {place}: {setting.path} is {shown(entry[setting.path])}, but it must be "
                   f"{setting.allowed}", hint=_hint_for(setting, entry[setting.path]))


def _hint_for(key: Key, value: Any) -> str | None:
    """The choice that was nearly written, else what the setting means."""
    if key.entries:
        return f"begin each entry with a dash: - {key.entries[0].path}: ..."
    choices = key.allowed.removeprefix("one of ").split(", ") if key.allowed.startswith("one of ") else []
    near = difflib.get_close_matches(str(value).lower(), choices, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"{key.path}: {key.meaning}" if key.meaning else None


def raise_first(problems: Sequence[Problem], check: str) -> None:
    """Raise a PresetError for the first problem; `check` is the command that lists the others."""
    if not problems:
        return
    first, others = problems[0], len(problems) - 1
    if others:
        raise PresetError(f"{first.message} (and {others} more)", hint=f"`{check}` lists them all")
    raise PresetError(first.message, hint=first.hint)


def unknown_key(cls: type[Group], dotted: str, where: str) -> Problem:
    """The problem that `dotted` is no setting, with the nearest one that is."""
    near = nearest_key(cls, dotted)
    hint = f"did you mean {near}?" if near else "`colorcli presets keys` lists every setting"
    return Problem(f"{where}: {dotted} is no setting", hint=hint)


def nearest_key(cls: type[Group], dotted: str) -> str | None:
    """The setting or group that somebody who wrote `dotted` most likely meant, or None."""
    paths = [key.path for key in keys_of(cls)]
    groups = sorted({path.rpartition(".")[0] for path in paths} - {""})
    last = dotted.rpartition(".")[2]
    in_other_groups = [path for path in paths if path.rpartition(".")[2] == last]
    if in_other_groups:
        return max(in_other_groups, key=lambda path: difflib.SequenceMatcher(None, path, dotted).ratio())
    near = difflib.get_close_matches(dotted, [*paths, *groups], n=1, cutoff=0.7)
    if near:
        return near[0]
    by_last = {path.rpartition(".")[2]: path for path in reversed(paths)}
    near = difflib.get_close_matches(last, by_last, n=1, cutoff=0.7)
    return by_last[near[0]] if near else None


def group_at(cls: type[Group], path: Sequence[str]) -> type[Group] | None:
    """The group class at a path such as ("sampling",), or None if there is no group."""
    for name in path:
        field = cls.model_fields.get(name)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, Group)):
            return None
        cls = inner
    return cls


@functools.cache
def keys_of(cls: type[Group], prefix: str = "") -> tuple[Key, ...]:
    """Every setting of a group and of the groups in it, in the order they are declared."""
    schema = cls.model_json_schema()
    keys: list[Key] = []
    for name, field in cls.model_fields.items():
        inner = group_at(cls, (name,))
        if inner is not None:
            keys += keys_of(inner, f"{prefix}{name}.")
            continue
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        entry = _entry_group(field.annotation)
        allowed = allowed_values(schema["properties"][name])
        if entry is not None:
            most = schema["properties"][name].get("maxItems")
            up_to = f"up to {most} " if most else ""
            allowed = f"a list of {up_to}groups, each with {', '.join(entry.model_fields)}"
        keys.append(Key(f"{prefix}{name}", allowed, default, field.description or "", keys_of(entry) if entry else ()))
    return tuple(keys)


def _entry_group(annotation: Any) -> type[Group] | None:
    """The group that a list is made of, from its annotation `tuple[Group, ...]`; None if it is no such list."""
    inner = get_args(annotation)[:1] if get_origin(annotation) is tuple else ()
    return next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, Group)), None)


def allowed_values(schema: Mapping[str, Any]) -> str:
    """What a setting may be, in words, from its JSON Schema: "a whole number, 1 to 100"."""
    if "anyOf" in schema:
        return ", or ".join(allowed_values(option) for option in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        count = f"{len(items)} values" if "prefixItems" in schema else "any number of values"
        same = all(item == items[0] for item in items)
        each = f"each {allowed_values(items[0])}" if same else "; ".join(allowed_values(item) for item in items)
        return f"a list of {count}, {each}"
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text",
             "null": "null", "object": "a group"}
    return words.get(str(kind), "a value") + _range_in_words(schema, whole=kind == "integer")


def _range_in_words(schema: Mapping[str, Any], whole: bool) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if whole and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - 1
    if whole and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + 1
    if low is not None and high is not None:
        return f", {low:.15g} to {high:.15g}"
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    bounds = [f"{low:.15g} or more" if low is not None else f"above {above:.15g}" if above is not None else "",
              f"{high:.15g} or less" if high is not None else f"below {below:.15g}" if below is not None else ""]
    return "".join(f", {bound}" for bound in bounds if bound)


def flattened(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by their dotted paths: {"sampling.steps": 12, ...}; a list is one value."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{before}{name}"
        found |= flattened(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found


def shown(value: Any) -> str:
    """A value as it would stand in YAML, short enough for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
