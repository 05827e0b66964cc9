"""A config is held against its files before any job starts."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from luneta.config import ConfigError, validate
from luneta.config_checks import check_paths, column_names

TILE_TABLE = "tile\tband\timage\nt1\tg\tnone_g.fits\nt1\tr\tnone_r.fits\n"


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """A config of tiles whose files are in order, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiles.tsv").write_text(TILE_TABLE)
    (tmp_path / "sources.csv").write_text("object_id,ra,dec\n1,2.0,3.0\n")
    labels = "".join(f"{n},{'round' if n % 2 else 'disc'}\n" for n in range(20))
    (tmp_path / "labels.csv").write_text("object_id,label\n" + labels)
    return {
        "survey": "sky",
        "input": {
            "kind": "tiles",
            "tiles": "tiles.tsv",
            "sources": "sources.csv",
            "bands": ["g", "r"],
        },
        "tasks": {
            "shape": {
                "kind": "multiclass",
                "classes": ["round", "disc"],
                "labels": "labels.csv",
                "training": {"weights": "none"},
            }
        },
    }


def problems(config):
    """The lines in which a config is refused."""
    with pytest.raises(ConfigError) as refused:
        check_paths(validate(config))
    return str(refused.value).splitlines()[1:]


def only_problem(config):
    """The one line in which a config is refused."""
    (line,) = problems(config)
    return line


def test_good_config_passes_without_its_images(survey):
    check_paths(validate(survey))


def test_missing_tile_table(survey):
    survey["input"]["tiles"] = "tilse.tsv"
    assert "input.tiles: tilse.tsv: cannot be read" in only_problem(survey)


def test_tile_table_without_a_column(survey, tmp_path):
    (tmp_path / "tiles.tsv").write_text("tile\tband\nt1\tg\n")
    assert "there is no column image" in only_problem(survey)


def test_empty_tile_table(survey, tmp_path):
    (tmp_path / "tiles.tsv").write_text("tile\tband\timage\n")
    assert "lists no tile" in only_problem(survey)


def test_band_that_no_tile_has(survey):
    survey["input"]["bands"] = ["g", "R"]
    assert only_problem(survey).strip().startswith("input.bands = 'R': no tile of tiles.tsv has")


def test_missing_source_list(survey):
    survey["input"]["sources"] = "nowhere/{tile}.fits"
    assert "input.sources: nowhere/t1.fits: there is no such file" in only_problem(survey)


def test_source_list_without_the_mapped_column(survey):
    survey["input"]["columns"] = {"ra": "RAJ"}
    survey["input"]["keep"] = {"magnitude": "magr"}
    first, second = problems(survey)
    assert "input.columns.ra = 'RAJ': sources.csv has no such column; did you mean ra?" in first
    assert "input.keep.magnitude = 'magr'" in second


def test_broken_source_list(survey, tmp_path):
    (tmp_path / "sources.fits").write_bytes(b"SIMPLE  = nonsense")
    survey["input"]["sources"] = "sources.fits"
    assert "cannot be read as fits" in only_problem(survey)


def test_misspelt_label(survey, tmp_path):
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("100,rond\n101,rond\n102,\n")
    line = only_problem(survey)
    assert "label 'rond' (2 objects)" in line
    assert "did you mean round?" in line


def test_class_without_labels(survey):
    survey["tasks"]["shape"]["classes"] += ["irregular"]
    line = only_problem(survey)
    assert "tasks.shape.classes = 'irregular': 0 objects have this label" in line
    assert "disc (10), round (10)" in line


def test_class_smaller_than_the_folds_counts_objects_not_rows(survey, tmp_path):
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("100,ring\n100,ring\n100,ring\n101,ring\n102,ring\n")
    survey["tasks"]["shape"]["classes"] += ["ring"]
    line = only_problem(survey)
    assert "tasks.shape.classes = 'ring': 3 objects have this label, fewer than" in line
    assert "training.folds = 5; labels found: disc (10), round (10), ring (3). Correct" in line
    survey["tasks"]["shape"]["training"]["folds"] = 3
    check_paths(validate(survey))


