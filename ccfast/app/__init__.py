"""The command line and what it is made of: image files, words for degradations, the demonstration, the benchmark."""
