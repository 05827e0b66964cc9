"""luneta: survey images in, a Parquet catalog of galaxy morphology and strong lenses out."""
