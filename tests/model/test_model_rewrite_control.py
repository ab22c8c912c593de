"""Control flow unrolled or decided, and what can't be is refused by name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from rewrite_cases import check, model_of, operators

from tunebank.errors import ModelError
from tunebank.model.rewrite import rewrite, unsupported

node = helper.make_node
X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2}


def text_graph(text):
    return onnx.parser.parse_graph(text)


def test_constant_condition_takes_its_branch():
    yes = text_graph("yes () => (float[2,3] a) { a = Relu(x) }")
    no = text_graph("no () => (float[2,3] b) { b = Neg(x) }")
    for value, operator in ((True, "Relu"), (False, "Neg")):
        model = model_of(
            [node("If", ["c"], ["y"], then_branch=yes, else_branch=no)],
            X,
            ["y"],
            {"c": np.array(value)},
        )
        assert operators(check(model, X)) - {"Identity"} == {operator}


@pytest.mark.parametrize("value", [True, False])
def test_condition_of_the_input_becomes_a_choice(value):
    yes = text_graph(
        """yes () => (float[2,3] a, float[1] s) {
            a = Relu(x)
            s = Constant<value_floats=[1.0]>()
        }"""
    )
    no = text_graph(
        """no () => (float[2,3] b, float[1] t) {
            b = Neg(x)
            t = Constant<value_floats=[2.0]>()
        }"""
    )
    inputs = {**X, "c": np.array([value])}
    model = model_of(
        [node("If", ["c"], ["y", "z"], then_branch=yes, else_branch=no)], inputs, ["y", "z"]
    )
    assert "If" not in operators(check(model, inputs))


def test_branches_of_different_shapes_are_refused():
    yes = text_graph("yes () => (float[2,3] a) { a = Relu(x) }")
    no = text_graph("no () => (float[1] b) { b = Constant<value_floats=[1.0]>() }")
    inputs = {**X, "c": np.array(True)}
    model = model_of(
        [node("If", ["c"], ["y"], "switch", then_branch=yes, else_branch=no)], inputs, ["y"]
    )
    with pytest.raises(ModelError, match=r"operator If \(node 'switch'\)"):
        rewrite(model)


def counting_body():
    return text_graph(
        """body (int64 i, bool go, float[2,3] s) => (bool on, float[2,3] t, float[2,3] out) {
            on = Identity(go)
            f = Cast<to=1>(i)
            t = Add(s, f)
            out = Mul(t, x)
        }"""
    )


def test_loop_with_a_constant_count():
    model = model_of(
        [node("Loop", ["n", "", "x"], ["y", "all"], body=counting_body())],
        X,
        ["y", "all"],
        {"n": np.int64(4)},
    )
    assert "Loop" not in operators(check(model, X))


def test_loop_that_runs_while_its_counter_is_small():
    body = text_graph(
        """body (int64 i, bool go, int64 k, float[2,3] s) => (bool on, int64 l, float[2,3] t) {
            two = Constant<value_int=2>()
            top = Constant<value_int=9>()
            l = Add(k, two)
            on = Less(l, top)
            t = Add(s, x)
        }"""
    )
    model = model_of(
        [node("Loop", ["", "go", "k", "x"], ["n", "y"], body=body)],
        X,
        ["y"],
        {"go": np.array(True), "k": np.int64(0)},
    )
    changed = check(model, X)
    assert sum(part.op_type == "Add" for part in changed.graph.node) == 5


def test_loop_inside_a_loop():
    inner = text_graph(
        """inner (int64 j, bool go2, float[2,3] p) => (bool on2, float[2,3] q) {
            on2 = Identity(go2)
            q = Add(p, s)
        }"""
    )
    body = onnx.GraphProto()
    body.CopyFrom(
        text_graph(
            """body (int64 i, bool go, float[2,3] s) => (bool on, float[2,3] t) {
                on = Identity(go)
                m = Constant<value_int=2>()
            }"""
        )
    )
    body.node.append(node("Loop", ["m", "", "s"], ["t"], body=inner))
    model = model_of([node("Loop", ["n", "", "x"], ["y"], body=body)], X, ["y"], {"n": np.int64(3)})
    assert "Loop" not in operators(check(model, X))


def test_loop_that_the_input_ends_is_refused():
    body = text_graph(
        """body (int64 i, bool go, float[2,3] s) => (bool on, float[2,3] t) {
            t = Add(s, s)
            z = ReduceMax<keepdims=0>(t)
            top = Constant<value_float=99.0>()
            on = Less(z, top)
        }"""
    )
    model = model_of(
        [node("Loop", ["n", "", "x"], ["y"], "decoder", body=body)], X, ["y"], {"n": np.int64(9)}
    )
    with pytest.raises(ModelError, match=r"operator Loop \(node 'decoder'\): how often"):
        rewrite(model)


@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_scan(backwards, axis):
    extent = X["x"].shape[1 - axis]
    body = text_graph(
        f"""body (float[{extent}] s, float[{extent}] e) => (float[{extent}] t, float[{extent}] o) {{
            t = Add(s, e)
            o = Mul(t, e)
        }}"""
    )
    scan = node(
        "Scan",
        ["s0", "x"],
        ["y", "all"],
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[backwards],
        scan_output_axes=[axis],
        scan_output_directions=[1 - backwards],
    )
    model = model_of([scan], X, ["y", "all"], {"s0": np.ones(extent, np.float32)})
    assert "Scan" not in operators(check(model, X))


def test_functions_of_the_model_are_inlined():
    function = onnx.parser.parse_function(
        """<domain: "own", opset_import: ["" : 17]>
        twice (a) => (b) { b = Add(a, a) }"""
    )
    model = model_of([helper.make_node("twice", ["x"], ["y"], domain="own")], X, ["y"])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert operators(check(model, X)) == {"Add"}


def test_an_unknown_operator_is_named_once_with_its_first_node():
    nodes = [
        helper.make_node("Magic", ["x"], ["a"], "first", domain="own"),
        helper.make_node("Magic", ["a"], ["y"], "second", domain="own"),
    ]
    model = model_of(nodes, X, ["y"])
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert unsupported(rewrite(model)) == ["operator own.Magic (node 'first')"]


def test_an_operator_of_another_domain_is_not_taken_for_that_of_onnx():
    node_ = helper.make_node("Range", ["x"], ["y"], "r", domain="com.microsoft")
    assert unsupported(model_of([node_], X, ["y"])) == ["operator com.microsoft.Range (node 'r')"]
