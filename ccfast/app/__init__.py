"""The command line and its parts: image files, words for degradations, the demonstration and the benchmark."""
