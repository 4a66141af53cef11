"""How athina_trace's own costs grow, apart from its peers."""


def growth(url: str, *, quick: bool) -> list[tuple[str, list[list[str]]]]:
    return []
