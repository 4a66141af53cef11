"""Converts any object to new, bounded, JSON-safe data, which shares nothing that the caller may change later.

    plain, text     serialize       the two entry points: they walk an object, within the limits
      ├ read        known_types     reduces an object of any other class to something simpler
      │   ├         scalars             classes with a single value
      │   └         introspection       reads what classes and instances store, without running their code
      ├             strings         cuts and cleans texts
      ├             secrets         names that look like those of secrets, and credentials within texts
      └             binary          binary data, and base64 within text
    without_blobs   binary          for data that is already JSON-safe and bounded
    storable        strings         for text that goes to a database
    printable       strings         for text that goes to a terminal
    Limits          limits          how much is read

Values that JSON cannot represent:
    nan, inf, -inf          "NaN", "Infinity", "-Infinity"
    integers from 2**53 on  strings: beyond it, RFC 8259 says, JSON readers may round
    lone surrogates         U+FFFD, so that the text can be encoded; surrogate pairs become their character
    bytes and base64        "<1234 bytes of image/png>", "<1234 base64 characters of image/png>"
    sets                    sorted lists
    objects without data    "<module.Class>", never a memory address
Truncated values end in "… [200000 of 5000000 characters]" or "… 990 more items".
"""

from athina_trace._serialization.binary import without_blobs
from athina_trace._serialization.limits import DEFAULT_LIMITS, JSON, Limits
from athina_trace._serialization.secrets import MASKED, looks_secret, without_credentials
from athina_trace._serialization.serialize import plain, text
from athina_trace._serialization.strings import printable, storable

__all__ = [
    "DEFAULT_LIMITS",
    "JSON",
    "MASKED",
    "Limits",
    "looks_secret",
    "plain",
    "printable",
    "storable",
    "text",
    "without_blobs",
    "without_credentials",
]
