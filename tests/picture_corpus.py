"""Picture files written by program, sound and damaged, with what is to be read from them."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps


@dataclass(frozen=True)
class GoodFile:
    """A file's bytes, its upright pixels, and by how much their mean may differ (0: not at all)."""

    data: bytes
    pixels: np.ndarray
    tolerance: float = 0


def smooth_picture(height=40, width=60):
    """No two corners alike, and smooth, so that JPEG keeps it."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * rows / (height - 1), 255 * columns / (width - 1)
    return np.stack([red, green, 255 - (red + green) / 2], axis=-1).astype(np.uint8)


def encode(pixels, file_format="PNG", mode=None, **options):
    """Pixels, or a Pillow picture -> a file's bytes."""
    if not isinstance(pixels, PIL.Image.Image):
        pixels = PIL.Image.fromarray(np.asarray(pixels))
    file = io.BytesIO()
    (pixels.convert(mode) if mode else pixels).save(file, file_format, **options)
    return file.getvalue()


def exif_of(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def stored_turned(upright, orientation):
    """The pixels that a camera stores which writes `orientation` beside them."""
    # Pillow turns "stored as `orientation`" upright; the inverse of that stores it so.
    undone_by = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    source = PIL.Image.fromarray(upright)
    source.getexif()[0x0112] = undone_by
    return np.asarray(PIL.ImageOps.exif_transpose(source))


SMOOTH = smooth_picture()
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
LOSSY = 4  # of 255, mean difference after quality 90

FORMATS = {
    "PNG": ({}, 0),
    "BMP": ({}, 0),
    "TIFF": ({}, 0),
    "WEBP": ({"lossless": True}, 0),
    "GIF": ({}, 12),  # 256 colours
    "JPEG": ({"quality": 95}, LOSSY),
}
if PIL.features.check("avif"):
    FORMATS["AVIF"] = ({"quality": 95}, LOSSY)


def good_files():
    """dict[str, GoodFile]: what a person's viewer shows as a picture."""
    return {**_formats(), **_orientations(), **_jpegs(), **_modes(), **_odd_pngs()}


def _formats():
    files = {
        f"{name} called .jpg": GoodFile(encode(SMOOTH, name, **options), SMOOTH, tolerance)
        for name, (options, tolerance) in FORMATS.items()
        if name != "JPEG"
    }
    lzw = encode(NOISE, "TIFF", compression="tiff_lzw")
    first, second = PIL.Image.fromarray(SMOOTH), PIL.Image.fromarray(255 - SMOOTH)
    red, blue = (PIL.Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    film = {"save_all": True, "append_images": [second]}
    only_red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    animation = encode(red, "GIF", save_all=True, append_images=[blue])
    return files | {
        "TIFF, LZW": GoodFile(lzw, NOISE),
        "WebP, lossy": GoodFile(encode(SMOOTH, "WEBP", quality=95), SMOOTH, LOSSY),
        "WebP, animated": GoodFile(encode(first, "WEBP", lossless=True, **film), SMOOTH),
        "GIF, animated": GoodFile(animation, only_red),
        "PNG, animated": GoodFile(encode(first, "PNG", **film), SMOOTH),
        "GIF, bytes after its end": GoodFile(animation + b"\0;" * 50, only_red),
        "TIFF of two pages": GoodFile(encode(first, "TIFF", **film), SMOOTH),
    }


def _orientations():
    files = {}
    for orientation in range(1, 9):
        for name, (options, tolerance) in FORMATS.items():
            if name in ("GIF", "BMP"):  # they have no EXIF
                continue
            stored = stored_turned(SMOOTH, orientation)
            data = encode(stored, name, exif=exif_of(orientation), **options)
            files[f"{name}, EXIF orientation {orientation}"] = GoodFile(data, SMOOTH, tolerance)
    return files


def _jpegs():
    jpeg = encode(SMOOTH, "JPEG", quality=95)
    pixel = np.full((1, 1, 3), 90, np.uint8)
    grey = np.asarray(PIL.Image.fromarray(SMOOTH).convert("L"))
    cmyk = np.asarray(PIL.Image.fromarray(SMOOTH).convert("CMYK").convert("RGB"))
    # The header that JFIF puts behind the first two bytes is 18 bytes long.
    assert jpeg[2:4] == b"\xff\xe0" and jpeg[6:10] == b"JFIF" and jpeg[20] == 0xFF
    variants = {
        "JPEG": jpeg,
        "JPEG, progressive": encode(SMOOTH, "JPEG", quality=95, progressive=True),
        "JPEG, colour at half resolution": encode(SMOOTH, "JPEG", quality=95, subsampling=2),
        "JPEG, restart markers": encode(SMOOTH, "JPEG", quality=95, restart_marker_rows=1),
        "JPEG without a JFIF header": jpeg[:2] + jpeg[20:],
        "JPEG, bytes after its end": jpeg + b"\0" * 512 + b"camera's own data",
        "JPEG, a second JPEG after its end": jpeg + encode(255 - SMOOTH, "JPEG"),
        "JPEG, extraneous bytes before its end": jpeg[:-2] + b"\x12\x34" * 120 + jpeg[-2:],
        "JPEG, unknown JFIF revision": jpeg[:11] + b"\0\0" + jpeg[13:],
        "JPEG, EXIF of rubbish": segment(
            jpeg, 0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"?" * 40
        ),
        "JPEG, EXIF cut off": segment(jpeg, 0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0"),
        "JPEG, orientation 99": encode(SMOOTH, "JPEG", quality=95, exif=exif_of(99)),
        "JPEG, colour profile of rubbish": segment(jpeg, 0xE2, b"ICC_PROFILE\0\x01\x01rubbish"),
        "JPEG of two pictures (MPO)": encode(
            PIL.Image.fromarray(SMOOTH), "MPO", quality=95, save_all=True,
            append_images=[PIL.Image.fromarray(255 - SMOOTH)],
        ),
    }  # fmt: skip
    files = {name: GoodFile(data, SMOOTH, LOSSY) for name, data in variants.items()}
    for orientation, said in ((3, 'tiff:Orientation="3"'), (6, "<tiff:Orientation>6<")):
        stored = encode(stored_turned(SMOOTH, orientation), "JPEG", quality=95)
        turned = segment(stored, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x " + said.encode() + b"/>")
        files[f"JPEG, XMP orientation {orientation}"] = GoodFile(turned, SMOOTH, LOSSY)
    return files | {
        "JPEG, CMYK": GoodFile(encode(SMOOTH, "JPEG", "CMYK", quality=95), cmyk, LOSSY),
        "JPEG, grey": GoodFile(encode(grey, "JPEG", quality=95), as_rgb(grey), LOSSY),
        "JPEG of one pixel": GoodFile(encode(pixel, "JPEG"), pixel, LOSSY),
    }


def as_rgb(grey):
    return np.stack([grey] * 3, axis=-1)


def segment(jpeg, marker, content):
    """A JPEG with one more segment behind its first two bytes."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[2:]


def _modes():
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    dark = np.full((4, 4), 200, np.uint16)  # of 65535: black
    grey8 = as_rgb(ramp.astype(np.uint8))
    bits = np.random.default_rng(1).integers(0, 2, (9, 13)).astype(bool)
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    colors = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230]], np.uint8)
    palette = PIL.Image.fromarray(indices).convert("P")
    palette.putpalette(colors.ravel())
    on_white = np.where(indices[..., None] == 0, 255, colors[indices]).astype(np.uint8)
    clear = np.array([[(200, 100, 0, alpha) for alpha in (0, 51, 255)]], np.uint8)
    # 255 - alpha * (255 - color)
    clear_on_white = np.array([[(255, 255, 255), (244, 224, 204), (200, 100, 0)]], np.uint8)
    grey_clear = PIL.Image.merge("LA", [PIL.Image.new("L", (3, 2), 60), PIL.Image.new("L", (3, 2))])
    white = np.full((2, 3, 3), 255, np.uint8)
    return {
        "PNG, grey": GoodFile(encode(ramp.astype(np.uint8)), grey8),
        "PNG, grey of 16 bit": GoodFile(encode(ramp * 257), grey8),
        "PNG, grey of 16 bit, all dark": GoodFile(encode(dark), np.zeros((4, 4, 3), np.uint8)),
        "TIFF, grey of 16 bit": GoodFile(encode(ramp * 257, "TIFF"), grey8),
        "PNG, colour of 16 bit": GoodFile(png_16_bit(SMOOTH), SMOOTH),
        "PNG, black and white": GoodFile(encode(bits), as_rgb(bits * np.uint8(255))),
        "TIFF, black and white": GoodFile(
            encode(bits, "TIFF", compression="group4"), as_rgb(bits * np.uint8(255))
        ),
        "PNG, palette": GoodFile(encode(palette), colors[indices]),
        "PNG, transparent palette entry": GoodFile(encode(palette, transparency=0), on_white),
        "GIF, transparent palette entry": GoodFile(
            encode(palette, "GIF", transparency=0), on_white
        ),
        "PNG, alpha": GoodFile(encode(clear), clear_on_white, 1),
        "WebP, alpha": GoodFile(
            encode(clear, "WEBP", lossless=True, exact=True), clear_on_white, 1
        ),
        "PNG, grey with alpha": GoodFile(encode(grey_clear), white),
        "TIFF, CMYK": GoodFile(
            encode(SMOOTH, "TIFF", "CMYK"),
            np.asarray(PIL.Image.fromarray(SMOOTH).convert("CMYK").convert("RGB")),
        ),
        "BMP, grey": GoodFile(encode(ramp.astype(np.uint8), "BMP"), grey8),
        "PNG of one row": GoodFile(encode(NOISE[:1]), NOISE[:1]),
    }


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(
        ">I", zlib.crc32(kind + content)
    )  # fmt: skip


def png_16_bit(pixels):
    """Written by hand: Pillow has no colour of 16 bit."""
    height, width = pixels.shape[:2]
    rows = (pixels.astype(np.uint16) * 257).astype(">u2").reshape(height, -1)
    scanlines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(scanlines))
        + png_chunk(b"IEND", b"")
    )


def _odd_pngs():
    png = encode(SMOOTH)
    in_header = 33  # the signature and the header's chunk
    return {
        "PNG, EXIF of rubbish": GoodFile(
            png[:in_header] + png_chunk(b"eXIf", b"rubbish") + png[in_header:], SMOOTH
        ),
        "PNG, bytes after its end": GoodFile(png + b"\0" * 300, SMOOTH),
    }


def promising(width, height):
    """dict[str, bytes]: small files whose headers promise many pixels."""
    png, jpeg, bmp, gif = (encode(SMOOTH, name) for name in ("PNG", "JPEG", "BMP", "GIF"))
    start = jpeg.index(b"\xff\xc0") + 5  # of the height in the frame's header
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    blank = zlib.compress(b"\0" * 40_000_000, 9)  # 39 KB, a thirtieth of what is promised
    return {
        "PNG": png[:8] + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", blank) + png[-12:],
        "JPEG": jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :],
        "BMP": bmp[:18] + struct.pack("<ii", width, height) + bmp[26:],
        "GIF": gif[:6] + struct.pack("<HH", width, height) + gif[10:],
    }


def bad_files():
    """dict[str, (bytes, words of the reason)]: what is no whole picture."""
    jpeg = encode(NOISE, "JPEG")
    progressive = encode(NOISE, "JPEG", progressive=True)
    page = b"<!DOCTYPE html><html><body>404: no such cat</body></html>"
    files = {
        "zero bytes": (b"", "the file is empty"),
        "text": (b"this is no picture", "not a picture in a known format"),
        "HTML": (page, "not a picture in a known format"),
        "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture in a known format"),
        "database": (b"SQLite format 3\0" + bytes(4080), "not a picture in a known format"),
        "Thumbs.db": (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4088),
            "not a picture in a known format|damaged",
        ),
        "zip": (b"PK\x03\x04" + bytes(200), "not a picture in a known format"),
        "zeros": (bytes(5000), "not a picture in a known format"),
        "JPEG header alone": (jpeg[:200], "damaged|known format"),
        "JPEG, its second half zeros": (jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2), "damaged"),
        "JPEG, progressive, half": (progressive[: len(progressive) // 2], "damaged JPEG"),
        "JPEG, no scan": (jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9", "damaged|known format"),
        "TIFF of floating point": (
            encode(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8), "TIFF"), "no fixed range"
        ),
        "TIFF of 32 bit": (
            encode(np.arange(64, dtype=np.int32).reshape(8, 8), "TIFF"), "no fixed range"
        ),
        "PNG, a flipped byte": (flip(encode(NOISE), 6000), "damaged|broken"),
        "WebP, a flipped size": (flip(encode(NOISE, "WEBP"), 13), "damaged|known format"),
    }  # fmt: skip
    for name, (options, _) in FORMATS.items():
        data = encode(NOISE, name, **options)
        for part, length in (
            ("a quarter", len(data) // 4),
            ("a half", len(data) // 2),
            ("all but two bytes", len(data) - 2),
        ):
            files[f"{name}, {part} of it"] = (data[:length], "damaged|truncated|known format")
    for name, data in promising(20_000, 20_000).items():
        assert len(data) < 48_000
        files[f"{name} of 20,000 x 20,000 pixels"] = (
            data,
            "its header promises more than 100,000,000 pixels",
        )
    return files


def flip(data, position):
    return data[:position] + bytes([data[position] ^ 255]) + data[position + 1 :]
