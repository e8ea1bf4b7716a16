/* Vectors and start-up, the same for ROM and firmware. The processor wants the table on a multiple of 256 bytes; after
 * reset it starts at entry 32 of the ROM's, and the ROM starts the firmware at entry 32 of its own. */
    .section .vectors, "ax"
    .balign 256
    .option norvc
    .globl vectors
vectors:
    j trap_exception
    .rept 6
    j trap_unexpected
    .endr
    j trap_timer
    .rept 24
    j trap_unexpected
    .endr
    j start
    .option rvc

    .section .text.start, "ax"
start:
    .option push
    .option norelax
    la sp, stack_top
    mv s0, a0
    la t0, vectors
    ori t0, t0, 1
    csrw mtvec, t0
    csrw mie, zero
    la t0, data_load
    la t1, data_start
    la t2, data_end
1:  bgeu t1, t2, 2f
    lw t3, 0(t0)
    sw t3, 0(t1)
    addi t0, t0, 4
    addi t1, t1, 4
    j 1b
2:  la t1, bss_start
    la t2, bss_end
3:  bgeu t1, t2, 4f
    sw zero, 0(t1)
    addi t1, t1, 4
    j 3b
4:  mv a0, s0
    call chip_main
5:  j 5b
    .option pop

    .globl jump_to
jump_to: /* a0: argument of the firmware, a1: where it starts */
    jr a1
