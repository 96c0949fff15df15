"""The version; packaging reads it from here, so that no process has to look for what is installed."""

VERSION = "0.1.0"
