"""English for numbers."""


def counted(number: int, noun: str) -> str:
    """`1 session`, `2 sessions`"""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
