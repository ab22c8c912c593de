"""Two kernels of a model made into one, where the second alone reads what the first writes.

    t = call_tir(first, x, w);  y = call_tir(second, t, v)   →   y = call_tir(joint, x, w, v)

TVM's own fusion joins no two kernels that both reduce. Whether two may be scheduled as one, and
whether that pays, is for others to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tvm import ir, relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm_ffi import structural_equal

from tunebank.kernel import Kernel
from tunebank.kernel.canonical import layout_free
from tunebank.model.calls import called_name, is_kernel_call
from tunebank.model.model import Model, display_name, extract_kernels, main_functions


class Join(NamedTuple):
    """Two kernels to be made one.

    Attributes:
        first: key of the kernel that writes.
        second: key of the one that alone reads it.
        position: which argument of the second it is.
    """

    first: str
    second: str
    position: int


@dataclass(frozen=True)
class _Site:
    """A call of each of two kernels: `second` reads at `position` what `first` writes."""

    first: Any
    second: Any
    position: int


def possible_joins(model: Model, accept: Callable[[Kernel, Kernel], bool]) -> dict[Join, Kernel]:
    """What could be joined in a model, each with the kernel that it would give (of weight 1).

    Args:
        model: the model.
        accept: whether two kernels, in order, are worth a look.
    """
    kernels = {kernel.key: kernel for kernel in model.kernels}
    found: dict[Join, Kernel] = {}
    for var in main_functions(model.module):
        for site in _sites(model.module[var]):
            join = _join(model, site)
            if join in found or not _is_one_buffer(model.module, site):
                continue
            if accept(kernels[join.first], kernels[join.second]):
                name = display_name("_".join(_names(site)))
                found[join] = Kernel.from_prim_func(_program(model.module, site), name=name)
    return found


def joined(model: Model, joins: Collection[Join]) -> Model:
    """The model with some pairs of kernels as one kernel each, wherever they are a pair.

    A pair may have a kernel that is itself made of two.
    """
    while joins and _has_pairs(model, joins):
        model = _joined(model, joins)
    return model


def _has_pairs(model: Model, joins: Collection[Join]) -> bool:
    functions = [model.module[var] for var in main_functions(model.module)]
    return any(_join(model, site) in joins for func in functions for site in _sites(func))


def _joined(model: Model, joins: Collection[Join]) -> Model:
    joiner = _Joiner(model, joins)
    names = []
    for var in main_functions(model.module):
        joiner.enter(model.module[var])
        joiner.builder_.update_func(var, joiner.visit_expr(model.module[var]))
        names.append(str(var.name_hint))
    module = relax.transform.DeadCodeElimination(names)(joiner.builder_.get())
    kernels, kernel_of = extract_kernels(module)
    return replace(model, module=module, kernels=kernels, kernel_of=kernel_of)


def _is_one_buffer(module: ir.IRModule, site: _Site) -> bool:
    """Whether the second program takes the buffer as the first has it: not flattened, say."""
    written = module[site.first.args[0]].params[len(site.first.args[1].fields)]
    read = module[site.second.args[0]].params[site.position]
    return bool(structural_equal(written.ty, read.ty))


def _join(model: Model, site: _Site) -> Join:
    first, second = (model.kernel_of[name] for name in _names(site))
    return Join(first, second, site.position)


def _names(site: _Site) -> tuple[str, str]:
    return called_name(site.first), called_name(site.second)


def _sites(func: relax.Function) -> Iterator[_Site]:
    bindings = [binding for block in func.body.blocks for binding in block.bindings]
    uses: Counter[Any] = Counter()
    for value in [*(binding.value for binding in bindings), func.body.body]:
        _count(value, uses)
    calls = {binding.var: binding.value for binding in bindings if is_kernel_call(binding.value)}
    for second in calls.values():
        for position, argument in enumerate(second.args[1].fields):
            if argument in calls and uses[argument] == 1:
                yield _Site(calls[argument], second, position)


def _count(value: Any, uses: Counter[Any]) -> None:
    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Var):
            uses[expr] += 1

    if is_kernel_call(value):
        for argument in value.args[1].fields:  # one kernel may read it twice
            visit(argument)
    else:
        relax.analysis.post_order_visit(value, visit)


@mutator
class _Joiner(PyExprMutator):  # type: ignore[misc]
    """Calls the joint program in place of the second; the first is left to be removed."""

    def __init__(self, model: Model, wanted: Collection[Join]) -> None:
        super().__init__(model.module)
        self._model = model
        self._wanted = wanted
        self._sites: dict[Any, _Site] = {}
        self._programs: dict[tuple[str, str, int], ir.GlobalVar] = {}

    def enter(self, func: relax.Function) -> None:
        """Makes ready for a function. A kernel is joined with one other at most."""
        self._sites = {}
        taken: set[Any] = set()
        for site in _sites(func):
            is_wanted = _join(self._model, site) in self._wanted
            if is_wanted and not {site.first, site.second} & taken:
                self._sites[site.second] = site
                taken |= {site.first, site.second}

    def visit_call_(self, call: ir.Call) -> Any:
        site = self._sites.get(call)
        if site is None:
            return self.visit_expr_post_order(call)
        before = self.visit_expr_post_order(site.first)
        own = self.visit_expr_post_order(call)
        arguments = [*before.args[1].fields, *_without(own.args[1].fields, site.position)]
        operands = [self._program_of(site), relax.Tuple(arguments), *own.args[2:]]
        return ir.Call(own.op, operands, own.attrs, own.ty_args, own.span)

    def _program_of(self, site: _Site) -> ir.GlobalVar:
        first, second = _names(site)
        key = (first, second, site.position)
        if key not in self._programs:
            func = _program(self._model.module, site)
            self._programs[key] = self.builder_.add_func(func, f"{first}_{second}")
        return self._programs[key]


def _program(module: ir.IRModule, site: _Site) -> tirx.PrimFunc:
    """One tensor program of two, by TVM's fusion; what may be packed stays so."""
    programs = [module[call.args[0]] for call in (site.first, site.second)]
    builder = relax.BlockBuilder()
    first, second = (
        builder.add_func(func.without_attr("global_symbol"), name)
        for func, name in zip(programs, ("first", "second"), strict=True)
    )
    before, after = (
        [relax.Var(f"{name}{i}", one.ty) for i, one in enumerate(call.args[1].fields)]
        for name, call in (("x", site.first), ("y", site.second))
    )
    inner = [*before, *_without(after, site.position)]
    outer = [relax.Var(f"a{i}", var.ty) for i, var in enumerate(inner)]
    with builder.function("both", inner, {"Primitive": True}):
        with builder.dataflow():
            after[site.position] = builder.emit(
                relax.call_tir(first, relax.Tuple(before), site.first.ty_args[0])
            )
            result = relax.call_tir(second, relax.Tuple(after), site.second.ty_args[0])
            output = builder.emit_output(result)
        both = builder.emit_func_output(output)
    with builder.function("main", outer):
        with builder.dataflow():
            output = builder.emit_output(relax.Call(both, outer))
        builder.emit_func_output(output)
    fused = relax.transform.FuseTIR()(builder.get())
    (func,) = (one for _, one in fused.functions_items() if isinstance(one, tirx.PrimFunc))
    free = [
        *layout_free(programs[0]),
        *(
            len(before) + position - int(position > site.position)
            for position in layout_free(programs[1])
        ),
    ]
    return func.without_attr("global_symbol").with_attr("layout_free_buffers", sorted(free))


def _without(items: Any, position: int) -> list[Any]:
    return [item for index, item in enumerate(items) if index != position]
