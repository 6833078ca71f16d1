"""The whole model: eqs. 1-4 in a straight line, its loss by hand, and what it refuses."""

import math
import re
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from tolerances import DTYPES, assert_near
from torch import nn

from ramlib.attention import Window
from ramlib.glimpse import GlimpseGrid
from ramlib.interface import Rollout
from ramlib.model import EYES, RAMConfig, RecurrentAttentionModel

CONFIG = RAMConfig(
    glimpses=2, size=4, hidden=8, shrink=2, window=Window(0.35, 0.12, 0.5), supervision="last"
)
SHAPE, CLASSES = (1, 14, 18), 5


def model_of(shape=SHAPE, **changes):
    """A model whose policy already looks about, so that no test depends on a central window."""
    model = RecurrentAttentionModel(replace(CONFIG, **changes), shape, CLASSES)
    nn.init.normal_(model.f_ext.linear.weight, std=1.0)
    nn.init.normal_(model.f_ext.linear.bias, std=0.3)
    return model


def images_of(shape=SHAPE, batch=3):
    return torch.rand(batch, *shape)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def bounded(raw, low, start, high):
    """`between` once more, by the log-odds of where `start` lies on a logarithmic scale."""
    share = math.log(start / low) / math.log(high / low)
    return low * (high / low) ** sigmoid(raw + math.log(share) - math.log(1 - share))


class TestEquations:
    def test_two_looks_in_a_straight_line(self):
        """Eqs. 1-4 with torch's GRU cells on joined inputs and the numpy read, image by image."""
        model = model_of().double().eval()
        images = images_of().double()
        rollout = model(images)

        layer1, layer2 = model.f_rec.layer1, model.f_rec.layer2
        cell1, cell2 = nn.GRUCell(8, 8).double(), nn.GRUCell(16, 8).double()
        with torch.no_grad():
            joined = torch.cat([layer2.from_input.weight, model.f_rec.from_context.weight], 1)
            for cell, layer, inputs in (
                (cell1, layer1, layer1.from_input.weight),
                (cell2, layer2, joined),
            ):
                cell.weight_ih.copy_(inputs)
                cell.bias_ih.copy_(layer.from_input.bias)
                cell.weight_hh.copy_(layer.from_state.weight)
                cell.bias_hh.copy_(layer.from_state.bias)

        weight, bias = (p.detach().numpy() for p in model.f_ext.linear.parameters())
        for b, image in enumerate(images):
            context = model.f_context(image[None])
            h1 = h2 = torch.zeros(1, 8).double()
            last = (0.0, 0.0)
            for t in range(2):
                h2 = cell2(torch.cat([h1, context], 1), h2)  # eq. 1
                raw = weight @ h2[0].detach().numpy() + bias
                c_x, c_y = math.tanh(raw[0]), math.tanh(raw[1])
                full = 17 / 3  # (max(H, W) - 1) / (N - 1)
                delta_x, delta_y = (full * bounded(r, 0.12, 0.35, 0.5) for r in raw[2:4])
                sigma = bounded(raw[4], 0.25, 0.5, 1.0) * math.sqrt(delta_x * delta_y) + 0.3
                gamma = bounded(raw[5], 0.25, 1.0, 4.0)
                parameters = (c_x, c_y, delta_x, delta_y, sigma, gamma)
                g = oracles.draw_read(image.numpy(), *parameters, size=4)  # eq. 2
                h1 = cell1(model.f_glimpse(torch.from_numpy(g)[None]), h1)  # eq. 3

                for ours, theirs in zip(vars(rollout.grids).values(), parameters, strict=True):
                    assert_near(ours[b, t], theirs)
                assert_near(rollout.glimpses[b, t], g)
                assert_near(rollout.shifts[b, t], [c_x - last[0], c_y - last[1]])
                y = model.f_class(h1)[0]  # eq. 4
                assert_near(rollout.logits[b, t], y)
                last = (c_x, c_y)

    def test_context_moves_the_first_look_top_down_but_not_bottom_up(self):
        images = images_of(batch=8)
        first = {
            order: model_of(recurrence=order).eval()(images).grids[:, 0].c_x
            for order in ("top-down", "bottom-up")
        }
        assert first["top-down"].std() > 1e-3
        assert first["bottom-up"].std() == 0

    def test_without_context_every_image_is_first_looked_at_alike(self):
        grids = model_of(context=False).eval()(images_of(batch=8)).grids
        assert grids[:, 0].c_x.std() == 0
        assert grids[:, 1].c_x.std() > 1e-4

    def test_context_is_computed_once_per_image(self):
        model = model_of(glimpses=4)
        calls = []
        model.f_context.register_forward_hook(lambda *_: calls.append("context"))
        model.f_rec.from_context.register_forward_hook(lambda *_: calls.append("projection"))
        model(images_of())
        assert calls == ["context", "projection"]

    def test_relative_centres_are_carried_from_look_to_look(self):
        rollout = model_of(relative=True, glimpses=3).double().eval()(images_of().double())
        c_x = rollout.grids.c_x
        assert_near(rollout.shifts[..., 0], c_x - torch.cat([torch.zeros(3, 1), c_x[:, :-1]], 1))


