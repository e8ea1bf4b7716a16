"""What a run leaves on disk: schema, writer, reader, manifest. Knows nothing of simulators or engines."""
