"""The viewer: what an outbox holds, as pages in a browser and as tables in a terminal."""
