"""What a model answered, whatever the source: records of it, and how the records of one log become its fields."""
