"""Binary data, and base64 within text: replaced by its length and media type."""

import binascii
import re
from typing import Any, Final

_SHORTEST: Final = 1024  # characters; shorter runs of base64 are ids, digests and signatures, worth reading
_WINDOW: Final = 480  # less than half of _SHORTEST, so that every blob covers one window whole
_HEAD: Final = 32  # base64 characters that hold every magic number below; a multiple of four

_DATA_URL = re.compile(r"data:([\w.+-]{1,80}/[\w.+-]{1,80})?(?:;[\w.+=-]{1,80}){0,8};base64,[\w+/=%-]*", re.ASCII)
_ALPHABET = re.compile(r"[\w+/\r\n-]*", re.ASCII)
# The first line of base64 is long; only then may line ends follow. A list of words, one a line, is not base64.
_BARE = re.compile(r"(?<![\w+/-])[\w+/-]{60}[\w+/\r\n-]{964,}={0,2}", re.ASCII)
_MIXED = (re.compile("[A-Z]"), re.compile("[a-z]"), re.compile("[0-9]"))

# Source: the signatures in the WHATWG MIME sniffing standard, and the formats' own specifications.
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}


def describe_bytes(head: bytes, size: int) -> str:
    """Return `<1234 bytes of image/png>`, from the first bytes (16 are enough) and the total size."""
    return f"<{size} bytes{_of(media_type(head))}>"


def media_type(head: bytes) -> str:
    """Return the media type according to the first 16 bytes, or "" if it is unknown."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return "video/mp4"
    return next((media for magic, media in _MAGIC if head.startswith(magic)), "")


def without_blobs(value: Any) -> Any:
    """Replace base64 in the texts of JSON-safe data, at any depth, with its length."""
    kind = type(value)
    if kind is str:
        return value if len(value) < _SHORTEST else without_base64(value)[0]
    if kind is list:
        return [without_blobs(part) for part in value]
    if kind is not dict:
        return value
    return {
        # Most values are short texts, and need no call.
        name: part if type(part) is str and len(part) < _SHORTEST else without_blobs(part)
        for name, part in value.items()
    }


def may_hold_base64(text: str) -> bool:
    """Return whether there may be base64 outside data URLs: almost every window of a long text has a space."""
    for start in range(0, len(text) - _WINDOW, _WINDOW):
        if text.find(" ", start, start + _WINDOW) < 0 and _ALPHABET.fullmatch(text, start, start + _WINDOW):
            return True
    return False


def without_base64(text: str, unseen: int = 0) -> tuple[str, int]:
    """Put `<1234 base64 characters of image/png>` in place of base64 data URLs and of long bare base64.

    `unseen`: the number of characters that were cut off after `text`. If base64 reaches the end of `text`, they are
    counted as part of it, and the second return value is 0 instead of `unseen`.
    """
    patterns = [_DATA_URL] if ";base64," in text else []
    if may_hold_base64(text):
        patterns.append(_BARE)
    for pattern in patterns:
        pieces: list[str] = []
        done = 0
        for match in pattern.finditer(text):
            # Base64 mixes upper case, lower case and digits; hexadecimal digests and "xxxx…" do not.
            if pattern is _BARE and not all(kind.search(match[0], 0, _SHORTEST) for kind in _MIXED):
                continue
            size = match.end() - match.start()
            if match.end() == len(text):
                size, unseen = size + unseen, 0
            if pattern is _DATA_URL:
                media = match[1] or ""
            else:
                media = media_type(binascii.a2b_base64(match[0][:_HEAD].replace("-", "+").replace("_", "/")))
            pieces += text[done : match.start()], f"<{size} base64 characters{_of(media)}>"
            done = match.end()
        text = "".join([*pieces, text[done:]])
    return text, unseen


def _of(media: str) -> str:
    return f" of {media}" if media else ""
