"""The fields of one log → the bytes that are sent: sample, `before_emit`, masks, redaction, wire.

`Writer` takes a log through these steps; `Runtime` is the writer whose logs are delivered, `Recorder` that of tests.
"""
