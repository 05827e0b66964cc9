"""What an HDF5 file holds itself, and not in another file to which it leads."""

from __future__ import annotations

import h5py

from luneta.survey.table_choice import TableError


def own_item(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """Find a group or dataset that lies in the file itself.

    Parameters
    ----------
    name : str
        Of one item, or a path such as `group/stars`.

    Returns
    -------
    h5py.Group, h5py.Dataset or None
        None if there is no such item.

    Raises
    ------
    TableError
        If a soft or external link stands there, or a dataset takes its values from another file
        (external storage, or a virtual dataset).
    """
    item = group
    for part in filter(None, name.split("/")):
        if not isinstance(item, h5py.Group):
            return None
        if not item.id.links.exists(part.encode()):
            return None
        if not is_own_link(item, part):
            raise TableError(
                f"{group.file.filename}: {name!r} is a soft or external link, and luneta follows "
                f"none; name the dataset itself, or copy it into the file with h5copy"
            )
        item = item[part]
    _refuse_other_files(item)
    return item


def own_dataset(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """Find a dataset that lies in the file itself; see `own_item`.

    Returns
    -------
    h5py.Dataset or None
        None if there is no dataset of that name.

    Raises
    ------
    TableError
        As of `own_item`.
    """
    item = own_item(group, name)
    return item if isinstance(item, h5py.Dataset) else None


def is_own_link(group: h5py.Group, name: str) -> bool:
    """Whether an item of a group is no soft or external link."""
    return group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD


def _refuse_other_files(item: h5py.Group | h5py.Dataset) -> None:
    if not isinstance(item, h5py.Dataset):
        return
    kind = "a virtual dataset" if item.is_virtual else "stored outside" if item.external else None
    if kind is not None:
        raise TableError(
            f"{item.file.filename}: {item.name!r} is {kind}: its values lie in other files, which "
            f"luneta does not open; write the values into the file itself, such as by h5repack"
        )
