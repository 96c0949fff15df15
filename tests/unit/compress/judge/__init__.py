"""Tests of judging models."""