def test_every_unknown_label_is_told_at_once(survey, tmp_path):
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("100,artefact\n101,rond\n")
    first, second = problems(survey)
    assert "tasks.shape.labels: label 'artefact' (1 objects) is none of classes, merge" in first
    assert "label 'rond' (1 objects)" in second and "did you mean round?" in second
    survey["tasks"]["shape"] |= {"ignore": ["artefact"], "merge": {"round": ["rond"]}}
    check_paths(validate(survey))


def grouped(tmp_path, *more):
    """Write labels whose column `field` is the group, with some rows added."""
    rows = [f"{n},{'round' if n % 2 else 'disc'},f{n // 2}" for n in range(20)]
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label,field", *rows, *more, ""]))


def test_group_column(survey, tmp_path):
    survey["tasks"]["shape"]["training"]["group_column"] = "feild"
    grouped(tmp_path)
    line = only_problem(survey)
    assert "tasks.shape.training.group_column = 'feild': labels.csv has no such column" in line
    assert "did you mean field?" in line
    survey["tasks"]["shape"]["training"]["group_column"] = "field"
    check_paths(validate(survey))


def test_objects_in_two_groups(survey, tmp_path):
    survey["tasks"]["shape"]["training"]["group_column"] = "field"
    # no label, an ignored one, and the same again are no contradiction
    survey["tasks"]["shape"]["ignore"] = ["unsure"]
    grouped(tmp_path, "1,,f9", "2,unsure,f9", "3,round,f1")
    check_paths(validate(survey))
    grouped(tmp_path, "7,round,f9", "8,disc,")
    line = only_problem(survey)
    assert "tasks.shape.training.group_column = 'field': 2 objects are in two groups" in line
    assert "('7', '8'; the first in 'f3' and 'f9')" in line


def test_near_duplicates_of_stamps_without_positions(survey, tmp_path):
    (tmp_path / "stamps.csv").write_text("object_id,image,ra,dec\n1,a.jpg,1,2\n")
    survey["input"] = {"kind": "stamps", "table": "stamps.csv", "bands": ["r"]}
    survey["tasks"]["shape"]["training"]["group_radius"] = 2.5
    line = only_problem(survey)
    assert "training.group_radius = 2.5: the positions of the stamps are not known; name" in line
    survey["input"]["columns"] = {"ra": "ra", "dec": "dec"}
    check_paths(validate(survey))
    survey["input"] |= {"columns": {}, "positions": "wcs"}
    check_paths(validate(survey))


def test_merged_and_ignored_labels(survey):
    survey["tasks"]["shape"] |= {"classes": ["galaxy", "star"], "ignore": ["disc"]}
    survey["tasks"]["shape"]["merge"] = {"galaxy": ["round"]}
    assert "'star': 0 objects" in only_problem(survey)


def test_label_table_without_its_columns(survey):
    survey["tasks"]["shape"]["label_column"] = "labl"
    line = only_problem(survey)
    assert "tasks.shape.label_column = 'labl': labels.csv has no such column; did you mean" in line


def test_missing_label_table_and_weights_are_told_together(survey):
    survey["tasks"]["shape"]["labels"] = ["labels.csv", "more.csv"]
    survey["tasks"]["shape"]["training"]["weights"] = "net.weights.h5"
    first, second = problems(survey)
    assert "training.weights = 'net.weights.h5': there is no such file" in first
    assert "tasks.shape.labels: more.csv: there is no such file" in second


