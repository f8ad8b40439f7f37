"""Functions and lambdas of the program: parameters, defaults, frames."""

import ast
from collections.abc import Callable
from typing import Any

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter.calls import MISSING, too_many
from langchain_sequrity.local.interpreter.machine import Machine
from langchain_sequrity.local.interpreter.scopes import (
    Frame,
    LabelEffects,
    ScopeCompiler,
    function_scope,
    minimum_steps,
)
from langchain_sequrity.local.interpreter.values import (
    CARRIERS,
    DictValue,
    Effects,
    FunctionValue,
    Value,
    add_labels,
    changed_by_calls,
    unbox,
)

_FUNCTION_SIZE = 900  # bytes of a function without its defaults
_FEW = 16  # variables of a frame that the price of the call includes


def compile_function(
    compiler: ScopeCompiler, node: ast.FunctionDef | ast.Lambda
) -> Callable[[Frame | None], FunctionValue]:
    """Compile to code that makes the function, given the frame that it is defined in."""
    machine = compiler.machine
    name = getattr(node, "name", "<lambda>")
    scope = function_scope(node, compiler.scope)
    within = compiler.compiler_for(scope)
    with_default = {key: compiler.expression(default) for key, default in _defaults(node.args)}
    bind = _argument_binder(machine, name, node.args)
    run = _compile_body(within, node)
    slots, size, count = scope.slots, len(scope.slots), len(node.args.posonlyargs + node.args.args)
    is_simple = not (node.args.kwonlyargs or node.args.vararg or node.args.kwarg)
    empty = [MISSING] * (size - count)
    max_depth = machine.limits.depth
    price = minimum_steps(node.body) if isinstance(node, ast.Lambda) else 1
    label_effects = compiler.label_bound(node)
    frame_size = 8 * size if size > _FEW else 0  # a closure may keep the frame

    def make(outer: Frame | None) -> FunctionValue:
        defaults = {key: default(outer) for key, default in with_default.items()}
        machine.pay_memory(_FUNCTION_SIZE + 100 * len(defaults))

        def call(args: list[Value], named: dict[str, Value]) -> Value:
            if is_simple and not named and len(args) == count:
                frame = [outer, *args, *empty]
            else:
                frame = scope.frame(outer)
                for key, value in bind(args, named, defaults).items():
                    frame[slots[key]] = value
            if frame_size:
                machine.pay_memory(frame_size)
            machine.depth += 1
            if machine.depth > max_depth:
                machine.exhaust("depth", max_depth)
            machine.fuel -= price
            if machine.fuel < 0:
                machine.refuel()
            branch = machine.branch
            try:
                return run(frame)
            except Exception as error:  # noqa: BLE001 - every exception here is the program's
                raise machine.as_labelled_error(error, None) from None
            finally:
                machine.depth -= 1
                if machine.branch is not branch:
                    machine.close_branches(branch)

        label = _with_defaults(label_effects, defaults) if defaults else label_effects
        return FunctionValue(name, call, Effects(label, outer))

    return make


def _with_defaults(label_effects: LabelEffects, defaults: dict[str, Value]) -> LabelEffects:
    """Add the values of the defaults, which the function may change or call."""

    def label(frame: Frame | None, labels: Labels) -> list[Any]:
        return label_effects(frame, labels) + [
            changed
            for default in map(unbox, defaults.values())
            for changed in ([default] if type(default) in CARRIERS else changed_by_calls(default))
        ]

    return label


def _defaults(args: ast.arguments) -> list[tuple[str, ast.expr]]:
    """The parameters with a default, and the defaults, in the order of their evaluation."""
    positional = [*args.posonlyargs, *args.args]
    parameters = [*positional[len(positional) - len(args.defaults) :], *args.kwonlyargs]
    pairs = zip(parameters, [*args.defaults, *args.kw_defaults], strict=True)
    return [(arg.arg, default) for arg, default in pairs if default is not None]


def _argument_binder(  # noqa: C901 - the function in it too
    machine: Machine, name: str, args: ast.arguments
) -> Callable[..., dict[str, Value]]:
    """Compile to a function that finds the values of the parameters as Python does."""
    positional = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    by_name = {arg.arg for arg in (*args.args, *args.kwonlyargs)}
    all_names = (*positional, *(arg.arg for arg in args.kwonlyargs))
    star, double_star = (arg and arg.arg for arg in (args.vararg, args.kwarg))

    def bind(
        values: list[Value], named: dict[str, Value], defaults: dict[str, Value]
    ) -> dict[str, Value]:
        # The number and names of the arguments may depend on data: see `Machine.run_within`.
        mark = machine.branch
        bound = dict(zip(positional, values, strict=False))
        if star:
            bound[star] = add_labels(tuple(values[len(positional) :]), mark)
        elif len(values) > len(positional):
            minimum = len(positional) - len(args.defaults)
            machine.fail(TypeError, too_many(name, minimum, len(positional), len(values)))
        others: DictValue[str, Value] = DictValue()
        for key, value in named.items():
            if key in by_name and key in bound:
                machine.fail(TypeError, f"{name}() got multiple values for argument '{key}'")
            (bound if key in by_name else others)[key] = value
        if double_star:
            machine.pay_items(len(others))
            bound[double_star] = add_labels(others, mark)
        elif others:
            message = f"{name}() got an unexpected keyword argument '{next(iter(others))}'"
            machine.fail(TypeError, message)
        for key in all_names:
            if key not in bound:
                if key not in defaults:
                    machine.fail(TypeError, f"{name}() missing required argument: '{key}'")
                bound[key] = add_labels(defaults[key], mark)
        return bound

    return bind


def _compile_body(
    within: ScopeCompiler, node: ast.FunctionDef | ast.Lambda
) -> Callable[[Frame], Value]:
    machine = within.machine
    if isinstance(node, ast.Lambda):
        return within.expression(node.body)
    block = within.block(node.body)

    def run(frame: Frame) -> Value:
        line = machine.line
        signal = block(frame)
        machine.line = line
        if signal is None:
            return add_labels(None, machine.branch)
        result, machine.returned = machine.returned, None
        return result

    return run