class TestShapes:
    @pytest.mark.parametrize("eye", EYES)
    @pytest.mark.parametrize("recurrence", ["top-down", "bottom-up", "one-layer"])
    @pytest.mark.parametrize("shape", [(1, 20, 20), (3, 14, 31)])
    def test_of_a_rollout(self, shape, recurrence, eye):
        model = model_of(shape, eye=eye, recurrence=recurrence, glimpses=3)
        rollout = model(images_of(shape, batch=2))
        assert rollout.logits.shape == (2, 3, CLASSES)
        assert rollout.grids.shape == (2, 3)
        assert rollout.glimpses.shape == (2, 3, shape[0], 4, 4)
        assert rollout.shifts.shape == (2, 3, 2)

    @pytest.mark.parametrize("shape", [SHAPE, (3, 14, 31)])
    def test_of_a_prediction(self, shape):
        labels = model_of(shape).eval().predict(images_of(shape))
        assert labels.shape == (3,)
        assert labels.dtype == torch.int64
        assert labels.min() >= 0
        assert labels.max() < CLASSES

    def test_an_image_may_be_as_small_as_the_glimpse(self):
        model_of((1, 4, 4))(images_of((1, 4, 4)))

    def test_one_image_alone_gives_what_it_gives_in_a_batch(self):
        model, images = model_of().double().eval(), images_of().double()
        alone = torch.cat([model(image[None]).logits for image in images])
        assert_near(model(images).logits, alone)


class TestGradients:
    @pytest.mark.parametrize("eye", EYES)
    @pytest.mark.parametrize("context", [True, False])
    @pytest.mark.parametrize("recurrence", ["top-down", "bottom-up", "one-layer"])
    def test_reach_every_parameter(self, recurrence, context, eye):
        model = model_of(recurrence=recurrence, context=context, eye=eye, glimpses=3).double()
        rollout = model(images_of(batch=8).double())
        model.loss(rollout, torch.arange(8) % CLASSES).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_of_the_loss_are_right(self):
        """Against finite differences, along one random direction in all parameters at once."""
        model = model_of().double()
        images, labels = images_of(batch=4).double(), torch.arange(4)
        model.loss(model(images), labels).backward()
        parameters = list(model.parameters())
        direction = [torch.randn_like(p) for p in parameters]
        slope = sum((p.grad * d).sum() for p, d in zip(parameters, direction, strict=True))

        def moved(step):
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p.add_(step * d)
            return model.loss(model(images), labels).item()

        e = 1e-6
        up, down = moved(e), moved(-2 * e)
        assert (up - down) / (2 * e) == pytest.approx(slope.item(), rel=1e-4)

    def test_policy_parameters_are_those_of_the_policy(self):
        model = model_of()
        ours = {id(parameter) for parameter in model.policy_parameters()}
        assert ours == {id(p) for n, p in model.named_parameters() if n.startswith("f_ext.")}
        assert len(ours) == 2

    def test_stay_finite_on_black_images(self):
        model = model_of()
        images = torch.zeros(4, *SHAPE)
        model.loss(model(images), torch.arange(4)).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


