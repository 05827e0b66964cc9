"""Networks built here from their papers.

Each is a function `name(input_shape, classes=None, activation=...)`. The input is (y, x, band),
channels last. Without `classes` the network ends in a feature map (y, x, feature) or, where the
paper has hidden dense layers, in the last of them (feature,); with `classes` it ends in the
paper's top, as logits (class,) without a softmax. Layers are named `block1_...` from the input on.
"""
