"""The recurrence against torch's own GRU cell, and the order in which its layers move."""

import pytest
import torch
from tolerances import assert_near
from torch import nn

from ramlib.recurrence import (
    RECURRENCES,
    BottomUpRecurrence,
    GatedRecurrentUnit,
    OneLayerRecurrence,
    TopDownRecurrence,
)

FEATURES, CONTEXT, HIDDEN, BATCH = 5, 3, 6, 4


def cell_like(unit, *more_inputs):
    """torch's cell with the weights of `unit`; more inputs are joined after its own."""
    weights = [unit.from_input.weight, *(layer.weight for layer in more_inputs)]
    joined = torch.cat(weights, 1)
    cell = nn.GRUCell(joined.shape[1], unit.hidden, dtype=joined.dtype)
    with torch.no_grad():
        cell.weight_ih.copy_(joined)
        cell.bias_ih.copy_(unit.from_input.bias)
        cell.weight_hh.copy_(unit.from_state.weight)
        cell.bias_hh.copy_(unit.from_state.bias)
    return cell


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def recurrence_of(kind, *, context=CONTEXT, dropout=0.0):
    return RECURRENCES[kind](FEATURES, context, HIDDEN, dropout).double()


class TestGatedRecurrentUnit:
    def test_matches_torchs_cell_in_value_and_gradient(self):
        unit = GatedRecurrentUnit(FEATURES, HIDDEN).double()
        cell = cell_like(unit)
        x, state = randn(BATCH, FEATURES).requires_grad_(), randn(BATCH, HIDDEN).requires_grad_()
        ours, theirs = unit(unit.from_input(x), state), cell(x, state)
        assert_near(ours, theirs)
        parameters = (unit.from_input.weight, unit.from_state.weight, unit.from_state.bias)
        twins = (cell.weight_ih, cell.weight_hh, cell.bias_hh)
        slopes = torch.autograd.grad(ours.sin().sum(), (x, state, *parameters))
        expected = torch.autograd.grad(theirs.sin().sum(), (x, state, *twins))
        for one, other in zip(slopes, expected, strict=True):
            assert_near(one, other)

    def test_no_state_is_a_state_of_zeros(self):
        unit = GatedRecurrentUnit(FEATURES, HIDDEN).double()
        with torch.no_grad():
            unit.from_state.bias.normal_()
        projected = randn(BATCH, 3 * HIDDEN)
        assert_near(unit(projected, None), unit(projected, torch.zeros(BATCH, HIDDEN).double()))

    def test_inputs_projected_apart_add_up(self):
        unit = GatedRecurrentUnit(FEATURES, HIDDEN).double()
        other = nn.Linear(CONTEXT, 3 * HIDDEN, bias=False).double()
        x, y, state = randn(BATCH, FEATURES), randn(BATCH, CONTEXT), randn(BATCH, HIDDEN)
        joined = cell_like(unit, other)(torch.cat([x, y], 1), state)
        assert_near(unit(unit.from_input(x) + other(y), state), joined)

    def test_state_weights_start_orthogonal(self):
        weight = GatedRecurrentUnit(FEATURES, HIDDEN).double().from_state.weight
        assert_near(weight.T @ weight, torch.eye(HIDDEN), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("dropout", [-0.1, 1.0])
    def test_refuses_dropout_outside_zero_to_one(self, dropout):
        message = rf"GatedRecurrentUnit: dropout must be in \[0, 1\), got {dropout}"
        with pytest.raises(ValueError, match=message):
            GatedRecurrentUnit(FEATURES, HIDDEN, dropout)


class TestRecurrentDropout:
    def test_drops_the_candidate_and_only_it(self):
        """Each entry is keep * state alone, or that and a candidate scaled up by 1 / (1 - p)."""
        unit = GatedRecurrentUnit(FEATURES, HIDDEN, dropout=0.6).double()
        x, state = randn(500, FEATURES), randn(500, HIDDEN)
        whole = unit.eval()(unit.from_input(x), state)
        keep = torch.sigmoid((unit.from_input(x) + unit.from_state(state)).chunk(3, -1)[1])
        memory = keep * state
        new = unit.train()(unit.from_input(x), state)
        dropped = torch.isclose(new, memory)
        kept = torch.isclose(new, memory + (whole - memory) / 0.4)
        assert (dropped ^ kept).all()
        assert dropped.float().mean() == pytest.approx(0.6, abs=0.04)

    def test_memory_is_never_dropped(self):
        unit = GatedRecurrentUnit(FEATURES, HIDDEN, dropout=0.9).double()
        with torch.no_grad():
            unit.from_input.bias[HIDDEN : 2 * HIDDEN] = 1000  # keep everything
        state = randn(BATCH, HIDDEN)
        assert_near(unit(unit.from_input(randn(BATCH, FEATURES)), state), state)

    def test_evaluation_drops_nothing(self):
        unit = GatedRecurrentUnit(FEATURES, HIDDEN, dropout=0.9).double().eval()
        x, state = randn(BATCH, FEATURES), randn(BATCH, HIDDEN)
        assert_near(unit(unit.from_input(x), state), cell_like(unit)(x, state))


class TestTopDown:
    def test_matches_two_torch_cells_over_three_steps(self):
        """Eqs. 1 and 3: h2 from [h1 of the last step, context], then h1 from the features."""
        recurrence = recurrence_of("top-down")
        layer1 = cell_like(recurrence.layer1)
        layer2 = cell_like(recurrence.layer2, recurrence.from_context)
        context, seen = randn(BATCH, CONTEXT), randn(3, BATCH, FEATURES)
        h1 = h2 = torch.zeros(BATCH, HIDDEN).double()
        state = recurrence.begin(context, BATCH)
        for features in seen:
            state = recurrence.look(state)
            h2 = layer2(torch.cat([h1, context], 1), h2)
            assert_near(state.h2, h2)
            state = recurrence.see(state, features)
            h1 = layer1(features, h1)
            assert_near(state.h1, h1)

    def test_context_moves_the_first_look(self):
        recurrence = recurrence_of("top-down")
        first, second = (
            recurrence.look(recurrence.begin(randn(BATCH, CONTEXT), BATCH)).h2 for _ in range(2)
        )
        assert (first - second).abs().max() > 1e-3

    def test_seeing_does_not_move_h2(self):
        recurrence = recurrence_of("top-down")
        state = recurrence.look(recurrence.begin(randn(BATCH, CONTEXT), BATCH))
        assert recurrence.see(state, randn(BATCH, FEATURES)).h2 is state.h2

    def test_the_classifiers_layer_never_sees_the_context_directly(self):
        """After one step, h1 depends on what was seen alone."""
        recurrence = recurrence_of("top-down")
        features = randn(BATCH, FEATURES)
        first, second = (
            recurrence.see(
                recurrence.look(recurrence.begin(randn(BATCH, CONTEXT), BATCH)), features
            ).h1
            for _ in range(2)
        )
        assert torch.equal(first, second)


class TestBottomUp:
    def test_matches_two_torch_cells_over_three_steps(self):
        """h1 first, then h2 from [h1 of this step, context]; the first look is at zeros."""
        recurrence = recurrence_of("bottom-up")
        layer1 = cell_like(recurrence.layer1)
        layer2 = cell_like(recurrence.layer2, recurrence.from_context)
        context, seen = randn(BATCH, CONTEXT), randn(3, BATCH, FEATURES)
        h1 = h2 = torch.zeros(BATCH, HIDDEN).double()
        state = recurrence.begin(context, BATCH)
        for features in seen:
            state = recurrence.look(state)
            assert_near(state.h2, h2)
            state = recurrence.see(state, features)
            h1 = layer1(features, h1)
            h2 = layer2(torch.cat([h1, context], 1), h2)
            assert_near(state.h1, h1)
            assert_near(state.h2, h2)

    def test_context_does_not_move_the_first_look(self):
        recurrence = recurrence_of("bottom-up")
        state = recurrence.look(recurrence.begin(randn(BATCH, CONTEXT), BATCH))
        assert state.h2.abs().max() == 0

    def test_context_moves_the_second_look(self):
        recurrence, features = recurrence_of("bottom-up"), randn(BATCH, FEATURES)
        looks = []
        for _ in range(2):
            state = recurrence.look(recurrence.begin(randn(BATCH, CONTEXT), BATCH))
            looks.append(recurrence.look(recurrence.see(state, features)).h2)
        assert (looks[0] - looks[1]).abs().max() > 1e-3


class TestOneLayer:
    def test_matches_one_torch_cell_over_three_steps(self):
        recurrence = recurrence_of("one-layer")
        cell = cell_like(recurrence.layer, recurrence.from_context)
        context, seen = randn(BATCH, CONTEXT), randn(3, BATCH, FEATURES)
        h = torch.zeros(BATCH, HIDDEN).double()
        state = recurrence.begin(context, BATCH)
        for features in seen:
            state = recurrence.look(state)
            assert_near(state.h2, h)
            state = recurrence.see(state, features)
            h = cell(torch.cat([features, context], 1), h)
            assert_near(state.h1, h)
            assert state.h2 is state.h1


class TestWithoutContext:
    @pytest.mark.parametrize("kind", RECURRENCES)
    def test_equals_a_context_of_zeros(self, kind):
        blind, informed = recurrence_of(kind, context=0), recurrence_of(kind)
        informed.load_state_dict(blind.state_dict(), strict=False)
        zeros = torch.zeros(BATCH, CONTEXT).double()
        states = [blind.begin(None, BATCH), informed.begin(zeros, BATCH)]
        for features in randn(2, BATCH, FEATURES):
            states = [
                recurrence.see(recurrence.look(state), features)
                for recurrence, state in zip((blind, informed), states, strict=True)
            ]
        assert_near(states[0].h1, states[1].h1)
        assert_near(states[0].h2, states[1].h2)


@pytest.mark.parametrize("kind", RECURRENCES)
@pytest.mark.parametrize("context", [0, CONTEXT])
def test_gradient_reaches_every_parameter(kind, context):
    recurrence = recurrence_of(kind, context=context)
    state = recurrence.begin(randn(BATCH, context) if context else None, BATCH)
    for features in randn(2, BATCH, FEATURES):
        state = recurrence.see(recurrence.look(state), features)
    (state.h1.sin().sum() + recurrence.look(state).h2.sin().sum()).backward()
    for name, parameter in recurrence.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("top-down", TopDownRecurrence),
        ("bottom-up", BottomUpRecurrence),
        ("one-layer", OneLayerRecurrence),
    ],
)
def test_names_are_the_orders(name, kind):
    assert RECURRENCES[name] is kind
