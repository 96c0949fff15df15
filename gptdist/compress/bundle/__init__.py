"""A folder that is handed on: everything that a later stage needs beside the weights, and proof that it is whole."""
