"""No PyTorch file runs code, reads beyond its numbers, or ends the process."""

import io
import os
import pickle
import pickletools
import signal
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from safetensors.numpy import save_file

from attack_child import in_child
from luneta.models import timm
from luneta.models.torch_files import StateError, read_tensors

PROTO = b"\x80\x02"


class Storage:
    """Stands for one storage of a file of PyTorch's."""

    def __init__(self, key, values):
        self.key = key
        self.values = values


class Global:
    """Is pickled as the name of a function that need not exist here."""

    def __init__(self, module, name, *arguments):
        self.module = module
        self.name = name
        self.arguments = arguments


class Pickler(pickle._Pickler):
    """Writes what torch.save would."""

    def persistent_id(self, thing):
        if not isinstance(thing, Storage):
            return None
        return "storage", Global("torch", "FloatStorage"), thing.key, "cpu", thing.values.size

    def save(self, thing, save_persistent_id=True):
        if not isinstance(thing, Global):
            super().save(thing, save_persistent_id)
            return
        self.write(f"c{thing.module}\n{thing.name}\n".encode())
        if thing.arguments:
            super().save(thing.arguments)
            self.write(b"R")


def pickled(content):
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()


def tensor(storage, start, shape, strides):
    return Global("torch._utils", "_rebuild_tensor_v2", storage, start, shape, strides, False, {})


def archive_of(path, content, storages=(), packer=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packer) as archive:
        archive.writestr("model/data.pkl", content if type(content) is bytes else pickled(content))
        for storage in storages:
            archive.writestr(f"model/data/{storage.key}", storage.values.tobytes())
    return path


def stored(count=12):
    return Storage("0", np.arange(count, dtype="float32"))


def nested(levels):
    """A key of tuples within tuples, whose hash takes 2^levels steps."""
    return b")" + b"q\x00" + (b"h\x000h\x00h\x00\x86q\x00") * levels


def plain_attacks():
    zero = stored()
    scalar = tensor(zero, 3, (), ())
    row = tensor(zero, 0, (2,), (1,))
    good = pickled({"a": row})
    return {
        "strides that are tensors": {"a": tensor(zero, 0, (2, 2), (scalar, scalar))},
        "a shape of tensors": {"a": tensor(zero, 0, (scalar, scalar), (1, 1))},
        "a start that is a tensor": {"a": tensor(zero, scalar, (2,), (1,))},
        "a shape that is a tensor": {"a": tensor(zero, 0, row, (1, 1))},
        "a shape that is a list": {"a": tensor(zero, 0, [2], [1])},
        "numbers that are truths": {"a": tensor(zero, True, (True,), (True,))},
        "numbers with a fraction": {"a": tensor(zero, 0.5, (2.0,), (1.0,))},
        "strides beyond 64 bits": {"a": tensor(zero, 0, (2, 2), (2**63, -(2**63)))},
        "a shape beyond 64 bits": {"a": tensor(zero, 0, (2**62, 4), (0, 0))},
        "an empty axis and a long one": {"a": tensor(zero, 0, (0, 2**70), (2**70, 1))},
        "a start behind the end": {"a": tensor(zero, 10**6, (0,), (1,))},
        "sixty axes": {"a": tensor(zero, 0, (1,) * 60, (1,) * 60)},
        "a storage that is a word": {"a": tensor("storage", 0, (1,), (1,))},
        "a storage that is a tensor": {"a": tensor(row, 0, (1,), (1,))},
        "a tensor called": {"a": Global("torch._utils", "_rebuild_parameter", row)} and
        b"\x80\x02}X\x01\x00\x00\x00aK\x01)Rs.",
        "a function that the system has": {"a": Global("os", "system", "true")},
        "a name with dots": {"a": Global("torch._utils", "_rebuild_tensor_v2.__globals__", 1)},
        "attributes of a function": PROTO + b"ctorch._utils\n_rebuild_tensor_v2\n}"
        b"X\x01\x00\x00\x00aK\x01sb.",
        "slots of a dict": PROTO + b"ccollections\nOrderedDict\n)R}}X\x01\x00\x00\x00aK\x01s\x86b.",
        "attributes of a tensor": good[:-2] + b"u.",
        "a dict made of pairs": {"a": Global("collections", "OrderedDict", [["x", 1]])},
        "a key that takes for ever": PROTO + b"}" + nested(60) + b"K\x01s.",
        "a memo far away": PROTO + b"}r\xff\xff\xff\x7f.",
        "a word of four gigabytes": PROTO + b"X\xff\xff\xff\xff.",
        "a frame of exabytes": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.",
        "an object of a class": PROTO + b"c__builtin__\nobject\n)\x81.",
        "an instance": PROTO + b"(i__builtin__\neval\n.",
        "an extension": PROTO + b"\x82\x01.",
        "an operation that is none": PROTO + b"\xff.",
        "no end": PROTO + b"}",
        "an empty stack": PROTO + b"s.",
        "a mark alone": PROTO + b"(.",
        "nothing": b"",
        "a list that holds itself": PROTO + b"]q\x00h\x00a.",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(plain_attacks()))
