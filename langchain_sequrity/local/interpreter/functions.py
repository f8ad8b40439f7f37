"""Functions and lambdas of the program: parameters, defaults, frames."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.scopes import (
    UNBOUND,
    Frame,
    ScopeCompiler,
    function_scope,
    minimum_steps,
)
from langchain_sequrity.local.interpreter.values import (
    DictValue,
    Effects,
    FunctionValue,
    Value,
    tag,
)

_FEW = 16  # variables of a frame that the price of the call includes


@dataclass(frozen=True, slots=True)
class _Signature:
    """The parameters of a function, and their slots in its frame."""

    name: str
    positional: tuple[str, ...]
    only_positional: int
    keyword_only: tuple[str, ...]
    rest: int | None
    keywords: int | None
    slots: dict[str, int]


def compile_function(
    compiler: ScopeCompiler, node: ast.FunctionDef | ast.Lambda
) -> Callable[[Frame | None], FunctionValue]:
    """Compile to code that makes the function, given the frame that it is defined in."""
    machine = compiler.machine
    scope = function_scope(node, compiler.scope)
    within = compiler.inner(scope)
    parameters = _parameters(node, scope.slots)
    defaults = tuple(map(compiler.expression, node.args.defaults))
    named_defaults = {
        arg.arg: compiler.expression(default)
        for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if default is not None
    }
    run = _body(within, node)
    size, count = len(scope.slots), len(parameters.positional)
    is_simple = not (parameters.keyword_only or parameters.rest or parameters.keywords)
    empty = [UNBOUND] * (size - count)
    deepest = machine.limits.depth
    price = minimum_steps(node.body) if isinstance(node, ast.Lambda) else 1
    touched = compiler.touched(node)
    frame_size = 8 * size if size > _FEW else 0  # a closure may keep the frame

    def make(outer: Frame | None) -> FunctionValue:
        values = [default(outer) for default in defaults]
        given = dict(zip(parameters.positional[count - len(values) :], values, strict=True))
        given.update({name: default(outer) for name, default in named_defaults.items()})
        machine.charge(300 + 100 * len(given))

        def call(args: list[Value], named: dict[str, Value]) -> Value:
            if is_simple and not named and len(args) == count:
                frame = [outer, *args, *empty]
            else:
                frame = [outer, *([UNBOUND] * size)]
                _bind(machine, parameters, given, frame, args, dict(named))
            if frame_size:
                machine.charge(frame_size)
            machine.depth += 1
            if machine.depth > deepest:
                machine.exhaust("depth", deepest)
            machine.fuel -= price
            if machine.fuel < 0:
                machine.refuel()
            branch = machine.branch
            try:
                return run(frame)
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.labelled(error, None) from None
            finally:
                machine.depth -= 1
                if machine.branch is not branch:
                    machine.close_branches(branch)

        return FunctionValue(parameters.name, call, Effects(touched, outer))

    return make


def _parameters(node: ast.FunctionDef | ast.Lambda, slots: dict[str, int]) -> _Signature:
    args = node.args
    return _Signature(
        name=getattr(node, "name", "<lambda>"),
        positional=tuple(arg.arg for arg in (*args.posonlyargs, *args.args)),
        only_positional=len(args.posonlyargs),
        keyword_only=tuple(arg.arg for arg in args.kwonlyargs),
        rest=slots[args.vararg.arg] if args.vararg else None,
        keywords=slots[args.kwarg.arg] if args.kwarg else None,
        slots=slots,
    )


def _body(within: ScopeCompiler, node: ast.FunctionDef | ast.Lambda) -> Callable[[Frame], Value]:
    machine = within.machine
    if isinstance(node, ast.Lambda):
        return within.expression(node.body)
    block = within.block(node.body)

    def run(frame: Frame) -> Value:
        line = machine.line
        signal = block(frame)
        machine.line = line
        if signal is None:
            return tag(None, machine.branch)
        result, machine.returned = machine.returned, None
        return result

    return run


def _bind(  # noqa: PLR0917 - only called once
    machine: Machine,
    parameters: _Signature,
    defaults: dict[str, Value],
    frame: list[Any],
    args: list[Value],
    named: dict[str, Value],
) -> None:
    """Bind arguments to parameters as Python does."""
    names, slots, title = parameters.positional, parameters.slots, parameters.name
    for name, value in zip(names, args, strict=False):
        frame[slots[name]] = value
    # The number and names of the arguments may depend on data: see `Machine.within`.
    mark = machine.branch
    if parameters.rest is not None:
        frame[parameters.rest] = tag(tuple(args[len(names) :]), mark)
    elif len(args) > len(names):
        message = f"{title}() takes {len(names)} positional arguments but {len(args)} were given"
        machine.fail(TypeError, message)
    _bind_named(machine, parameters, frame, named)
    for name in (*names, *parameters.keyword_only):
        if frame[slots[name]] is UNBOUND:
            if name not in defaults:
                machine.fail(TypeError, f"{title}() missing required argument: '{name}'")
            frame[slots[name]] = tag(defaults[name], mark)


def _bind_named(
    machine: Machine, parameters: _Signature, frame: list[Any], named: dict[str, Value]
) -> None:
    names, slots, title = parameters.positional, parameters.slots, parameters.name
    for name in (*names[parameters.only_positional :], *parameters.keyword_only):
        if name in named:
            if frame[slots[name]] is not UNBOUND:
                machine.fail(TypeError, f"{title}() got multiple values for argument '{name}'")
            frame[slots[name]] = named.pop(name)
    if parameters.keywords is not None:
        frame[parameters.keywords] = tag(DictValue(named), machine.branch)
    elif named:
        name = next(iter(named))
        machine.fail(TypeError, f"{title}() got an unexpected keyword argument '{name}'")