class TestNoise:
    def test_evaluation_is_deterministic(self):
        model = model_of(alpha=0.1, dropout=0.3, recurrent_dropout=0.3, glimpses=3).eval()
        images = images_of()
        assert torch.equal(model(images).logits, model(images).logits)

    def test_training_is_not(self):
        model, images = model_of(alpha=0.1).train(), images_of()
        assert not torch.equal(model(images).grids.c_x, model(images).grids.c_x)

    def test_noisy_says_which_whatever_the_mode(self):
        model, images = model_of(alpha=0.1).eval(), images_of()
        quiet, noisy = model(images).grids, model(images, noisy=True).grids
        assert (quiet.c_x - noisy.c_x).abs().max() > 1e-3
        model.train()
        assert torch.equal(model(images, noisy=False).grids.c_x, quiet.c_x)

    def test_dropout_is_on_the_features_of_the_glimpse(self):
        """Seen where the recurrence receives them: dropped, or scaled up by 1 / (1 - p)."""
        model, received = model_of(dropout=0.5, glimpses=1).train(), {}
        model.f_glimpse.register_forward_hook(lambda _, __, out: received.update(clean=out))
        model.f_rec.layer1.from_input.register_forward_pre_hook(
            lambda _, inputs: received.update(dropped=inputs[0])
        )
        model(images_of(batch=64))
        clean, dropped = received["clean"], received["dropped"]
        assert (torch.isclose(dropped, 2 * clean) | (dropped == 0)).all()
        assert (dropped[clean > 0] == 0).float().mean() == pytest.approx(0.5, abs=0.1)


def rollout_of(logits, shifts):
    batch, looks = logits.shape[:2]
    zeros = torch.zeros(batch, looks, dtype=torch.float64)
    grids = GlimpseGrid(*[zeros] * 6)
    return Rollout(logits, None, grids, zeros[..., None, None, None], shifts)


class TestLoss:
    LOGITS = torch.tensor([[[1.0, 3.0], [2.0, 0.5]], [[0.0, 1.0], [-1.0, 1.0]]]).double()
    SHIFTS = torch.zeros(2, 2, 2).double()
    LABELS = torch.tensor([0, 1])

    def test_of_the_last_look_by_hand(self):
        """log(1 + e^-(margin)) for two classes: margins 1.5 and 2."""
        model = model_of(supervision="last")
        value = model.loss(rollout_of(self.LOGITS, self.SHIFTS), self.LABELS)
        by_hand = (math.log1p(math.exp(-1.5)) + math.log1p(math.exp(-2))) / 2
        assert value.item() == pytest.approx(by_hand)

    def test_of_all_looks_by_hand(self):
        """Margins of the right class: -2 and 1.5, then 1 and 2."""
        model = model_of(supervision="all")
        value = model.loss(rollout_of(self.LOGITS, self.SHIFTS), self.LABELS)
        by_hand = sum(math.log1p(math.exp(-margin)) for margin in (-2, 1.5, 1, 2)) / 4
        assert value.item() == pytest.approx(by_hand)

    def test_of_all_looks_but_the_first_by_hand(self):
        """A third look with margins 0.5 and 3 joins the second's, 1.5 and 2."""
        third = torch.tensor([[[0.5, 0.0]], [[0.0, 3.0]]]).double()
        rollout = rollout_of(torch.cat([self.LOGITS, third], 1), torch.zeros(2, 3, 2).double())
        value = model_of(supervision="after-first").loss(rollout, self.LABELS)
        by_hand = sum(math.log1p(math.exp(-margin)) for margin in (1.5, 2, 0.5, 3)) / 4
        assert value.item() == pytest.approx(by_hand)

    def test_charges_eq_5_on_the_third_step_alone(self):
        """a = b = 0.1; shifts of length 0 and sqrt(0.2) at the third step, large elsewhere."""
        logits = torch.zeros(2, 4, 2).double()
        shifts = torch.full((2, 4, 2), 5.0).double()
        shifts[0, 2] = 0
        shifts[1, 2] = math.sqrt(0.1)
        rollout = rollout_of(logits, shifts)
        plain = model_of(glimpses=4).loss(rollout, self.LABELS)
        charged = model_of(glimpses=4, penalised_step=3).loss(rollout, self.LABELS)
        assert plain.item() == pytest.approx(math.log(2))
        assert (charged - plain).item() == pytest.approx((0.1 + 0.1 * math.exp(-2)) / 2)

    def test_charge_moves_the_policy(self):
        config = replace(CONFIG, glimpses=3, penalised_step=3, relative=True)
        model = RecurrentAttentionModel(config, SHAPE, CLASSES).double()
        rollout = model(images_of().double())
        labels = torch.zeros(3, dtype=torch.int64)
        penalty = model.loss(rollout, labels) - nn.functional.cross_entropy(
            rollout.logits[:, -1], labels
        )
        (slope,) = torch.autograd.grad(penalty, model.f_ext.linear.bias)
        assert (slope[:2].abs() > 0).all()


