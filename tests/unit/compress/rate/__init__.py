"""Tests of rating by people."""
