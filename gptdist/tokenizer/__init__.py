"""One small interface over byte, byte-level BPE and sentencepiece tokenizers."""
