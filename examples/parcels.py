"""The parcel company of the examples: its instructions, its documents and its only tool."""

import json
from typing import Any

INSTRUCTIONS = (
    "You are the support assistant of a parcel company. Answer in one or two friendly sentences, "
    "from the document below and from what your tools return."
)
RETURNS = (
    "Returns: a parcel can be sent back free of charge within 30 days of delivery, in its own box. "
    "Print the label in the app or ask for one at any counter. The refund arrives within five working days."
)
DELIVERY = (
    "Delivery: drivers come between 8:00 and 18:00. Until noon the app can change the place of delivery "
    "to a neighbour, a garage or a counter."
)
TRACK_PARCEL: Any = {
    "name": "track_parcel",
    "description": "Where a parcel is now and when it will arrive.",
    "parameters": {
        "type": "object",
        "properties": {"parcel_id": {"type": "string", "description": "The number on the label, e.g. PX-48213"}},
        "required": ["parcel_id"],
        "additionalProperties": False,
    },
    "strict": True,
}


def find_document(question: str) -> str:
    """Retrieve the document that helps to answer a question; a real desk would ask its search engine."""
    on_returns = any(word in question.lower() for word in ("return", "refund", "send it back"))
    return RETURNS if on_returns else DELIVERY


def track_parcel(parcel_id: str) -> dict[str, str]:
    """Look up a parcel; a real desk would ask its database."""
    return {
        "parcel_id": parcel_id,
        "status": "on its way",
        "place": "the Leipzig hub",
        "expected": "tomorrow by 14:00",
    }


def use_tool(name: str, arguments: str) -> str:
    """Run a tool with the model's arguments, as JSON text; return the result as JSON text."""
    return json.dumps({"track_parcel": track_parcel}[name](**json.loads(arguments)))
