"""What `inspect.signature`, `typing.get_type_hints` and `help` show of every public name, in both clients."""

from __future__ import annotations

import importlib.util
import inspect
import typing
from typing import TYPE_CHECKING, Any

import pytest

import blocksd
import generate_client
from support import do_without

if TYPE_CHECKING:
    from collections.abc import Iterator

PAIRED = (
    "Client",
    "Memory",
    "Tools",
    "Watch",
    "Blocks",
    "Agents",
    "BlockAgents",
    "AgentBlocks",
    "Tags",
    "Batch",
    "Versions",
    "AgentFiles",
)
AT_ONCE = {
    *(
        "AsyncClient.batch",
        "AsyncClient.over",
        "AsyncClient.memory",
        "AsyncClient.watch",
        "AsyncMemory.tools",
        "AsyncMemory.watch",
    ),
    *(f"AsyncBatch.{name}" for name in ("create", "update", "append", "replace", "insert", "apply_patch", "rename")),
    *(f"AsyncBatch.{name}" for name in ("attach", "detach", "restore", "merge", "delete")),
    *("AsyncTools.openai", "AsyncTools.openai_responses", "AsyncTools.anthropic", "AsyncWatch.call", "AsyncWatch.stop"),
}
"""The methods of asyncio code that send nothing, and are not awaited."""


def classes() -> dict[str, type]:
    """The public classes, and those of the client's resources."""
    public = [getattr(blocksd, name) for name in blocksd.__all__]
    found = {one.__name__: one for one in public if inspect.isclass(one)}
    for client in (blocksd.Client, blocksd.AsyncClient):
        for owner in (client, type(client("unix:///none").blocks), type(client("unix:///none").agents)):
            for _, one in inspect.getmembers(owner, lambda one: isinstance(one, property)):
                found[typing.get_type_hints(one.fget)["return"].__name__] = typing.get_type_hints(one.fget)["return"]
    return found


CLASSES = classes()


def functions() -> Iterator[tuple[str, Any]]:
    """Every public function, method, property and constructor, by name."""
    for name in blocksd.__all__:
        if inspect.isfunction(getattr(blocksd, name)):
            yield name, getattr(blocksd, name)
    for owner, kind in CLASSES.items():
        for name, one in inspect.getmembers_static(kind):
            if name.startswith("_") and name != "__init__":
                continue
            function = one.fget if isinstance(one, property) else getattr(one, "__func__", one)
            if inspect.isfunction(function) and (name == "__init__" or function.__module__.startswith("blocksd.")):
                yield f"{owner}.{name}", function


FUNCTIONS = dict(functions())
OWNED = {
    owner: [name for name in FUNCTIONS if name.partition(".")[0] == owner]
    for owner in dict.fromkeys(name.partition(".")[0] for name in FUNCTIONS)
}
"""The names of each class, and each function by itself."""
METHODS = {name: one for name, one in FUNCTIONS.items() if not name.endswith("__init__")}


def test_names_are_found() -> None:
    """What is walked are all methods of both clients, down to the deepest resource."""
    for name in ("connect", "Client.watch", "Blocks.list", "BlockAgents.counts", "AgentBlocks.modify", "Memory.append"):
        assert name in FUNCTIONS
    assert len(FUNCTIONS) > 200
    assert {f"Async{name}" for name in PAIRED} < CLASSES.keys()


@pytest.mark.parametrize("owner", OWNED)
def test_signatures_are_real(owner: str) -> None:
    """Each parameter is named, each has a type that is there at run time, and so has the result."""
    for name in OWNED[owner]:
        function = FUNCTIONS[name]
        parameters = list(inspect.signature(function).parameters.values())
        hints = typing.get_type_hints(function)
        if name.endswith("__init__") and issubclass(CLASSES[owner], Exception):
            assert [str(one) for one in parameters[2:]] in (["**facts: 'object'"], ["**facts: object"]), name
        elif function is not object.__init__:
            kinds = {one.kind for one in parameters}
            assert kinds.isdisjoint({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}), name
            assert {one.name for one in parameters if one.name not in ("self", "cls")} | {"return"} == hints.keys(), (
                name
            )


