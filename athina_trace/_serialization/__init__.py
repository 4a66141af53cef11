"""Any object as new, bounded, JSON-safe data, which shares nothing with what the caller may change later.

    plain, text     serialize       the two functions that everything goes through: the walk, within the limits
      ├ read        known_types     an object of any other class as something simpler
      │   ├         scalars             classes that hold one value
      │   └         introspection       what classes and instances store, past their own code
      ├             strings         texts: cut, and cleaned
      ├             secrets         names that look as if they hold a secret, and credentials inside URLs
      └             binary          binary data, and base64 within text
    without_blobs   binary          for what is JSON-safe and bounded already
    storable        strings         for text that goes to a database as it is
    printable       strings         for text that goes to a terminal
    Limits          limits          how much is read

What becomes of what JSON has no word for:
    nan, inf, -inf          "NaN", "Infinity", "-Infinity"
    integers from 2**53 on  strings: beyond it, RFC 8259 says, JSON readers may round
    lone surrogates         U+FFFD, so that the text can be encoded; surrogate pairs become their character
    bytes and base64        "<1234 bytes of image/png>", "<1234 base64 characters of image/png>"
    sets                    sorted lists
    what is not data        "<module.Class>", never a memory address
What is cut says so: "… [200000 of 5000000 characters]", "… 990 more items".
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
