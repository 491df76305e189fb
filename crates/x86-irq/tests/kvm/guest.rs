//! The guest: real mode, x2APIC, a single handler for all vectors.
//!
//! Layout of its memory, which all CPUs share unless stated otherwise:
//!
//! | from | what |
//! |---|---|
//! | 0x0000 | interrupt vector table: 256 × (IP, CS) |
//! | 0x1000 | [`CODE`] |
//! | 0x7000 | stacks, growing down, 0x100 bytes per CPU |
//! | 0x8000 | counters, 256 × 4 bytes per CPU: its data segment |

/// Entry point of the guest.
pub(crate) const ENTRY: u64 = 0x1000;
/// Size of the memory in bytes.
pub(crate) const MEMORY: usize = 0x10000;
/// Vector that ends a CPU's loop.
pub(crate) const STOP: u8 = 0xfe;
/// Port that the guest writes when the local APIC is enabled.
pub(crate) const PORT_READY: u16 = 0xf4;
/// Port that the guest writes when [`STOP`] has arrived.
pub(crate) const PORT_STOPPED: u16 = 0xf5;

/// The code, assembled by hand.
pub(crate) const CODE: &[u8] = &[
    // entry:                                        ; 0x1000
    0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, //  mov ecx, 0x1b       ; IA32_APIC_BASE
    0x0f, 0x32, //                          rdmsr
    0x0d, 0x00, 0x0c, //                    or ax, 0x0c00       ; on, in x2APIC mode
    0x0f, 0x30, //                          wrmsr
    0x66, 0xb9, 0x0f, 0x08, 0x00,
    0x00, //  mov ecx, 0x80f      ; spurious interrupt vector register
    0x66, 0x31, 0xd2, //                    xor edx, edx
    0x66, 0xb8, 0xff, 0x01, 0x00,
    0x00, //  mov eax, 0x1ff      ; software enabled, spurious vector 0xff
    0x0f, 0x30, //                          wrmsr
    0xe6, 0xf4, //                          out 0xf4, al        ; ready
    0xfb, //                                sti
    // idle:                                         ; 0x1021
    0xf4, //                                hlt
    0xeb, 0xfd, //                          jmp idle
    // handler: ; 0x1024, for each vector with another code segment
    0x8c,
    0xcb, //                          mov bx, cs          ; the vector; no register is in use
    0xc1, 0xe3, 0x02, //                    shl bx, 2
    0x66, 0xff, 0x07, //                    inc dword [bx]
    0x66, 0xb9, 0x0b, 0x08, 0x00, 0x00, //  mov ecx, 0x80b      ; end of interrupt
    0x66, 0x31, 0xc0, //                    xor eax, eax
    0x66, 0x31, 0xd2, //                    xor edx, edx
    0x0f, 0x30, //                          wrmsr
    0xcf, //                                iret
    // stop:                                         ; 0x103b
    0xe6, 0xf5, //                          out 0xf5, al        ; stopped
    0xeb, 0xfc, //                          jmp stop
];

const HANDLER: u16 = 0x1024;
const STOPPED: u16 = 0x103b;
/// Returns the interrupt vector table.
pub(crate) fn vector_table() -> Vec<u8> {
    let entry = |vector: u8| match vector {
        STOP => [STOPPED, 0],
        // All vectors have the same handler, each through a code segment that encodes the vector.
        _ => [HANDLER - (u16::from(vector) << 4), vector.into()],
    };
    (0..=u8::MAX).flat_map(entry).flat_map(u16::to_le_bytes).collect()
}

/// Returns the end of a CPU's stack.
pub(crate) fn stack(cpu: usize) -> u64 {
    0x7000 + 0x100 * (cpu as u64 + 1)
}

/// Returns the address of a CPU's counters.
pub(crate) fn counters(cpu: usize) -> u64 {
    0x8000 + 0x400 * cpu as u64
}
