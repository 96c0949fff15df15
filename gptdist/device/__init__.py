"""CPU or CUDA: back end, number format, peak speed, and what megatron-core needs to run without CUDA."""