def test_names_are_described() -> None:
    """`help` says what each is."""
    described = {**METHODS, **CLASSES}
    assert [name for name, one in described.items() if not inspect.cleandoc(one.__doc__ or "")] == []


def is_refused_nonsense(function: Any) -> bool:
    """Whether an argument that it does not know is a TypeError."""
    parameters = inspect.signature(function).parameters.values()
    needed = [one for one in parameters if one.default is inspect.Parameter.empty]
    by_name = {one.name: None for one in needed if one.kind is inspect.Parameter.KEYWORD_ONLY}
    try:
        function(*[None] * (len(needed) - len(by_name)), **by_name, nonsense=None)
    except TypeError as error:
        return "unexpected keyword argument 'nonsense'" in str(error)
    return False


@pytest.mark.parametrize("owner", OWNED)
def test_unknown_keyword_is_a_type_error(owner: str) -> None:
    """A misspelt argument is never taken for one that is not given."""
    strict = [
        name
        for name in OWNED[owner]  # all but the facts of an error
        if not any(
            one.kind is inspect.Parameter.VAR_KEYWORD for one in inspect.signature(FUNCTIONS[name]).parameters.values()
        )
    ]
    assert [name for name in strict if not is_refused_nonsense(FUNCTIONS[name])] == []


# --- the same in both clients ---


@pytest.mark.parametrize("name", PAIRED)
def test_clients_are_alike(name: str) -> None:
    """Both have the same methods, with the same parameters, defaults and text."""
    blocking, asynchronous = CLASSES[name], CLASSES[f"Async{name}"]
    ours = {method.partition(".")[2] for method in METHODS if method.partition(".")[0] == name}
    assert ours == {method.partition(".")[2] for method in METHODS if method.partition(".")[0] == f"Async{name}"}
    if name != "Watch":  # which says what a thread does, and what a task
        assert blocking.__doc__ == generate_client.words(asynchronous.__doc__ or "")
    for method in ours:
        one, other = FUNCTIONS[f"{name}.{method}"], FUNCTIONS[f"Async{name}.{method}"]
        assert one.__doc__ == generate_client.words(other.__doc__ or "")
        assert [(p.name, p.kind, p.default) for p in inspect.signature(one).parameters.values()] == [
            (p.name, p.kind, p.default) for p in inspect.signature(other).parameters.values()
        ]


def test_connect_is_alike() -> None:
    """The two functions that give a client differ in nothing but what they give."""
    one, other = blocksd.connect, blocksd.aconnect
    assert one.__doc__ == generate_client.words(other.__doc__ or "")
    assert inspect.signature(one).parameters == inspect.signature(other).parameters


def test_asyncio_methods_are_awaited() -> None:
    """All but those that send nothing; and a blocking client has none to await."""
    methods = {name: one for name, one in METHODS.items() if name.startswith("Async")}
    owners = {name: inspect.getattr_static(CLASSES[name.partition(".")[0]], name.partition(".")[2]) for name in methods}
    at_once = {
        name
        for name, one in methods.items()
        if not inspect.iscoroutinefunction(one) and not isinstance(owners[name], property)
    }
    assert at_once == AT_ONCE
    others = {name for name in METHODS if name not in methods and inspect.iscoroutinefunction(METHODS[name])}
    assert others == {"Reset.aload", "BasicBlockMemory.compile_async", "ChatMemory.compile_async"}


@pytest.mark.parametrize("source", generate_client.sources(), ids=lambda source: source.stem)
def test_blocking_module_is_that_of_the_asyncio_one(source: Any) -> None:
    """What is in the repository is what `python tests/generate_client.py` makes."""
    if importlib.util.find_spec("ruff") is None:
        do_without("ruff is not installed")
    target = generate_client.target_of(source)
    assert target.read_text(encoding="utf-8") == generate_client.generated(source), "run tests/generate_client.py"
