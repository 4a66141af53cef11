"""Models' answers, from any source: records of them, and how the records of one log become its fields."""
