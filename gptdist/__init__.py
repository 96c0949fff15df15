"""gptdist: pretrain GPT-style language models on many machines."""
