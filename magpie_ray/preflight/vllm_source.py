"""What vLLM's source declares: the fields of a class, and the type that each may have.

vLLM itself takes many seconds to import, and may be installed where it can't run. Invariant: where the source
does not say something plainly, the type is Any.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union

from pydantic import AfterValidator, ConfigDict
from typing_extensions import TypedDict

_PLAIN: Mapping[str, Any] = MappingProxyType(
    {
        **{kind.__name__: kind for kind in (bool, int, float, str, list, dict, set)},
        "None": None,
        "Any": Any,
        "Callable": Callable,
    }
)
_GENERIC: Mapping[str, Any] = MappingProxyType(
    {"list": list, "dict": dict, "set": set, "Optional": Optional, "Union": Union, "Literal": Literal}
)
_CLASS_DECORATORS = ("config", "dataclass")
_ENUMS = ("Enum", "IntEnum", "StrEnum")
# Classes within classes and imports of imports that are followed.
_DEPTH = 6


class Declared(NamedTuple):
    """A type as it stands in a module. is_loose: a text may be written in capitals and with hyphens, too."""

    node: ast.expr
    module: Path
    is_loose: bool = False


def fields_of(name: str, module: Path) -> dict[str, Declared]:
    """The fields that a class of this module sets. Empty where the module lacks it."""
    match _definition(name, module):
        case ast.ClassDef() as node, where:
            return dict(_annotated(node, where))
    return {}


def type_of(declared: Declared, depth: int = 0) -> Any:
    """The type that pydantic can check. A class of vLLM's stands for a mapping of its fields."""
    node, module, _ = declared

    def inner(part: ast.expr) -> Any:
        return type_of(Declared(part, module), depth)

    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return inner(ast.parse(text, mode="eval").body)
        case ast.Name(id=name) if name in _PLAIN:
            return _PLAIN[name]
        case ast.Name(id=name) if depth < _DEPTH:
            return _named(name, module, depth + 1)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _GENERIC["Union"][inner(left), inner(right)]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=listed):
            items = listed.elts if isinstance(listed, ast.Tuple) else [listed]
            values = tuple(item.value for item in items if isinstance(item, ast.Constant))
            return _GENERIC["Literal"][values] if len(values) == len(items) else Any
        case ast.Subscript(value=ast.Name(id="Callable")):
            return Callable
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=items)) if name in _GENERIC:
            return _GENERIC[name][tuple(inner(item) for item in items)]
        case ast.Subscript(value=ast.Name(id=name), slice=item) if name in _GENERIC:
            return _GENERIC[name][inner(item)]
    return Any


def _named(name: str, module: Path, depth: int) -> Any:
    """The type of a name that vLLM gives to another type, an enumeration or a class of settings."""
    match _definition(name, module):
        case ast.Assign(value=ast.Subscript() | ast.BinOp() as value), where:
            return type_of(Declared(value, where), depth)
        case ast.ClassDef() as node, where:
            if any(isinstance(base, ast.Name) and base.id in _ENUMS for base in node.bases):
                return _members(node)
            return _settings(node, where, depth)
    return Any


