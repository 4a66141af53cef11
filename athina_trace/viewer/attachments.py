"""Images and files in a user's message, in the formats of OpenAI's and Anthropic's APIs."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, NamedTuple

from athina_trace.viewer.formatting import byte_size
from athina_trace.viewer.log_fields import objects_in, text_of

MAX_IMAGE = 3_000_000
"""Maximum length of a data URL that is shown as an image."""
_IMAGE = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,([A-Za-z0-9+/=\s]+)")
# Placeholders of the pipeline and other tools for data that they did not keep.
_PLACEHOLDER = re.compile(r"<(\d{1,15}) (base64 characters|bytes)(?: of ([\w.+/-]{1,160}))?>")
_MEDIA_TYPES = ("media_type", "mime_type", "mimeType", "mediaType", "format")
"""Names under which the APIs give a media type."""
_MEDIA_TYPE = re.compile(r"data:([\w.+-]{1,80}/[\w.+-]{1,80})")


class Attachment(NamedTuple):
    """An image or a file of a message.

    Attributes:
        kind: `image` or `file`.
        name: its file name, id or media type.
        url: an address on the web, which a reader may open; empty if there is none.
        data: the data URL of an image that can be shown; empty if there is none.
        note: a description of data that is not shown.
        was_replaced: whether its data was removed when the call was logged.
    """

    kind: str
    name: str
    url: str = ""
    data: str = ""
    note: str = ""
    was_replaced: bool = False


def attachments_of(fields: dict[str, Any]) -> list[Attachment]:
    """Return the attachments of the question: of the last user message in the prompt."""
    asked = [message for message in objects_in(fields.get("prompt")) if message.get("role") == "user"]
    return attachments_in(asked[-1].get("content")) if asked else []


def attachments_in(content: Any) -> list[Attachment]:
    """Return the images and files among the parts of a message."""
    found: list[Attachment] = []
    for part in objects_in(content):
        kind = text_of(part.get("type"))
        inner = next((part[name] for name in (kind, "source", "file") if isinstance(part.get(name), dict)), part)
        name = text_of(inner.get("filename") or part.get("title") or inner.get("file_id"))
        is_image = "image" in kind
        if not is_image and not any(word in kind for word in ("file", "document", "audio", "video")):
            continue
        url = inner.get("url") or inner.get("file_url") or inner.get("file_data")
        if is_image:
            value = part.get("image_url")
            url = (value.get("url") if isinstance(value, dict) else value) or url
        if not url and isinstance(inner.get("data"), str):
            media_type = text_of(next((inner[each] for each in _MEDIA_TYPES if inner.get(each)), ""))
            # OpenAI's audio has only a format.
            media_type = f"audio/{media_type}" if "audio" in kind and "/" not in media_type else media_type
            url = f"data:{media_type};base64,{inner['data']}"
        found.append(_attachment("image" if is_image else "file", name, text_of(url)))
    return found


def _attachment(kind: str, name: str, url: str) -> Attachment:
    if url.startswith(("https://", "http://")):
        return Attachment(kind, name or url, url=url)
    placeholder = _PLACEHOLDER.search(url)
    media_type = _MEDIA_TYPE.match(url)
    media = (placeholder and placeholder[3]) or (media_type[1] if media_type else kind)
    if placeholder:
        # Four base64 characters are three bytes.
        size = int(placeholder[1]) * (1 if placeholder[2] == "bytes" else 0.75)
        note = f"{media + ', ' if name else ''}{byte_size(size)}, not kept"
        return Attachment(kind, name or media, note=note, was_replaced=True)
    if kind == "image" and len(url) <= MAX_IMAGE and _IMAGE.fullmatch(url):
        return Attachment(kind, name or media, data=url)
    return Attachment(kind, name or media, note=f"{media}, {len(url):,} characters" if url else "")


def decoded(attachment: Attachment) -> tuple[str, bytes] | None:
    """Return the media type and the bytes of an image that can be shown; None for anything else."""
    found = _IMAGE.fullmatch(attachment.data)
    if found is None:
        return None
    try:
        return found[1], base64.b64decode(found[2])
    except (ValueError, binascii.Error):
        return None