def test_weights_of_another_format(survey, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"")
    survey["tasks"]["shape"]["training"]["weights"] = "net.pth"
    assert "named *.weights.h5, .h5, .keras, .safetensors" in only_problem(survey)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (
            {"rgb": ["g", "r", "z"]},
            "training.rgb = ['g', 'r', 'z']: must name three different ones of input.bands (g, r)",
        ),
        ({"rgb": ["g", "r", "r"]}, "must name three different ones of input.bands (g, r); name"),
        ({"image_size": 24}, "tasks.shape.training.image_size = 24: MobileNetV2 needs images of"),
        (
            {"backbone": "Xception"},
            "cutouts.size = 64: Xception needs images of at least 71 pixels; set "
            "tasks.shape.training.image_size to 71 or more",
        ),
        (
            {"activation": "gelu"},
            "training.activation = 'gelu': MobileNetV2 has its own; leave it out, or choose a "
            "backbone with a choice (LeNet5,",
        ),
        (
            {"weights": "imagenet", "backbone": "ResNet18"},
            "training.weights = 'imagenet': there are none of ResNet18; use none, pretrain or a "
            "file, or a backbone that has them (VGG16,",
        ),
        (
            {"weights": "hf_hub:a/b"},
            "training.weights = 'hf_hub:a/b': weights of PyTorch do not fit MobileNetV2; set "
            "backbone to what they are of, one of ResNet18, TimmResNet50",
        ),
        ({"weights": "x.safetensors"}, "'x.safetensors': weights of PyTorch do not fit Mobil"),
    ],
)
def test_networks_that_cannot_be(survey, tmp_path, training, said):
    (tmp_path / "x.safetensors").touch()
    survey["tasks"]["shape"]["training"] |= training
    assert said in only_problem(survey)


@pytest.mark.parametrize(
    "training",
    [
        {"backbone": "LeNet5", "image_size": 16, "activation": "gelu"},
        {"backbone": "Xception", "image_size": 71, "weights": "imagenet"},
        {"backbone": "TimmConvNeXtPico", "weights": "hf_hub:a/b@v1", "image_size": 32},
        {"backbone": "ResNet18", "weights": "x.safetensors"},
        {"backbone": "ResNet50LensFinder", "weights": "imagenet", "course_recipe": True},
    ],
)
def test_networks_that_can_be(survey, tmp_path, training):
    (tmp_path / "x.safetensors").touch()
    survey["tasks"]["shape"]["training"] |= training
    check_paths(validate(survey))


def stamps_of(survey, tmp_path, bands, **others):
    """Make the survey one of stamps of so many bands."""
    (tmp_path / "stamps.csv").write_text("object_id,image\n1,a.fits\n")
    survey["input"] = {"kind": "stamps", "table": "stamps.csv", "bands": list(bands), **others}


def test_named_bands_that_a_mean_stem_would_not_look_at(survey, tmp_path):
    training = survey["tasks"]["shape"]["training"]
    training |= {"rgb": ["i", "r", "g"], "stem": "mean"}
    stamps_of(survey, tmp_path, "griz")
    line = only_problem(survey)
    assert "training.rgb = ['i', 'r', 'g']: with stem: mean all 4 bands get the same" in line
    assert "set stem: copy or zero, or leave rgb out" in line
    for stem in ("copy", "zero"):
        training["stem"] = stem
        check_paths(validate(survey))
    training["stem"] = "mean"
    stamps_of(survey, tmp_path, "gri")
    check_paths(validate(survey))


def test_simulated_fluxes_do_not_prepare_for_display_pixels(survey, tmp_path):
    stamps_of(survey, tmp_path, "gri", pixels="display")
    survey["tasks"]["shape"]["training"]["weights"] = "pretrain"
    line = only_problem(survey)
    assert "tasks.shape.training.weights = 'pretrain': pretraining.method: supervised" in line
    assert "set pretraining.method: contrastive" in line
    survey["pretraining"] = {"method": "contrastive"}
    check_paths(validate(survey))
    survey["pretraining"] = {"method": "supervised"}
    survey["input"]["pixels"] = "flux"
    check_paths(validate(survey))


def test_what_the_simulation_makes_is_not_missing(survey):
    survey["input"]["sources"] = "results/sky/raw/{tile}_sources.fits"
    survey["tasks"]["shape"]["labels"] = ["results/sky/raw/t1_labels.csv"]
    assert len(problems(survey)) == 2
    survey["simulation"] = {}
    check_paths(validate(survey))


def test_stamp_table(survey, tmp_path):
    (tmp_path / "stamps.csv").write_text("name,file\n1,a.jpg\n")
    survey["input"] = {"kind": "stamps", "table": "stamps.csv", "bands": ["r"]}
    survey["input"] |= {"image": "{fil}_{band}", "columns": {"object_id": "name", "ra": "x"}}
    first, second = problems(survey)
    assert "input.columns.ra = 'x'" in first
    assert "input.image, {fil} = 'fil': stamps.csv has no such column; did you mean file?" in second


