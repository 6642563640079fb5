"""How what the mathematics says is computed: devices and CUDA graphs."""
