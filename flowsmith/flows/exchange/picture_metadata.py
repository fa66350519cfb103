"""The graph texts that ComfyUI writes into pictures: PNG text chunks and, in WebP, EXIF.

Only the parts of the file are walked, pixels are never decoded, and what is read or unpacked is bounded, so a
picture of any size costs little and cannot be a bomb. (General EXIF readers copy what each of up to 65,535
entries points to, and all may point to the same megabytes.)
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from flowsmith.flows.exchange.limits import MAX_CHUNKS, MAX_TEXT, refusal

KEYS = ("prompt", "workflow")  # API format, editor's format
PNG = b"\x89PNG\r\n\x1a\n"
_ASCII = 2  # EXIF's type of texts


def is_picture(head: bytes) -> bool:
    """Return whether a file that begins with these (12 or more) bytes is a PNG or WebP picture."""
    return head.startswith(PNG) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_metadata(stream: BinaryIO) -> dict[str, str]:
    """Return the texts under "prompt" and "workflow" in a picture; of two under one name the last.

    Args:
        stream: The file, at its beginning; it must be able to seek.

    Raises:
        FlowError: Damaged parts, or texts of more than `MAX_TEXT` bytes.
    """
    head = stream.read(12)
    budget = _Budget()
    if head.startswith(PNG):
        stream.seek(len(PNG))
        texts = list(_png_texts(stream, budget))
    else:
        texts = list(_webp_texts(stream, budget))
    return {key: text.decode("utf-8") if _is_utf8(text) else text.decode("latin-1") for key, text in texts}


class _Budget:
    """Bytes of text that one file may still cost."""

    def __init__(self) -> None:
        self.left = 2 * MAX_TEXT  # a graph in either form

    def take(self, size: int) -> None:
        self.left -= size
        if size > MAX_TEXT or self.left < 0:
            message = f"its texts hold more than {MAX_TEXT >> 20} MB; give a picture as ComfyUI saves it"
            raise refusal("invalid_graph", "large metadata", f"up to {MAX_TEXT >> 20} MB of text", message)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _damaged(what: str) -> Exception:
    message = f"the picture is damaged: {what}; give it as ComfyUI saved it"
    return refusal("invalid_graph", what, "an undamaged picture", message)


def _parts(stream: BinaryIO, layout: str, tail: int) -> Iterator[tuple[bytes, int]]:
    """Yield name and size of each part, with the stream at its content; go on behind it and ``tail`` bytes."""
    for _ in range(MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            return
        first, second = struct.unpack(layout, head)
        name, size = (second, first) if isinstance(first, int) else (first, second)
        start = stream.tell()
        yield name, size
        stream.seek(start + size + (tail or size % 2))
    raise _damaged(f"more than {MAX_CHUNKS} parts")


def _content(stream: BinaryIO, size: int, budget: _Budget) -> bytes:
    budget.take(size)
    content = stream.read(size)
    if len(content) < size:
        raise _damaged("it ends too early")
    return content


def _png_texts(stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    for name, size in _parts(stream, ">I4s", 4):
        if name == b"IEND":
            return
        if name not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        content = _content(stream, size, budget)
        keyword, _, rest = content.partition(b"\0")
        key = keyword.decode("latin-1")
        if key in KEYS:
            if stream.read(4) != struct.pack(">I", zlib.crc32(name + content)):
                raise _damaged(f"the checksum of its {key} is wrong")
            yield key, _png_text(name, rest, budget)


def _png_text(name: bytes, rest: bytes, budget: _Budget) -> bytes:
    """Return the text of a chunk, from behind its keyword on."""
    if name == b"tEXt":
        return rest
    if name == b"zTXt":
        return _unpacked(rest[1:], budget)  # behind the number of the method, of which there is one
    parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
    if len(parts) < 3:
        raise _damaged("an iTXt chunk without text")
    return _unpacked(parts[2], budget) if rest[:1] == b"\1" else parts[2]


def _unpacked(packed: bytes, budget: _Budget) -> bytes:
    packer = zlib.decompressobj()
    try:
        text = packer.decompress(packed, MAX_TEXT + 1)
    except zlib.error as error:
        raise _damaged(f"its text cannot be unpacked ({error})") from error
    budget.take(len(text))
    if not packer.eof:
        raise _damaged("its packed text ends too early")
    return text


def _webp_texts(stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    for name, size in _parts(stream, "<4sI", 0):
        if name == b"EXIF":
            try:
                yield from _exif_texts(_content(stream, size, budget), budget)
            except struct.error as error:
                raise _damaged("its EXIF points behind its end") from error


def _exif_texts(content: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    """Yield the texts of the first directory that read "prompt:..." or "workflow:..."."""
    tiff = memoryview(content.removeprefix(b"Exif\0\0"))
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None:
        raise _damaged("its EXIF has no byte order")
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(count):
        _, kind, size, place = struct.unpack_from(f"{order}HHII", tiff, directory + 2 + 12 * entry)
        key = bytes(tiff[place : place + 16]).partition(b":")[0].decode("latin-1").lower()
        if kind == _ASCII and key in KEYS:
            budget.take(size)
            if place + size > len(tiff):
                raise _damaged("its EXIF ends too early")
            yield key, bytes(tiff[place + len(key) + 1 : place + size]).rstrip(b"\0")