@pytest.mark.parametrize("name", ["row", "signature", "refused", "image_r"])
def test_what_is_kept_of_stamps_may_not_hide_a_column_of_luneta(survey, tmp_path, name):
    (tmp_path / "stamps.csv").write_text(f"name,{name}\n1,2\n")
    survey["input"] = {
        "kind": "stamps", "table": "stamps.csv", "bands": ["r"], "image": "{name}.fits",
        "columns": {"object_id": "name"}, "keep": {name: name},
    }  # fmt: skip
    said = f"input.keep.{name} = {name!r}: luneta writes a column of this name; keep it by another"
    assert said in only_problem(survey)


def test_of_very_many_lists_only_some_are_read_but_none_may_be_missing(
    survey, tmp_path, monkeypatch
):
    monkeypatch.setattr("luneta.config_checks.MOST_LISTS", 1)
    survey["input"]["sources"] = "{tile}.csv"
    (tmp_path / "t1.csv").write_text("object_id,ra,dec\n")
    (tmp_path / "t2.csv").write_text("not,read\n")
    lines = "".join(f"t{n}\t{band}\tx.fits\n" for n in "12" for band in "gr")
    (tmp_path / "tiles.tsv").write_text("tile\tband\timage\n" + lines)
    check_paths(validate(survey))
    (tmp_path / "t2.csv").unlink()
    assert "input.sources: t2.csv: there is no such file" in only_problem(survey)


def test_a_list_below_root_is_found(survey, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "sources.csv").rename(tmp_path / "lists/sources.csv")
    assert "sources.csv: there is no such file; correct input.sources" in only_problem(survey)
    survey["input"]["root"] = "lists"
    check_paths(validate(survey))
    survey["input"]["sources"] = "source.csv"
    said = "source.csv: there is no such file, nor is there lists/source.csv; correct"
    assert said in only_problem(survey)


def test_each_file_of_a_list_must_have_the_columns(survey, tmp_path):
    (tmp_path / "more.csv").write_text("object_id,ra,de\n2,2.0,3.0\n")
    survey["input"]["sources"] = ["sources.csv", "more.csv"]
    said = "input.columns.dec = 'dec': more.csv has no such column; did you mean de?"
    assert said in only_problem(survey)
    survey["input"]["sources"] = "*.cs"
    assert "input.sources = '*.cs' matches no file" in only_problem(survey)
    survey["input"]["sources"] = ["{tile}.csv"]
    with pytest.raises(ConfigError, match="{tile} stands in one name alone"):
        validate(survey)


def test_a_column_of_arrays_is_told_from_one_that_is_not_there(survey, tmp_path):
    rows = {"object_id": ["1"], "ra": [2.0], "dec": [3.0], "flux": [[1.0, 2.0]]}
    pq.write_table(pa.table(rows), tmp_path / "sources.parquet")
    survey["input"] |= {"sources": "sources.parquet", "keep": {"flux": "flux"}}
    line = only_problem(survey)
    assert "input.keep.flux = 'flux': sources.parquet: the column 'flux' holds an array" in line


def test_a_label_column_of_arrays_is_told(survey, tmp_path):
    rows = {"object_id": ["1"], "label": [["round", "disc"]]}
    pq.write_table(pa.table(rows), tmp_path / "labels.parquet")
    survey["tasks"]["shape"]["labels"] = "labels.parquet"
    said = "tasks.shape.labels: labels.parquet: the column 'label' holds an array of values"
    assert said in only_problem(survey)


