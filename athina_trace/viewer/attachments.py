"""Images and files of a user's message, as the APIs of OpenAI and Anthropic hold them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from athina_trace.viewer.log_fields import messages_of, text_of

MAX_IMAGE = 3_000_000
"""Characters of a data URL that is shown as an image."""
_IMAGE = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,([A-Za-z0-9+/=\s]+)")
# What the pipeline and other tools put in place of data that they did not keep.
_PLACEHOLDER = re.compile(r"<(\d+) (?:base64 characters|bytes)(?: of ([\w.+/-]+))?>")
_MEDIA_TYPE = re.compile(r"data:([\w.+-]{1,80}/[\w.+-]{1,80})")


class Attachment(NamedTuple):
    """An image or a file of a message.

    Attributes:
        kind: `image` or `file`.
        name: its file name, id or media type.
        url: an address on the web, which a reader may open; empty where there is none.
        data: the data URL of an image that can be shown; empty where there is none.
        note: what is known about data that is not shown.
    """

    kind: str
    name: str
    url: str = ""
    data: str = ""
    note: str = ""


def attachments_of(fields: dict[str, Any]) -> list[Attachment]:
    """Return what came with the question: with the last message of the user in the prompt."""
    asked = [message for message in messages_of(fields.get("prompt")) if message.get("role") == "user"]
    content = asked[-1].get("content") if asked else None
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return list(_attachments(parts))


def _attachments(parts: list[dict[str, Any]]) -> Iterator[Attachment]:
    for part in parts:
        kind = text_of(part.get("type"))
        inner = next((part[name] for name in (kind, "source", "file") if isinstance(part.get(name), dict)), part)
        name = text_of(inner.get("filename") or part.get("title") or inner.get("file_id"))
        if "image" in kind:
            value = part.get("image_url")
            url = text_of(value.get("url") if isinstance(value, dict) else value or inner.get("url"))
            if not url and isinstance(inner.get("data"), str):
                url = f"data:{text_of(inner.get('media_type'))};base64,{inner['data']}"
            yield _attachment("image", name, url)
        elif "file" in kind or "document" in kind or "audio" in kind:
            yield _attachment(
                "file", name, text_of(inner.get("url") or inner.get("file_url") or inner.get("file_data"))
            )


def _attachment(kind: str, name: str, url: str) -> Attachment:
    if url.startswith(("https://", "http://")):
        return Attachment(kind, name or url, url=url)
    if placeholder := _PLACEHOLDER.search(url):
        media = placeholder[2] or kind
        return Attachment(kind, name or media, note=f"{media}, {int(placeholder[1]):,} characters, not kept")
    media_type = _MEDIA_TYPE.match(url)
    media = media_type[1] if media_type else kind
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