class TestPrecision:
    def test_mixed_precision_stays_near_single(self):
        model, images = model_of(glimpses=4).eval(), images_of()
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(images)
        plain = model(images)
        assert mixed.grids.c_x.dtype == torch.float32
        assert_near(mixed.grids.c_x, plain.grids.c_x, atol=0.05, rtol=0)
        assert_near(mixed.logits, plain.logits, atol=0.05, rtol=0)

    def test_mixed_precision_learns_in_single(self):
        model, images = model_of(), images_of()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(model(images), torch.arange(3))
        loss.backward()
        assert {p.grad.dtype for p in model.parameters()} == {torch.float32}

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_predicts_alike_from_images_of_any_floating_type(self, dtype):
        model, images = model_of().eval(), images_of(batch=16).to(dtype)
        assert torch.equal(model.predict(images), model.predict(images.float()))

    def test_weights_survive_their_state_dict(self):
        model, images = model_of().eval(), images_of()
        twin = model_of().eval()
        assert not torch.equal(twin(images).logits, model(images).logits)
        twin.load_state_dict(model.state_dict())
        assert torch.equal(twin(images).logits, model(images).logits)


@pytest.mark.usefixtures("as_installed")
class TestBadInput:
    @pytest.mark.parametrize(
        "shape", [(1, 14, 18), (2, 14, 18), (2, 1, 18, 14), (2, 3, 14, 18), (2, 1, 28, 28)]
    )
    @pytest.mark.parametrize("call", ["predict", "forward"])
    def test_refuses_another_shape(self, shape, call):
        message = f"images must have shape (B, 1, 14, 18), got {shape}"
        with pytest.raises(ValueError, match=re.escape(message)):
            getattr(model_of(), call)(torch.zeros(shape))

    @pytest.mark.parametrize("call", ["predict", "forward"])
    def test_refuses_an_empty_batch(self, call):
        with pytest.raises(ValueError, match=r"images holds no image, got shape \(0, 1, 14, 18\)"):
            getattr(model_of(), call)(torch.zeros(0, *SHAPE))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
    @pytest.mark.parametrize("call", ["predict", "forward"])
    def test_refuses_integers(self, dtype, call):
        with pytest.raises(TypeError, match=f"images must be floating point.*{dtype}"):
            getattr(model_of(), call)(torch.zeros(2, *SHAPE, dtype=dtype))

    def test_predict_refuses_what_is_not_a_tensor(self):
        with pytest.raises(TypeError, match=r"predict: images must be a torch.Tensor, got ndarray"):
            model_of().predict(np.zeros((2, *SHAPE), np.float32))

    def test_predict_refuses_grey_levels(self):
        with pytest.raises(
            ValueError, match=r"predict: .* in \[0, 1\], got values from 0 to 2\d\d"
        ):
            model_of().predict((255 * images_of()).round())

    @pytest.mark.parametrize("pixel", [float("nan"), float("inf"), -1e-3])
    def test_predict_refuses_one_bad_pixel(self, pixel):
        images = images_of()
        images[2, 0, 13, 17] = pixel
        with pytest.raises(ValueError, match=r"predict: images must be finite and in \[0, 1\]"):
            model_of().predict(images)

    def test_refuses_images_smaller_than_the_glimpse(self):
        message = (
            "RecurrentAttentionModel: images of shape (1, 3, 18) are smaller than the glimpse, "
            "whose size is 4"
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            RecurrentAttentionModel(CONFIG, (1, 3, 18), CLASSES)

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ({"eye": "deep"}, "eye must be one of dense, conv-3, conv-5, got 'deep'"),
            ({"recurrence": "up"}, "recurrence must be one of top-down, bottom-up, one-layer"),
            (
                {"supervision": "after-first", "glimpses": 1},
                "supervision after-first needs at least 2 glimpses, got 1",
            ),
            (
                {"supervision": "first"},
                "supervision must be one of last, after-first, all, got 'first'",
            ),
            ({"glimpses": 0}, "glimpses must be at least 1, got 0"),
            ({"penalised_step": 0}, "penalised_step must be in [1, 2] or None, got 0"),
            ({"penalised_step": 3}, "penalised_step must be in [1, 2] or None, got 3"),
            ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
        ],
    )
    def test_refuses_a_configuration_that_cannot_be(self, argument, message):
        with pytest.raises(ValueError, match=re.escape(f"RAMConfig: {message}")):
            replace(CONFIG, **argument)