def test_one_of_several_tables_is_found_by_its_columns_or_asked_for(survey, tmp_path):
    stars = {"object_id": ["1"], "ra": [2.0], "dec": [3.0]}
    tables = [fits.PrimaryHDU()]
    for rows, name in (({"chip": [1]}, "INFO"), (stars, "STARS"), (stars, "MORE")):
        tables.append(fits.BinTableHDU(Table(rows), name=name))
    fits.HDUList(tables[:3]).writeto(tmp_path / "s.fits")
    survey["input"]["sources"] = "s.fits"
    check_paths(validate(survey))
    fits.HDUList(tables).writeto(tmp_path / "s.fits", overwrite=True)
    assert "input.sources: s.fits: 2 of its tables have the columns" in only_problem(survey)
    survey["input"]["sources"] = "s.fits[MORE]"
    check_paths(validate(survey))
    survey["input"]["sources"] = "s.fits[LESS]"
    assert "there is no table [LESS]; the file holds [1] [INFO]" in only_problem(survey)


def test_templates_of_positions_and_names_ask_for_their_columns(survey, tmp_path):
    (tmp_path / "sources.csv").write_text("l,b,RAh,RAm,DEd\n1.5,2.5,12,30,5\n")
    columns = {"object_id": "G{l:.4f}{b:+.4f}", "ra": "{RAh}:{RAm}", "dec": "{DEd}:{DEm}"}
    survey["input"]["columns"] = columns
    assert "input.columns.dec = 'DEm': sources.csv has no such column" in only_problem(survey)
    columns |= {"dec": "DEd", "object_id": None}
    check_paths(validate(survey))


def test_column_names_of_each_format(tmp_path):
    columns = {"a": [1], "b": ["x"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    Table(columns).write(tmp_path / "t.fits")
    (tmp_path / "t.tsv").write_text("a\tb\n1\tx\n")
    for suffix in ("parquet", "fits", "tsv"):
        assert column_names(tmp_path / f"t.{suffix}") == ["a", "b"]


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("input", {"tiles": None, "images": "no/{tile}_{band}.fits"}, "there is no folder no"),
        ("input", {"zero_points": {"G": 22.5}}, "input.zero_points.G: is none of input.bands"),
        ("input", {"planes": {"i": 3}}, "input.planes.i: is none of input.bands"),
        ("input", {"units": {"dek": "deg"}}, "input.units.dek: no such column is mapped; did you"),
        (
            "input",
            {"sources": None, "detection": {}, "keep": {"radius": "R"}},
            "input.keep.radius = 'R': with input.detection there is no source list",
        ),
        (
            "cutouts",
            {"extent": {"unit": "radius", "side": 4, "radius": "size"}},
            "cutouts.extent.radius = 'size': is no kept column; none is kept",
        ),
        (
            "cutouts",
            {"extinction": {"ebv": "ebv", "coefficients": {"g": 3.2, "r": 2.2}}},
            "cutouts.extinction.ebv = 'ebv': is no kept column",
        ),
    ],
)
def test_settings_that_do_not_fit_together(survey, section, change, words):
    survey.setdefault(section, {}).update(change)
    assert words in only_problem(survey)


def test_area_ratio_needs_the_seeing(survey, tmp_path):
    (tmp_path / "sources.csv").write_text("object_id,ra,dec,R\n1,2.0,3.0,1.5\n")
    survey["input"]["keep"] = {"petrosian": "R"}
    survey["cutouts"] = {"area_ratio": {"radius": "petrosian"}}
    assert "the seeing of band g is not known" in only_problem(survey)
    survey["input"]["seeing"] = {"g": 1.2, "r": 1.1}
    check_paths(validate(survey))


def test_extinction_of_every_band(survey, tmp_path):
    (tmp_path / "sources.csv").write_text("object_id,ra,dec,EBV\n1,2.0,3.0,0.1\n")
    survey["input"]["keep"] = {"ebv": "EBV"}
    survey["cutouts"] = {"extinction": {"ebv": "ebv", "coefficients": {"g": 3.2}}}
    assert "coefficients: band r has none" in only_problem(survey)


def test_detected_columns_may_set_the_extent(survey):
    survey["input"] |= {"sources": None, "detection": {}}
    survey["cutouts"] = {"extent": {"unit": "radius", "side": 4, "radius": "half_light_radius"}}
    check_paths(validate(survey))


