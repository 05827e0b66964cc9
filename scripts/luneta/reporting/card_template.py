"""The text of a model card, for jinja2."""

CARD = """\
---
library_name: keras
tags: [astronomy, {{ "strong-gravitational-lenses" if kind == "binary" else "galaxy-morphology" }}]
---

# {{ task }}: {{ backbone }} for {{ classes | join(", ") }}

Made by luneta {{ versions.get("luneta", "") }} for the survey `{{ survey }}`:
{{ models | length }} networks, one per fold, each of {{ "{:,}".format(parameters) }} parameters. The \
catalog's probability is their calibrated mean.

Ensemble: `{{ model_id }}`

| fold | network (sha256 of its weights) |
|---|---|
{% for name in models %}| {{ loop.index0 }} | `{{ name }}` |
{% endfor %}

## Data

{{ "{:,}".format(count) }} labelled objects of `{{ survey }}` in {{ models | length }} folds\
{% if holdout %}, and {{ "{:,}".format(holdout.count) }} in a hold-out that no network saw{% endif %}. \
Cutouts of {{ cutout_size }} x {{ cutout_size }} px\
{% if pixel_scale %} of {{ "%.4g" | format(pixel_scale) }} arcsec{% endif %} in {{ bands | join(", ") }}, pixels \
{{ units }}. Digest of the data: \
`{{ data_digest }}`.

| class |{% for k in range(models | length) %} fold {{ k }} |{% endfor %} hold-out |
|---|{% for k in range(models | length + 1) %}---|{% endfor %}

{% for name in classes %}| {{ name }} |{% for number in members[name] %} {{ number }} |{% endfor %}

{% endfor %}
{% if left_out %}

Labels: {{ left_out }}.
{% endif %}

## Training

Backbone {{ backbone }}, weights at the start: `{{ weights }}`. What differs from luneta's defaults:

{% for key, value in changed.items() %}- `{{ key }}: {{ value }}`
{% else %}nothing.
{% endfor %}

## Numbers

Out of fold: mean and standard error over the folds, and the 68.3 % bootstrap interval over all \
objects.{% if holdout %} Hold-out: the ensemble as it is applied, with its 68.3 % bootstrap \
interval.{% endif %}


| score | over folds | all objects | {% if holdout %}hold-out | {% endif %}meaning |
|---|---|---|{% if holdout %}---|{% endif %}---|
{% for name in scores %}| {{ name | words }} | {{ over_folds(name) }} | {{ interval(whole, name) }} | \
{% if holdout %}{{ interval(holdout, name) }} | {% endif %}{{ descriptions.get(name, "") }} |
{% endfor %}

## Calibration and uncertainty

Calibration: {{ calibrated }}; expected calibration error \
{{ "%.4f" | format(ece_before) }} before and {{ "%.4f" | format(ece_after) }} after, both out of fold.

| method | log-loss, cross-fitted (nat) |
|---|---|
{% for method, loss in calibration.log_losses.items() %}| {{ method }} | {{ "%.4f" | format(loss) }} |
{% endfor %}

A prediction is the mean of {{ ensemble_size }} members: {{ sampling.networks }} networks, \
{{ sampling.views }} view(s), {{ sampling.draws or "no" }} Monte Carlo dropout draw(s). Objects farther from \
the training objects than {{ "%.1f" | format(100 * outliers.share) }} % of the labelled ones (score above \
{{ "%.3g" | format(outliers.threshold) }}) are flagged as out of distribution.

## Known failures

{% if confusions %}The commonest mistakes, out of fold:

{% for wrong in confusions %}- {{ wrong.count }} of {{ wrong.total }} **{{ wrong.true }}** taken for \
**{{ wrong.predicted }}** ({{ "%.0f" | format(100 * wrong.count / wrong.total) }} %)
{% endfor %}

The most confident of them (true class, then what was said):

![The most confident mistakes]({{ picture }})
{% else %}None of the labelled objects was misclassified out of fold.
{% endif %}

The numbers hold for objects like the labelled ones: of the same survey, depth, seeing and selection. \
On others they are unknown; look at the out-of-distribution flag first.

## How to load it

Keras is all that is needed; luneta is not. Preprocessing is inside the network: it takes raw cutouts, \
bad pixels as NaN. Pixels are {{ units }}; rows run as in the images, the object's pixel has index \
{{ cutout_size // 2 }} on both axes.

```python
import keras
import numpy as np

network = keras.models.load_model("fold0.keras", compile=False)
cutouts = np.zeros((1, {{ bands | length }}, {{ cutout_size }}, {{ cutout_size }}), "float32")  # (object, band, y, x)
logits = network.predict(cutouts)  # (object, class), in the order {{ classes | join(", ") }}
```

Calibrated probabilities, to be averaged over the folds: \
{% if calibration.method == "none" %}`scipy.special.softmax(logits, axis=-1)`.
{% elif calibration.method == "temperature" %}`scipy.special.softmax(logits / {{ "%.6g" | format(calibration.parameters.temperature) }}, axis=-1)`.
{% else %}`luneta.training.calibration.Calibrator("{{ calibration.method }}", parameters).apply(logits)`\
{% if calibration.method == "vector" %}, which is `softmax(scale * logits + bias)`{% endif %}, with

```json
{{ calibration.parameters | tojson }}
```
{% endif %}

Versions: {% for name, version in versions.items() %}{{ name }} {{ version }}\
{{ ", " if not loop.last else "." }}{% endfor %}

"""
