import keras
import numpy as np
import pytest
from keras import layers, ops

from luneta.config import Training
from luneta.training import optimisers
from luneta.training.optimisers import LayerwiseAdam, LayerwiseSGD, layer_groups
from luneta.training.schedules import Schedule, plateau_factor, waits

RATE, DECAY = 0.01, 0.5


def three_blocks():
    """A network of three dense blocks and a head, one of its layers named as in the backbone."""
    inputs = keras.Input((4,))
    first, second, third = (layers.Dense(4, name=name) for name in ("dense", "two", "three"))
    backbone = keras.Model(inputs, third(second(first(inputs))), name="backbone")
    outer = keras.Input((4,))
    network = keras.Model(outer, layers.Dense(2, name="dense")(backbone(outer)))
    return network, [[first], [second], [third]]


def arranged(kind, network, blocks, **arguments):
    optimizer = kind(RATE, groups=layer_groups(network, blocks), **arguments)
    optimizer.build(network.trainable_variables)
    return optimizer


def gradients(network, seed=0):
    random = np.random.default_rng(seed)
    return [
        ops.convert_to_tensor(random.normal(size=v.shape).astype("float32"))
        for v in network.trainable_variables
    ]


def arrays(values):
    return [ops.convert_to_numpy(value) for value in values]


def test_groups_are_layers_with_their_block_and_depth():
    network, blocks = three_blocks()
    found = [(g.block, g.layer, g.depth) for g in layer_groups(network, blocks)]
    assert found == [
        ("block1", "dense", 3),
        ("block2", "two", 2),
        ("block3", "three", 1),
        ("head", "dense", 0),
    ]
    blocks[1][0].trainable = False
    assert [g.layer for g in layer_groups(network, blocks)] == ["dense", "three", "dense"]


@pytest.mark.parametrize("kind", [LayerwiseAdam, LayerwiseSGD])
def test_first_step_of_each_block_is_its_own_rate(kind):
    network, blocks = three_blocks()
    optimizer = arranged(kind, network, blocks, layer_decay=DECAY)
    before, steps = arrays(network.trainable_variables), arrays(gradients(network))
    optimizer.apply(gradients(network))
    # Adam's first step is the rate, whatever the gradient's length; that of SGD is rate times it
    direction = [np.sign(g) for g in steps] if kind is LayerwiseAdam else steps
    rates = np.repeat([RATE * DECAY**k for k in (3, 2, 1, 0)], 2)
    for old, new, way, rate in zip(
        before, arrays(network.trainable_variables), direction, rates, strict=True
    ):
        np.testing.assert_allclose(old - new, rate * way, rtol=1e-3, atol=2e-7)


def test_weight_decay_shrinks_kernels_alone_at_the_rate_of_their_block():
    network, blocks = three_blocks()
    optimizer = arranged(LayerwiseSGD, network, blocks, layer_decay=DECAY, decay=0.1)
    for variable in network.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer.apply([ops.zeros(v.shape) for v in network.trainable_variables])
    kernels, biases = (arrays(network.trainable_variables)[i::2] for i in (0, 1))
    shrunk = [1 - 0.1 * RATE * DECAY**k for k in (3, 2, 1, 0)]
    np.testing.assert_allclose([k[0, 0] for k in kernels], shrunk, rtol=1e-6)
    assert all((b == 1).all() for b in biases)


def test_weight_decay_leaves_layer_scale_alone():
    inputs = keras.Input((4, 4, 3))
    conv = layers.DepthwiseConv2D(3, name="block1_conv")
    scale = layers.DepthwiseConv2D(1, use_bias=False, name="block1_scale")
    backbone = keras.Model(inputs, scale(conv(inputs)), name="backbone")
    optimizer = arranged(LayerwiseSGD, backbone, [[conv, scale]], decay=0.1)
    before = arrays([conv.kernel, scale.kernel])
    optimizer.apply([ops.zeros(v.shape) for v in backbone.trainable_variables])
    np.testing.assert_allclose(arrays([conv.kernel])[0], before[0] * (1 - 0.1 * RATE), rtol=1e-6)
    np.testing.assert_array_equal(arrays([scale.kernel])[0], before[1])


