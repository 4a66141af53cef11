"""The fields of one log → the bytes that are sent: sample, `before_emit`, masks, redaction, wire."""
