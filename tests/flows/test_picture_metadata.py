"""Graph texts in pictures, against pictures that Pillow writes and chunks written by hand."""

import io
import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flowsmith.flows import FlowError
from flowsmith.flows.exchange import import_file
from flowsmith.flows.exchange.limits import MAX_CHUNKS, MAX_TEXT
from flowsmith.flows.exchange.picture_metadata import PNG, is_picture, read_metadata
from tests.flows.editor_graphs import FILE, editor_graph, installed, sent_graph

API, UI = json.dumps(sent_graph()), json.dumps(editor_graph())
MAKE, MODEL = 0x010F, 0x0110  # the EXIF tags that ComfyUI uses


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0"))
    return PNG + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def itxt(key: bytes, text: bytes, packed: bool) -> bytes:
    flag = b"\1\0" if packed else b"\0\0"
    return chunk(b"iTXt", key + b"\0" + flag + b"en\0Key\0" + (zlib.compress(text) if packed else text))


def webp(exif: dict[int, str]) -> bytes:
    tags = Image.Exif()
    for tag, text in exif.items():
        tags[tag] = text
    file = io.BytesIO()
    Image.new("RGB", (3, 3)).save(file, "WEBP", exif=tags)
    return file.getvalue()


def read(content: bytes) -> dict[str, str]:
    assert is_picture(content[:12])
    return read_metadata(io.BytesIO(content))


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_that_pillow_writes(packed: bool) -> None:
    texts = PngInfo()
    texts.add_text("prompt", API, zip=packed)
    texts.add_itxt("workflow", UI, zip=packed)
    texts.add_text("parameters", "steps: 20")
    file = io.BytesIO()
    Image.effect_noise((64, 64), 20).save(file, "PNG", pnginfo=texts)
    assert read(file.getvalue()) == {"prompt": API, "workflow": UI}
    assert read(webp({MODEL: f"prompt:{API}", MAKE: f"Workflow:{UI}", 0x0131: "other"})) == {
        "prompt": API,
        "workflow": UI,
    }
    assert read(webp({0x0131: "other"})) == {}


def test_chunks_written_by_hand() -> None:
    assert read(png(chunk(b"tEXt", b"prompt\0{}"))) == {"prompt": "{}"}
    assert read(png(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"{}")))) == {"prompt": "{}"}
    assert read(png(itxt(b"workflow", "é".encode(), packed=True))) == {"workflow": "é"}
    assert read(png(itxt(b"workflow", "é".encode(), packed=False))) == {"workflow": "é"}
    assert read(png(chunk(b"tEXt", b"prompt\0\xe9"), chunk(b"tIME", bytes(7)))) == {"prompt": "é"}
    # Of two under one name the last, also behind the pixels; nothing behind the end.
    twice = png(chunk(b"tEXt", b"prompt\0a"), chunk(b"IDAT", b""), chunk(b"tEXt", b"prompt\0b"))
    assert read(twice + chunk(b"tEXt", b"prompt\0c")) == {"prompt": "b"}
    assert read(png()[:20]) == {}


def test_big_and_little_ends_of_exif() -> None:
    for order, mark in (("<", b"II"), (">", b"MM")):
        text = b"prompt:{}\0"
        entry = struct.pack(f"{order}HHII", MODEL, 2, len(text), 26)
        tiff = mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4) + text
        exif = b"Exif\0\0" + tiff
        body = b"WEBPEXIF" + struct.pack("<I", len(exif)) + exif
        assert read(b"RIFF" + struct.pack("<I", len(body)) + body) == {"prompt": "{}"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (png(chunk(b"tEXt", b"prompt\0{}"))[:-15], None),
        (png(chunk(b"tEXt", b"prompt\0{}").replace(b"{}", b"[]")), "checksum"),
        (PNG + struct.pack(">I4s", 900, b"tEXt") + b"prompt\0{}", "ends too early"),
        (png(chunk(b"zTXt", b"prompt\0\0" + b"no zlib")), "cannot be unpacked"),
        (png(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"{}" * 99)[:-8])), "ends too early"),
        (png(chunk(b"iTXt", b"prompt\0\0\0")), "without text"),
        (b"RIFF\0\0\0\0WEBPEXIF\6\0\0\0\0\0\0\0\0\0", "no byte order"),
        (b"RIFF\0\0\0\0WEBPEXIF\x08\0\0\0II*\0\xff\xff\xff\x7f", "points behind its end"),
        (b"RIFF\0\0\0\0WEBPEXIF\x08\0\0\0II*\0", "ends too early"),
    ],
)
def test_damage_is_told(content: bytes, says: str | None) -> None:
    if says is None:
        assert read(content) == {"prompt": "{}"}
        return
    with pytest.raises(FlowError, match=says):
        read(content)


def bomb() -> bytes:
    """A deflate stream of two gigabytes in two megabytes: one flushed block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\x9c" + block * 2_000


def test_bombs_are_refused_before_they_open() -> None:
    packed = bomb()
    assert len(packed) < MAX_TEXT // 2
    tracemalloc.start()
    for content in (
        chunk(b"zTXt", b"prompt\0\0" + packed),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + packed),
    ):
        with pytest.raises(FlowError, match="more than 8 MB"):
            read(png(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * MAX_TEXT
    # Each within its bound, all together not: 6 MB times 10.
    part = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(6 * 2**20)))
    with pytest.raises(FlowError, match="more than 8 MB"):
        read(png(*[part] * 10))
    with pytest.raises(FlowError, match=f"more than {MAX_CHUNKS} parts"):
        read(png(*[chunk(b"tIME", b"")] * (MAX_CHUNKS + 1)))


def test_exif_entries_that_all_point_to_the_same_megabytes() -> None:
    text = b"prompt:" + bytes(4 * 2**20)
    count = 5_000
    start = 10 + 12 * count
    entries = struct.pack("<HHII", MODEL, 2, len(text), start) * count
    tiff = b"II" + struct.pack("<HIH", 42, 8, count) + entries + text
    with pytest.raises(FlowError, match="more than 8 MB"):
        read(b"RIFF\0\0\0\0WEBPEXIF" + struct.pack("<I", len(tiff)) + tiff)


def test_a_picture_gives_its_flow(tmp_path: Path) -> None:
    schema = installed(FILE)
    flows = []
    for place, content in enumerate(
        [
            png(chunk(b"tEXt", b"prompt\0" + API.encode())),
            png(chunk(b"tEXt", b"workflow\0" + UI.encode())),
            webp({MODEL: f"prompt:{API}"}),
            webp({MAKE: f"workflow:{UI}"}),
            # A text that is broken is forgiven if the other is not.
            png(chunk(b"tEXt", b"prompt\0{"), chunk(b"tEXt", b"workflow\0" + UI.encode())),
        ]
    ):
        path = tmp_path / f"{place}.png"  # the content says what it is, whatever the name
        path.write_bytes(content)
        flows.append(import_file(path, schema).require())
    assert len({flow.key for flow in flows}) == 1
    for content, says in (
        (png(), "holds no workflow"),
        (png(chunk(b"tEXt", b"prompt\0{")), "malformed JSON"),
    ):
        (tmp_path / "none.png").write_bytes(content)
        with pytest.raises(FlowError, match=says):
            import_file(tmp_path / "none.png", schema)