def test_a_column_that_detection_does_not_measure_cannot_set_the_extent(survey):
    survey["input"] |= {"sources": None, "detection": {}}
    survey["cutouts"] = {"extent": {"unit": "radius", "side": 4, "radius": "half_light_radii"}}
    assert "is no kept column; did you mean half_light_radius?" in only_problem(survey)


def test_remote_list_is_not_fetched_to_check_it(survey):
    survey["input"]["sources"] = "https://nowhere.invalid/list.csv"
    check_paths(validate(survey))


def test_hats_catalog_as_source_list(survey, tmp_path):
    part = tmp_path / "hats/dataset/Norder=0/Dir=0"
    part.mkdir(parents=True)
    (tmp_path / "hats/hats.properties").write_text("obs_collection=x\n")
    columns = {"object_id": ["1"], "ra": [1.0], "decl": [2.0]}
    pq.write_table(pa.table(columns), part / "Npix=1.parquet")
    survey["input"]["sources"] = "hats"
    assert "input.columns.dec = 'dec': hats has no such column; did you mean" in only_problem(
        survey
    )
    survey["input"]["columns"] = {"dec": "decl"}
    check_paths(validate(survey))


def test_missing_lists_of_candidates_are_told_together(survey):
    task = survey["tasks"]["shape"] | {"kind": "binary"}
    survey["tasks"]["shape"] = task | {"candidates": {"known": "lenses.csv", "grades": "ours.csv"}}
    assert problems(survey) == [
        "  tasks.shape.candidates.known: lenses.csv: there is no such file",
        "  tasks.shape.candidates.grades: ours.csv: there is no such file",
    ]


def test_names_of_columns_are_checked_with_all_else(survey, tmp_path):
    (tmp_path / "sources.csv").write_text("object_id,ra,dec,z\n1,2.0,3.0,0.5\n")
    survey["input"]["keep"] = {"RA": "z"}
    assert only_problem(survey).strip() == (
        "input.keep.RA = 'z': luneta writes the column ra, and FITS and SQL do not tell capitals "
        "from small letters; keep it by another name"
    )
    survey["input"]["keep"] = {"z": "z"}
    survey["catalog"] = {"default_columns": ["object_id", "zz"]}
    assert "catalog.default_columns = 'zz': the catalog has no such column" in only_problem(survey)


def test_many_unknown_labels_are_one_line(survey, tmp_path):
    rows = "".join(f"{100 + n},{n / 2649}\n" for n in range(2649))
    (tmp_path / "labels.csv").write_text("object_id,label\n" + rows)
    lines = problems(survey)
    assert len(lines) == 3  # and one for each class
    assert "2,649 labels are none of classes, merge and ignore: '0.0' (1 objects)" in lines[0]
    assert "and 2,644 more; these look like numbers, such as fractions of votes" in lines[0]
    assert "tasks.shape.label_column (now 'label')" in lines[0]
    assert max(map(len, lines)) < 700


def test_many_unknown_names_are_one_line_too(survey, tmp_path):
    rows = "".join(f"{100 + n},galaxy {n // 3}\n" for n in range(300))
    (tmp_path / "labels.csv").write_text("object_id,label\n" + rows)
    first = problems(survey)[0]
    assert "100 labels are none of classes" in first
    assert "'galaxy 0' (3 objects)" in first
    assert "allowed are disc, round; name the column of the classes" in first
    assert len(first) < 500


def test_a_missing_column_of_a_wide_table_shows_some_of_the_columns(survey, tmp_path):
    names = ",".join(f"c{n}" for n in range(2000))
    (tmp_path / "labels.csv").write_text(f"{names}\n")
    first = only_problem(survey)
    assert "and 1,980 more" in first
    assert len(first) < 400


def test_a_thousand_missing_lists_are_a_few_lines(survey, tmp_path):
    rows = "".join(f"t{n}\t{band}\tnone.fits\n" for n in range(1000) for band in "gr")
    (tmp_path / "tiles.tsv").write_text("tile\tband\timage\n" + rows)
    survey["input"]["sources"] = "nowhere/{tile}.fits"
    lines = problems(survey)
    assert len(lines) == 31
    assert lines[-1].strip() == "and 970 more problems"
