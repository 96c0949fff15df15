"""Judge a model: loss, bits per byte, cloze, texts, size, speed, fidelity, of every kind of folder alike."""
