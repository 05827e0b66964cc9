"""luneta: survey images in, a Parquet catalog of galaxy morphology and strong lenses out."""

from luneta import surroundings

surroundings.pin()
