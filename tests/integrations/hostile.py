"""Hostile values that a framework may pass, and that must do no harm."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


class Hostile:
    """An object on which every operation raises."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


def cyclic() -> dict[str, Any]:
    made: dict[str, Any] = {"role": "user"}
    made["content"] = made
    return made


def huge() -> list[Any]:
    # Just more than a text and a log may have, since each may be read or shown hundreds of times.
    return [{"role": "user", "content": "x" * 300_000}] * 10


values: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=5),
    st.builds(Hostile),
    st.builds(cyclic),
    st.builds(huge),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["thread_id", "generations", "model", "id", "metadata"]), st.builds(Hostile)),
)
