//! The boot loader, which identity-maps the image and starts Hermit with the boot information that
//! `hermit-entry` defines.

use core::arch::{asm, global_asm};
use core::num::NonZeroU64;
use core::ptr;

use hermit_entry::boot_info::{BootInfo, HardwareInfo, LoadInfo, PlatformInfo, RawBootInfo};

/// Start of RAM, and the size of the part that Hermit uses. The devicetree is copied beforehand.
const RAM: u64 = 0x4000_0000;
const RAM_BYTES: u64 = 56 << 20;
/// Address of the UART's page.
const UART: u64 = 0x900_0000;
/// Virtual address of the UART's page.
const VIRTUAL_UART: u64 = 0x1000;
/// Number of page tables for the image. Each maps 2 MiB.
const TABLES: usize = 8;
const LARGE_PAGE: u64 = 2 << 20;
const PAGE: u64 = 4 << 10;
/// Bytes that are reserved for the devicetree.
const DEVICETREE_BYTES: usize = 64 << 10;
const STACK_BYTES: usize = 64 << 10;

/// Returns a stage 1 descriptor (DDI 0487, D8.3) of a table, or of an inner shareable page with the
/// access flag set. `attributes` is the index of a field in `MAIR_EL1`.
const fn descriptor(address: u64, attributes: u64) -> u64 {
    address | 1 << 10 | 3 << 8 | attributes << 2 | 0b11
}
/// Fields of [`MAIR`] that Hermit uses: device memory, and normal memory.
const DEVICE: u64 = 0;
const NORMAL: u64 = 4;
const MAIR: u64 = 0xff_44_0c_04_00;
/// `TTBR0_EL1` translates 48-bit virtual addresses, with 4 KiB pages and write-back tables;
/// `TTBR1_EL1` translates none. Physical addresses have 40 bits.
const TCR: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 16 << 16 | 1 << 23 | 2 << 30 | 2 << 32;
/// RES1 bits; translation, caches and stack alignment checks are on.
const SCTLR: u64 = 0x30d0_0800 | 1 | 1 << 2 | 1 << 3 | 1 << 12;

#[repr(C, align(4096))]
struct Table([u64; 512]);

#[repr(C, align(4096))]
struct Tables {
    level_0: Table,
    level_1: Table,
    low: Table,
    uart: Table,
    ram: Table,
    image: [Table; TABLES],
}

const EMPTY: Table = Table([0; 512]);
static mut MAPPED: Tables = Tables {
    level_0: EMPTY,
    level_1: EMPTY,
    low: EMPTY,
    uart: EMPTY,
    ram: EMPTY,
    image: [EMPTY; TABLES],
};

#[repr(C, align(4096))]
struct Bytes<const N: usize>([u8; N]);
static mut STACK: Bytes<STACK_BYTES> = Bytes([0; STACK_BYTES]);
static mut DEVICETREE: Bytes<DEVICETREE_BYTES> = Bytes([0; DEVICETREE_BYTES]);
static mut BOOT_INFO: Option<RawBootInfo> = None;

unsafe extern "C" {
    static __executable_start: u8;
    static _end: u8;
    fn _start(boot_info: &'static RawBootInfo, cpu: u32) -> !;
}

// The first instructions of the image. x0 is the address of the devicetree. The memory after a flat
// image has no defined contents.
global_asm!(
    ".section .text.entry, \"ax\"",
    ".global guest_entry",
    "guest_entry:",
    "adrp x1, __bss_start",
    "add x1, x1, :lo12:__bss_start",
    "adrp x2, _end",
    "add x2, x2, :lo12:_end",
    "1: stp xzr, xzr, [x1], #16",
    "cmp x1, x2",
    "b.lo 1b",
    "adrp x1, {stack}",
    "add x1, x1, :lo12:{stack}",
    "mov x2, {bytes}",
    "add sp, x1, x2",
    "b {load}",
    stack = sym STACK,
    bytes = const STACK_BYTES,
    load = sym load,
);

/// Starts Hermit.
unsafe extern "C" fn load(devicetree: *const u8) -> ! {
    let (start, end) = ((&raw const __executable_start) as u64, (&raw const _end) as u64);
    // SAFETY: only this CPU runs, and nothing else refers to these statics.
    unsafe {
        map();
        let size = u32::from_be(devicetree.add(4).cast::<u32>().read()) as usize;
        let copy = (&raw mut DEVICETREE).cast::<u8>();
        devicetree.copy_to(copy, size.min(DEVICETREE_BYTES));
        let info = BootInfo {
            hardware_info: HardwareInfo {
                phys_addr_range: RAM..RAM + RAM_BYTES,
                serial_port_base: NonZeroU64::new(VIRTUAL_UART),
                device_tree: NonZeroU64::new(copy as u64),
            },
            load_info: LoadInfo { kernel_image_addr_range: start..end, tls_info: None },
            platform_info: PlatformInfo::LinuxBoot,
        };
        BOOT_INFO = Some(info.into());
        let info = (&raw const BOOT_INFO).as_ref().and_then(|info| info.as_ref());
        let stack = (&raw const STACK).cast::<u8>();
        translate();
        asm!(
            "mov sp, {stack}",
            "br {start}",
            stack = in(reg) stack,
            start = in(reg) _start as usize,
            in("x0") info.map_or(ptr::null(), |info| info as *const RawBootInfo),
            in("x1") 0,
            options(noreturn)
        )
    }
}

/// Fills the tables. Hermit accesses its tables through the last entry of level 0, which refers to
/// level 0 itself.
unsafe fn map() {
    let table = |table: *const Table| descriptor(table as u64, NORMAL);
    // SAFETY: the caller ensures that nothing else refers to the tables.
    let tables = unsafe { &mut *(&raw mut MAPPED) };
    tables.level_0.0[0] = table(&raw const tables.level_1);
    tables.level_0.0[511] = table(&raw const tables.level_0);
    tables.level_1.0[0] = table(&raw const tables.low);
    tables.level_1.0[1] = table(&raw const tables.ram);
    tables.low.0[0] = table(&raw const tables.uart);
    tables.uart.0[(VIRTUAL_UART / PAGE) as usize] = descriptor(UART, DEVICE);
    let first = (RAM / LARGE_PAGE) as usize % 512;
    for (index, pages) in tables.image.iter_mut().enumerate() {
        tables.ram.0[first + index] = descriptor(&raw const *pages as u64, NORMAL);
        let start = RAM + index as u64 * LARGE_PAGE;
        for (page, entry) in (0..).zip(&mut pages.0) {
            *entry = descriptor(start + page * PAGE, NORMAL);
        }
    }
}

/// Turns translation on.
unsafe fn translate() {
    // SAFETY: the tables map the image at its own address.
    unsafe {
        asm!(
            "msr mair_el1, {mair}",
            "msr tcr_el1, {tcr}",
            "msr ttbr0_el1, {table}",
            "dsb sy",
            "isb",
            "tlbi vmalle1",
            "ic iallu",
            "dsb sy",
            "isb",
            "msr sctlr_el1, {sctlr}",
            "isb",
            mair = in(reg) MAIR,
            tcr = in(reg) TCR,
            table = in(reg) &raw const MAPPED,
            sctlr = in(reg) SCTLR,
        );
    }
}