def test_a_pickle_that_does_what_tensors_do_not_is_refused(tmp_path, name):
    path = archive_of(tmp_path / "x.bin", plain_attacks()[name], [stored()])
    found = in_child(lambda: read_tensors(path), seconds=10)
    assert found.error == "StateError", found
    assert found.grown < 100 * 2**20
    assert "x.bin" in found.text and "safetensors" in found.text


def test_a_state_dict_with_its_versions_is_read(tmp_path):
    zero = stored()
    state = OrderedDict(a=tensor(zero, 2, (2, 2), (4, 1)), b=tensor(zero, 0, (0, 3), (3, 1)))
    state._metadata = OrderedDict({"": {"version": 1}})
    tensors = read_tensors(archive_of(tmp_path / "x.bin", state, [zero]))
    assert tensors["a"].tolist() == [[2, 3], [6, 7]]
    assert tensors["b"].shape == (0, 3)


def test_a_packed_archive_is_refused(tmp_path):
    zero = Storage("0", np.zeros(10**7, "float32"))
    path = archive_of(tmp_path / "x.bin", {"a": tensor(zero, 0, (1,), (1,))}, [zero],
                      zipfile.ZIP_DEFLATED)  # fmt: skip
    with pytest.raises(StateError, match="packed or encrypted"):
        read_tensors(path)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    zero = stored(10**6)
    path = archive_of(tmp_path / "x.bin", {"a": tensor(zero, 0, (1,), (1,))}, [zero])
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.getinfo("model/data/0")
        for number in range(1, 100):
            again = zipfile.ZipInfo(f"model/data/{number}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(again, field, getattr(first, field))
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
        archive._didModify = True
    with pytest.raises(StateError, match="members are longer than the file"):
        read_tensors(path)


def test_many_tensors_of_one_storage_are_a_bomb(tmp_path):
    zero = stored(10**6)
    many = {f"t{n}": tensor(zero, 0, (10**6,), (1,)) for n in range(1000)}
    path = archive_of(tmp_path / "x.bin", many, [zero])
    found = in_child(lambda: read_tensors(path))
    assert "many times as many numbers" in found.text
    assert found.grown < 100 * 2**20


def flipped(content):
    for place in range(len(content)):
        for value in (content[place] ^ 0xFF, content[place] ^ 1 << place % 8):
            yield content[:place] + bytes([value]) + content[place + 1 :]


def outcomes(read, path, contents, errors):
    """How many contents were read and how many refused; anything else is raised."""
    signal.alarm(60)  # a hang ends the child
    read_well = refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            read(path)
            read_well += 1
        except errors:
            refused += 1
    return read_well, refused


def test_no_flipped_byte_of_a_torch_file_does_more_than_to_be_refused(tmp_path):
    zero = stored()
    state = {"state_dict": OrderedDict(a=tensor(zero, 1, (2, 3), (3, 1)), epoch=4)}
    path = archive_of(tmp_path / "x.bin", state, [zero])
    content = path.read_bytes()
    found = in_child(lambda: outcomes(read_tensors, path, flipped(content), StateError), seconds=60)
    assert found.kind == "value", found
    assert eval(found.text)[1] > len(content) / 2  # noqa: S307


def test_no_flipped_byte_of_its_pickle_does_more_than_to_be_refused(tmp_path):
    """The archive has checksums, so here the pickle within is changed."""
    zero = stored()
    state = pickled({"state_dict": OrderedDict(a=tensor(zero, 1, (2, 3), (3, 1)), epoch=4)})
    pickletools.dis(state, io.StringIO())
    path = tmp_path / "x.bin"

    def read(target):
        archive_of(target, target.read_bytes(), [zero])
        read_tensors(target)

    found = in_child(lambda: outcomes(read, path, flipped(state), StateError), seconds=60)
    assert found.kind == "value", found
    assert eval(found.text)[1] > len(state) / 2  # noqa: S307


def test_no_flipped_byte_of_safetensors_does_more_than_to_be_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones((2, 3), "f4"), "b": np.arange(3)}, path)
    content = path.read_bytes()
    read = timm.load_state
    found = in_child(lambda: outcomes(read, path, flipped(content), StateError), seconds=60)
    assert found.kind == "value", found


def test_a_header_of_safetensors_that_claims_much_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[99999999,99999],"data_offsets":[0,4]}}'
    for content in (
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", len(header)) + header + bytes(4),
    ):
        path.write_bytes(content)
        found = in_child(lambda: timm.load_state(path))
        assert (found.error, found.grown < 50 * 2**20) == ("StateError", True)
    os.truncate(path, 2**40)
    assert in_child(lambda: timm.load_state(path)).error == "StateError"
