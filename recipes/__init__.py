"""The ``distilface`` command: one file a command, each thin: parse, call the library, show the result."""