@cache
def _parsed(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return None


def _definition(name: str, module: Path, imports: int = 0) -> tuple[ast.stmt, Path] | None:
    """The statement that defines a name, and its module. None where there is none, or more than one."""
    tree = _parsed(module)
    found = [statement for statement in _statements(tree.body if tree else []) if _defines(statement, name)]
    if len(found) != 1 or imports > _DEPTH:
        return None
    if not isinstance(found[0], ast.ImportFrom):
        return found[0], module
    source = _module(found[0].module or "", module)
    return _definition(name, source, imports + 1) if source else None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _statements([*statement.body, *statement.orelse])


def _defines(statement: ast.stmt, name: str) -> bool:
    match statement:
        case ast.ClassDef(name=found) | ast.Assign(targets=[ast.Name(id=found)]):
            return found == name
        case ast.ImportFrom(level=0, names=names):
            return any(name in (item.asname, item.name if item.asname is None else None) for item in names)
    return False


def _module(dotted: str, importer: Path) -> Path | None:
    """The file of a module of the same package; None for a module of another one."""
    package, *rest = dotted.split(".")
    root = next((folder for folder in importer.parents if folder.name == package), None)
    if root is None:
        return None
    path = root.joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _annotated(node: ast.ClassDef, module: Path) -> Iterator[tuple[str, Declared]]:
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            yield field.target.id, Declared(field.annotation, module, _is_changed(field.value, module))


def _is_changed(default: ast.expr | None, module: Path) -> bool:
    """Whether the default is that of another class's field, whose values a validator changes first."""
    match default:
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            pass
        case ast.Call(args=[ast.Name(id=owner), ast.Constant(value=name)]):
            pass
        case _:
            return False
    match _definition(owner, module):
        case ast.ClassDef(body=body), _:
            functions = (item for item in body if isinstance(item, ast.FunctionDef))
            return not {name, "*"}.isdisjoint(
                changed for function in functions for changed in _changed_before(function)
            )
    return False


def _settings(node: ast.ClassDef, module: Path, depth: int) -> Any:
    """A mapping of the fields of a dataclass. Any where more than its fields says what it takes."""
    decorators = [item.func if isinstance(item, ast.Call) else item for item in node.decorator_list]
    is_data = any(isinstance(item, ast.Name) and item.id in _CLASS_DECORATORS for item in decorators)
    functions = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    changed = [name for function in functions for name in _changed_before(function)]
    own_rules = any(function.name in ("__init__", "__new__") for function in functions)
    if not is_data or node.bases or own_rules or "*" in changed:
        return Any
    fixed = {field.target.id for field in node.body if _is_fixed(field)}  # type: ignore[attr-defined]
    types = {
        # Defaults are None where the type says nothing of it, and leave the choice to vLLM.
        name: Any if name in changed else _GENERIC["Optional"][type_of(declared, depth)]
        for name, declared in _annotated(node, module)
        if name not in fixed
    }
    make: Any = TypedDict
    mapping = make(node.name, types, total=False)
    mapping.__pydantic_config__ = ConfigDict(extra="forbid")
    return mapping


def _is_fixed(field: ast.stmt) -> bool:
    """Whether a field can't be given: a constant of the class, or init=False."""
    match field:
        case ast.AnnAssign(annotation=ast.Subscript(value=ast.Name(id="ClassVar"))):
            return True
        case ast.AnnAssign(value=ast.Call(keywords=keywords)):
            given = {item.arg: item.value for item in keywords}
            init = given.get("init")
            return isinstance(init, ast.Constant) and init.value is False
    return False


def _changed_before(function: ast.FunctionDef) -> Iterator[str]:
    """Fields whose values a validator changes before their type is checked; "*" for all of them."""
    for item in function.decorator_list:
        match item:
            case ast.Call(func=ast.Name(id="field_validator" | "model_validator" as kind), args=args):
                mode = next((k.value for k in item.keywords if k.arg == "mode"), None)
                if isinstance(mode, ast.Constant) and mode.value != "after":
                    names = [arg.value for arg in args if isinstance(arg, ast.Constant)]
                    yield from map(str, names) if kind == "field_validator" else ("*",)


def _members(node: ast.ClassDef) -> Any:
    """One of an enumeration's numbers, or of its names in any case. Any where its values are no constants."""
    members = {
        item.targets[0].id: item.value.value
        for item in node.body
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name)
        if isinstance(item.value, ast.Constant)
    }
    if len(members) != sum(isinstance(item, ast.Assign) for item in node.body):
        return Any
    if all(isinstance(value, int) for value in members.values()):
        return _GENERIC["Literal"][tuple(members.values())]
    known = {text.casefold() for text in (*members, *map(str, members.values()))}

    def check(value: object) -> object:
        if isinstance(value, str) and value.casefold() in known:
            return value
        raise ValueError(f"must be one of {', '.join(members)}")

    return Annotated[Any, AfterValidator(check)]
