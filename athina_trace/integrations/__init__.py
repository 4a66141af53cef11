"""Sources of answers: each module depends on its host package alone."""
