"""Settings of the cutouts: what is cut around each object, and in which units."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from luneta.config.fields import Fraction, Name, Section

Positive = Annotated[float, Field(gt=0)]


class Extent(Section):
    """How much sky a cutout shows, where it is not `size` pixels of the image."""

    unit: Literal["pixels", "arcsec", "radius"] = Field(
        "arcsec",
        description="Unit of `side`: image pixels, arcsec, or the object's own radius in the "
        "column `radius`.",
    )
    side: Positive = Field(description="Side of the cutout in that unit.")
    radius: Name | None = Field(
        None, description="Kept column with the object's radius in arcsec, for unit `radius`."
    )
    least: Positive = Field(2.0, description="Smallest side in arcsec, for unit `radius`.")
    most: Positive = Field(60.0, description="Largest side in arcsec, for unit `radius`.")

    @model_validator(mode="after")
    def _radius_is_named(self) -> Extent:
        if (self.unit == "radius") != (self.radius is not None):
            raise ValueError("unit radius needs `radius`, the column with it, and no other does")
        if self.least > self.most:
            raise ValueError(f"least {self.least} is above most {self.most}")
        return self


class Annulus(Section):
    """The ring around the object in which its local sky is measured."""

    inner: Fraction = Field(0.7, description="Inner radius, as a fraction of half the side.")
    outer: Annotated[float, Field(gt=0, le=1.5)] = Field(1.0, description="Outer radius.")

    @model_validator(mode="after")
    def _is_a_ring(self) -> Annulus:
        if self.inner >= self.outer:
            raise ValueError(f"inner {self.inner} must be below outer {self.outer}")
        return self


class Extinction(Section):
    """Correction for Galactic dust."""

    ebv: Name = Field(
        description="Kept column with E(B-V) in magnitudes. An object without a value is not "
        "corrected; the log of its shard counts them."
    )
    coefficients: dict[Name, Positive] = Field(
        description="Extinction A / E(B-V) of each band (for DECam in Schlafly & Finkbeiner 2011: "
        "{g: 3.214, r: 2.165, z: 1.211})."
    )


class AreaRatio(Section):
    """The parameter K of Barchi et al. (2020): area of the galaxy over that of the seeing disc."""

    radius: Name = Field(description="Kept column with the Petrosian radius in arcsec.")
    axis_ratio: Name | None = Field(
        None, description="Kept column with the axis ratio b/a; 1 if not given."
    )
    seeing: Name | None = Field(
        None,
        description="Kept column with the seeing's full width at half maximum in arcsec; "
        "`input.seeing` of the reference band if not given.",
    )


class Cutouts(Section):
    """What is cut around each object."""

    size: Annotated[int, Field(ge=8, le=1024)] = Field(
        64, description="Side of the square cutout in pixels."
    )
    extent: Extent | None = Field(
        None,
        description="How much sky the cutout shows; `size` pixels of the image if not given. "
        "Else it is resampled to `size` with flux conserved.",
    )
    crop: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="Stamps only: central fraction of the stamp's side that is kept, then "
        "resampled to `size`.",
    )
    recentre: Literal["none", "peak", "centroid"] = Field(
        "none",
        description="Move to the brightest pixel, or to the centroid of the light, of the "
        "reference band within `recentre_radius`.",
    )
    recentre_radius: Positive = Field(
        1.0, description="Arcsec by which a cutout may be moved; pixels where no scale is known."
    )
    background: Literal["map", "annulus", "none"] = Field(
        "map",
        description="Sky that is subtracted. `map`: fitted to each tile (of stamps: the border's "
        "median). `annulus`: the median in a ring around each object.",
    )
    annulus: Annulus = Field(
        default_factory=Annulus, description="The ring of background `annulus`."
    )
    noise: Literal["sky", "weight"] = Field(
        "sky",
        description="Noise of a cutout. `sky`: of the tile's background (of stamps: of the "
        "border). `weight`: median over the cutout of the weight image.",
    )
    noise_units: bool = Field(
        True, description="Divide by the band's noise. Always off for display pixels."
    )
    extinction: Extinction | None = Field(
        None, description="Correct fluxes for Galactic dust; of no effect in noise units."
    )
    area_ratio: AreaRatio | None = Field(
        None, description="Add the column galaxy_area_ratio, K of Barchi et al. (2020)."
    )
    max_masked_fraction: Fraction = Field(
        0.5,
        description="An object whose cutout has more bad pixels than this, over all bands, is not "
        "used.",
    )
    subset_below: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Tiles with fewer objects than this are read around the objects only; by a "
        "model of the cost if not given; 0: never.",
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="Type of the stored pixels; float16 halves the files and keeps 3 digits.",
    )
    compression: Literal["none", "lz4", "zstd"] = Field(
        "none", description="Compression of the stored cutouts; `none` can be mapped into memory."
    )
