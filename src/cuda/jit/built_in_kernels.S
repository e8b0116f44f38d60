/* The kernels that strobe_kernels compiled during the build, as one block of read-only memory (built_in.cpp). */
    .section .rodata
    .balign 64
    .global strobe_built_in_kernels
    .hidden strobe_built_in_kernels
    .type strobe_built_in_kernels, @object
strobe_built_in_kernels:
    .incbin STROBE_BUILT_IN_BINARY
    .section .note.GNU-stack, "", @progbits
