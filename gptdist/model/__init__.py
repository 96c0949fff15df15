"""The megatron-core GPT model behind a ModelConfig, its arithmetic, and its names in other formats."""
