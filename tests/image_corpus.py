"""Image files written by program, sound and damaged, with what is to be read from them."""

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


def encode(pixels, file_format="PNG", mode=None, **options):
    """Pixels, or a Pillow image -> a file's bytes."""
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
    source = PIL.Image.fromarray(upright)
    source.getexif()[0x0112] = {6: 8, 8: 6}.get(orientation, orientation)
    return np.asarray(PIL.ImageOps.exif_transpose(source))


def as_rgb(gray):
    return np.stack([gray] * 3, axis=-1)


# No two corners alike, and smooth, so that JPEG keeps it.
RED, GREEN = np.broadcast_arrays(np.linspace(0, 255, 40)[:, None], np.linspace(0, 255, 60))
SMOOTH = np.stack([RED, GREEN, 255 - (RED + GREEN) / 2], axis=-1).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
CMYK = np.asarray(PIL.Image.fromarray(SMOOTH).convert("CMYK").convert("RGB"))
LOSSY = 4  # of 255, mean difference after quality 90

FORMATS = {
    "PNG": ({}, 0),
    "BMP": ({}, 0),
    "TIFF": ({}, 0),
    "WEBP": ({"lossless": True}, 0),
    "GIF": ({}, 12),  # 256 colors
    "JPEG": ({"quality": 95}, LOSSY),
}
if PIL.features.check("avif"):
    FORMATS["AVIF"] = ({"quality": 95}, LOSSY)


def good_files():
    """dict[str, GoodFile]: what a person's viewer shows as an image."""
    return {**_formats(), **_orientations(), **_jpegs(), **_modes()}


