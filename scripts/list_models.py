"""Print the backbones: parameters, smallest image, weights, paper."""

from luneta.models import registry

print(registry.describe())
