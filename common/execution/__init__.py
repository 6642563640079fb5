"""How things are computed: what is decoded when, in which amount of memory, on which device."""