def _formats():
    files = {}
    for name, (options, tolerance) in FORMATS.items():
        if name != "JPEG":
            data = encode(SMOOTH, name, **options)
            files[f"{name} called .jpg"] = GoodFile(data, SMOOTH, tolerance)
    first = PIL.Image.fromarray(SMOOTH)
    film = {"save_all": True, "append_images": [PIL.Image.fromarray(255 - SMOOTH)]}
    red, blue = (PIL.Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    animation = encode(red, "GIF", save_all=True, append_images=[blue])
    png, in_header = encode(SMOOTH), 33  # the signature and the header's chunk
    exif_of_rubbish = png[:in_header] + png_chunk(b"eXIf", b"rubbish") + png[in_header:]
    return files | {
        "TIFF, LZW": GoodFile(encode(NOISE, "TIFF", compression="tiff_lzw"), NOISE),
        "WebP, lossy": GoodFile(encode(SMOOTH, "WEBP", quality=95), SMOOTH, LOSSY),
        "WebP, animated": GoodFile(encode(first, "WEBP", lossless=True, **film), SMOOTH),
        "GIF, animated": GoodFile(animation, np.asarray(red)),
        "PNG, animated": GoodFile(encode(first, "PNG", **film), SMOOTH),
        "TIFF of two pages": GoodFile(encode(first, "TIFF", **film), SMOOTH),
        "GIF, bytes after its end": GoodFile(animation + b"\0;" * 50, np.asarray(red)),
        "PNG, bytes after its end": GoodFile(png + b"\0" * 300, SMOOTH),
        "PNG, EXIF of rubbish": GoodFile(exif_of_rubbish, SMOOTH),
    }


def _orientations():
    files = {}
    for orientation in range(1, 9):
        stored = stored_turned(SMOOTH, orientation)
        for name, (options, tolerance) in FORMATS.items():
            if name not in ("GIF", "BMP"):  # they have no EXIF
                data = encode(stored, name, exif=exif_of(orientation), **options)
                files[f"{name}, EXIF orientation {orientation}"] = GoodFile(data, SMOOTH, tolerance)
    return files


def _jpegs():
    jpeg = encode(SMOOTH, "JPEG", quality=95)
    # The header that JFIF puts behind the first two bytes is 18 bytes long.
    assert jpeg[2:4] == b"\xff\xe0" and jpeg[6:10] == b"JFIF" and jpeg[20] == 0xFF
    two = {"save_all": True, "append_images": [PIL.Image.fromarray(255 - SMOOTH)]}
    rubbish = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"?" * 40
    variants = {
        "JPEG": jpeg,
        "JPEG, progressive": encode(SMOOTH, "JPEG", quality=95, progressive=True),
        "JPEG, color at half resolution": encode(SMOOTH, "JPEG", quality=95, subsampling=2),
        "JPEG, restart markers": encode(SMOOTH, "JPEG", quality=95, restart_marker_rows=1),
        "JPEG without a JFIF header": jpeg[:2] + jpeg[20:],
        "JPEG, bytes after its end": jpeg + b"\0" * 512 + b"camera's own data",
        "JPEG, a second JPEG after its end": jpeg + encode(255 - SMOOTH, "JPEG"),
        "JPEG, extraneous bytes before its end": jpeg[:-2] + b"\x12\x34" * 120 + jpeg[-2:],
        "JPEG, unknown JFIF revision": jpeg[:11] + b"\0\0" + jpeg[13:],
        "JPEG, EXIF of rubbish": segment(jpeg, 0xE1, rubbish),
        "JPEG, EXIF cut off": segment(jpeg, 0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0"),
        "JPEG, orientation 99": encode(SMOOTH, "JPEG", quality=95, exif=exif_of(99)),
        "JPEG, color profile of rubbish": segment(jpeg, 0xE2, b"ICC_PROFILE\0\x01\x01rubbish"),
        "JPEG of two images (MPO)": encode(SMOOTH, "MPO", quality=95, **two),
    }
    for orientation, said in ((3, b'tiff:Orientation="3"'), (6, b"<tiff:Orientation>6<")):
        stored = encode(stored_turned(SMOOTH, orientation), "JPEG", quality=95)
        xmp = b"http://ns.adobe.com/xap/1.0/\0<x " + said + b"/>"
        variants[f"JPEG, XMP orientation {orientation}"] = segment(stored, 0xE1, xmp)
    files = {name: GoodFile(data, SMOOTH, LOSSY) for name, data in variants.items()}
    gray = np.asarray(PIL.Image.fromarray(SMOOTH).convert("L"))
    pixel = np.full((1, 1, 3), 90, np.uint8)
    return files | {
        "JPEG, CMYK": GoodFile(encode(SMOOTH, "JPEG", "CMYK", quality=95), CMYK, LOSSY),
        "JPEG, gray": GoodFile(encode(gray, "JPEG", quality=95), as_rgb(gray), LOSSY),
        "JPEG of one pixel": GoodFile(encode(pixel, "JPEG"), pixel, LOSSY),
    }


def segment(jpeg, marker, content):
    """A JPEG with one more segment behind its first two bytes."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[2:]


def _modes():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    deep = ramp.astype(np.uint16) * 257  # 16 bits
    dark = np.full((4, 4), 200, np.uint16)  # of 65535: black
    bits = np.random.default_rng(1).integers(0, 2, (9, 13)).astype(bool)
    white_bits = as_rgb(bits * np.uint8(255))
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    colors = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230]], np.uint8)
    palette = PIL.Image.fromarray(indices).convert("P")
    palette.putpalette(colors.ravel())
    on_white = np.where(indices[..., None] == 0, 255, colors[indices]).astype(np.uint8)
    clear = np.array([[(200, 100, 0, alpha) for alpha in (0, 51, 255)]], np.uint8)
    # 255 - alpha * (255 - color)
    clear_on_white = np.array([[(255, 255, 255), (244, 224, 204), (200, 100, 0)]], np.uint8)
    clear_webp = encode(clear, "WEBP", lossless=True, exact=True)
    gray_clear = PIL.Image.merge("LA", [PIL.Image.new("L", (3, 2), 60), PIL.Image.new("L", (3, 2))])
    return {
        "PNG, gray": GoodFile(encode(ramp), as_rgb(ramp)),
        "BMP, gray": GoodFile(encode(ramp, "BMP"), as_rgb(ramp)),
        "PNG, gray of 16 bits": GoodFile(encode(deep), as_rgb(ramp)),
        "TIFF, gray of 16 bits": GoodFile(encode(deep, "TIFF"), as_rgb(ramp)),
        "PNG, gray of 16 bits, all dark": GoodFile(encode(dark), np.zeros((4, 4, 3), np.uint8)),
        "PNG, color of 16 bits": GoodFile(png_16_bit(SMOOTH), SMOOTH),
        "PNG, black and white": GoodFile(encode(bits), white_bits),
        "TIFF, fax": GoodFile(encode(bits, "TIFF", compression="group4"), white_bits),
        "PNG, palette": GoodFile(encode(palette), colors[indices]),
        "PNG, transparent entry": GoodFile(encode(palette, transparency=0), on_white),
        "GIF, transparent entry": GoodFile(encode(palette, "GIF", transparency=0), on_white),
        "PNG, alpha": GoodFile(encode(clear), clear_on_white, 1),
        "WebP, alpha": GoodFile(clear_webp, clear_on_white, 1),
        "PNG, gray with alpha": GoodFile(encode(gray_clear), np.full((2, 3, 3), 255, np.uint8)),
        "TIFF, CMYK": GoodFile(encode(SMOOTH, "TIFF", "CMYK"), CMYK),
        "PNG of one row": GoodFile(encode(NOISE[:1]), NOISE[:1]),
    }


def png_chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_header(width, height, bits=8):
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


def png_16_bit(pixels):
    """Written by hand: Pillow has no color of 16 bits."""
    height, width = pixels.shape[:2]
    rows = (pixels.astype(np.uint16) * 257).astype(">u2").reshape(height, -1)
    scanlines = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return png_header(width, height, 16) + png_chunk(b"IDAT", scanlines) + png_chunk(b"IEND", b"")


def promising(width, height):
    """dict[str, bytes]: small files whose headers promise many pixels."""
    png, jpeg, bmp, gif = (encode(SMOOTH, name) for name in ("PNG", "JPEG", "BMP", "GIF"))
    start = jpeg.index(b"\xff\xc0") + 5  # of the height in the frame's header
    return {
        "PNG": png_header(width, height) + png[33:],
        "JPEG": jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :],
        "BMP": bmp[:18] + struct.pack("<ii", width, height) + bmp[26:],
        "GIF": gif[:6] + struct.pack("<HH", width, height) + gif[10:],
    }


def bad_files():
    """dict[str, (bytes, words of the reason)]: what is no whole image."""
    jpeg, webp = encode(NOISE, "JPEG"), encode(NOISE, "WEBP")
    progressive = encode(NOISE, "JPEG", progressive=True)
    unknown = {
        "text": b"this is no image",
        "HTML": b"<!DOCTYPE html><html><body>404: no such cat</body></html>",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "database": b"SQLite format 3\0" + bytes(4080),
        "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4088),
        "zip": b"PK\x03\x04" + bytes(200),
        "zeros": bytes(5000),
        "WebP, a flipped size": flip(webp, 13),
    }
    floats = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    files = {name: (data, "not an image in a known format") for name, data in unknown.items()} | {
        "zero bytes": (b"", "the file is empty"),
        "JPEG header alone": (jpeg[:200], "Truncated"),
        "JPEG, its second half zeros": (jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2), "damaged"),
        "JPEG, progressive, half": (progressive[: len(progressive) // 2], "damaged"),
        "JPEG, no scan": (jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9", "damaged"),
        "TIFF of floating point": (encode(floats, "TIFF"), "no fixed range"),
        "TIFF of 32 bits": (encode((floats * 99).astype(np.int32), "TIFF"), "no fixed range"),
        "PNG, a flipped byte": (flip(encode(NOISE), 6000), "damaged"),
    }
    for name, (options, _) in FORMATS.items():
        data = encode(NOISE, name, **options)
        for length in (len(data) // 4, len(data) // 2, len(data) - 2):
            reason = "damaged|[Tt]runcated|could not create decoder|known format"
            files[f"{name}, {length} bytes of {len(data)}"] = data[:length], reason
    for name, data in promising(20_000, 20_000).items():
        files[f"{name} of 20,000 x 20,000 pixels"] = data, "exceeds limit of 178956970 pixels"
    return files


def flip(data, position):
    return data[:position] + bytes([data[position] ^ 255]) + data[position + 1 :]