def test_without_layers_it_is_adamw_of_keras():
    ours, blocks = three_blocks()
    theirs, _ = three_blocks()
    theirs.set_weights(ours.get_weights())
    optimizer = arranged(LayerwiseAdam, ours, blocks, decay=0.1)
    reference = keras.optimizers.AdamW(RATE, weight_decay=0.1)
    reference.exclude_from_weight_decay(var_names=["bias"])
    for step in range(4):
        optimizer.apply(gradients(ours, step))
        reference.apply(gradients(theirs, step), theirs.trainable_variables)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_nesterov_by_hand():
    network, blocks = three_blocks()
    training = Training(optimizer="sgd", momentum=0.9, weight_decay=0)
    optimizer = optimisers.make(training, Schedule(RATE, 10), layer_groups(network, blocks))
    optimizer.build(network.trainable_variables)
    before = arrays(network.trainable_variables)[0]
    velocity = move = 0
    for step in range(3):
        grads = gradients(network, step)
        optimizer.apply(grads)
        gradient = arrays(grads)[0]
        velocity = 0.9 * velocity - RATE * gradient
        move = move + 0.9 * velocity - RATE * gradient
    after = arrays(network.trainable_variables)[0]
    np.testing.assert_allclose(after - before, move, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("clip", "factor"), [(0.5, "scaled"), (1e6, "left")])
def test_gradient_is_clipped_by_its_whole_norm(clip, factor):
    network, blocks = three_blocks()
    optimizer = arranged(LayerwiseSGD, network, blocks, clip=clip)
    before, grads = arrays(network.trainable_variables), arrays(gradients(network))
    norm = np.sqrt(sum((g**2).sum() for g in grads))
    scale = clip / norm if factor == "scaled" else 1
    optimizer.apply(gradients(network))
    for old, new, g in zip(before, arrays(network.trainable_variables), grads, strict=True):
        np.testing.assert_allclose(old - new, RATE * scale * g, rtol=1e-3, atol=2e-7)


def test_norms_of_the_layers_are_summed_before_clipping():
    network, blocks = three_blocks()
    optimizer = arranged(LayerwiseSGD, network, blocks, clip=0.1)
    expected = np.zeros(4)
    for step in range(2):
        optimizer.apply(gradients(network, step))
        grads = arrays(gradients(network, step))
        expected += [
            np.sqrt((kernel**2).sum() + (bias**2).sum())
            for kernel, bias in zip(grads[::2], grads[1::2], strict=True)
        ]
    np.testing.assert_allclose(arrays([optimizer.norm_sums])[0], expected, rtol=1e-5)


def test_first_step_without_a_finite_gradient_is_noted():
    network, blocks = three_blocks()
    optimizer = arranged(LayerwiseSGD, network, blocks)
    optimizer.apply(gradients(network))
    assert int(optimizer.first_bad) == -1
    for value in (np.inf, np.nan):
        bad = [*gradients(network)[:-1], ops.full((2,), value)]
        optimizer.apply(bad)
    assert int(optimizer.first_bad) == 1


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_cosine_with_warm_up_by_hand():
    schedule = Schedule(0.2, 110, warm=10, cosine=True)
    expected = [0.02, 0.2 * 0.55, 0.2, 0.2 * 0.5 * (1 + np.sqrt(0.5)), 0.1, 0]
    np.testing.assert_allclose(rates(schedule, [0, 5, 10, 35, 60, 110]), expected, atol=1e-8)


def test_constant_with_and_without_warm_up():
    np.testing.assert_allclose(rates(Schedule(0.2, 9), [0, 4, 8]), [0.2] * 3)
    np.testing.assert_allclose(
        rates(Schedule(0.2, 9, warm=2), [0, 1, 2, 8]), [0.02, 0.11, 0.2, 0.2]
    )


def records(losses, phase="fine_tune"):
    return [{"phase": phase, "val_loss": loss} for loss in losses]


def test_waiting_starts_anew_with_a_lower_loss_or_a_phase():
    both = records([3, 2, 2, 2.5], "head") + records([2.1, 1.9, 1.9])
    assert waits(both) == [0, 0, 1, 2, 1, 0, 1]


def test_plateau_falls_tenfold_each_time_patience_runs_out():
    losses = [3, 2, 2, 2, 2, 2, 1, 1, 1]
    factors = [plateau_factor(records(losses[: n + 1]), 2) for n in range(len(losses))]
    np.testing.assert_allclose(factors, [1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01])
    after_head = records([1, 1, 1, 1], "head") + records([0.5])
    assert plateau_factor(after_head, 2) == 1
