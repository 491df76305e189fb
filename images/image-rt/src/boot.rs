//! Boots an image, from reset to `main`: the image header, the memory map with caches on, and the
//! loader's arguments.

use crate::power::Conduit;
use aarch64_rt::{InitialPagetable, initial_pagetable};

/// Boot information from the loader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Boot {
    /// Physical address of the devicetree.
    pub devicetree: usize,
    /// Conduit to firmware, if the devicetree does not state it.
    pub conduit: Option<Conduit>,
}

impl Boot {
    /// Decodes the start code's arguments: `x0` is the address of the devicetree, as in the Linux
    /// boot protocol; `x1` is zero or the mark that [`monitor`](crate::monitor) passes.
    pub fn from_arguments(x0: u64, x1: u64) -> Self {
        let conduit = (x1 == crate::monitor::MARK).then_some(Conduit::Smc);
        Self { devicetree: x0 as usize, conduit }
    }
}

/// Defines the image's entry point, which calls `main`, and its exception vectors.
#[macro_export]
macro_rules! image {
    ($main:path) => {
        $crate::aarch64_rt::exception_handlers!($crate::Handlers);
        $crate::aarch64_rt::entry!(__image_main, 64);
        fn __image_main(x0: u64, x1: u64, _: u64, _: u64) -> ! {
            $crate::cpu::init(0);
            $main($crate::Boot::from_arguments(x0, x1))
        }
    };
}

// The header of the Linux boot protocol (Documentation/arch/arm64/booting.rst), which makes QEMU
// pass the devicetree in x0.
core::arch::global_asm!(
    ".section .init.header, \"ax\"",
    ".global image_header",
    "image_header:",
    "    b reset",
    "    .word 0",
    "    .quad 0",                  // text offset
    "    .quad image_end - . + 16", // size, including what is not in the file
    "    .quad 0x0a",               // little-endian, 4 KiB pages, anywhere
    "    .quad 0, 0, 0",
    "    .ascii \"ARM\\x64\"",
    "    .word 0",
);

const VALID: usize = 1;
const DEVICE: usize = 0 << 2;
const NORMAL: usize = 1 << 2;
const INNER_SHAREABLE: usize = 3 << 8;
const ACCESSED: usize = 1 << 10;
const NEVER_EXECUTED: usize = 1 << 54 | 1 << 53;

const fn device(gigabyte: usize) -> usize {
    gigabyte << 30 | VALID | DEVICE | ACCESSED | NEVER_EXECUTED
}

const fn ram(gigabyte: usize) -> usize {
    gigabyte << 30 | VALID | NORMAL | INNER_SHAREABLE | ACCESSED
}

/// Physical addresses that the identity map covers as device memory: the first gigabyte (all of
/// `virt`'s registers) and the gigabyte with its high configuration space.
pub const DEVICE_MEMORY: [core::ops::Range<u64>; 2] = [0..1 << 30, 256 << 30..257 << 30];
/// Physical addresses that the identity map covers as RAM.
pub const RAM: core::ops::Range<u64> = 1 << 30..3 << 30;

// Identity map in units of gigabytes. All RAM is writable and executable, because this is a test
// bench.
initial_pagetable!({
    let mut map = [0; 512];
    map[0] = device(0);
    map[1] = ram(1);
    map[2] = ram(2);
    map[256] = device(256);
    InitialPagetable(map)
});
