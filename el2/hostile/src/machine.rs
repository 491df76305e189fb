//! The virtual machine from the perspective of a hostile guest: registers by address and width, and
//! RAM for tables and commands. Accesses are unchecked, because the guest can only damage its own
//! memory and devices.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use gic_arch::{Reg, gicd, gicr, gits};
use image_rt::read_register;

pub(crate) const GICD: u64 = 0x0800_0000;
pub(crate) const GICR: u64 = 0x080a_0000;
pub(crate) const ITS: u64 = 0x0808_0000;

/// Offset of unused RAM after the image.
const FREE: u64 = 16 << 20;
static MEMORY: AtomicU64 = AtomicU64::new(0);

/// Size of the largest command queue in bytes.
pub(crate) const QUEUE_BYTES: u64 = 1 << 20;

/// Addresses of tables and of the command queue in the guest's RAM.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) queue: u64,
    pub(crate) devices: u64,
    pub(crate) collections: u64,
    pub(crate) configuration: u64,
    pub(crate) pending: u64,
}

/// Records the start of RAM.
pub(crate) fn find_memory(start: u64) {
    MEMORY.store(start + FREE, Relaxed);
}

impl Layout {
    /// Returns a layout whose tables and queue are at separate addresses.
    pub(crate) fn apart() -> Self {
        let at = |megabyte: u64| MEMORY.load(Relaxed) + (megabyte << 20);
        Self {
            queue: at(0),
            devices: at(1),
            collections: at(2),
            configuration: at(3),
            pending: at(4),
        }
    }

    /// Returns a layout whose tables and queue share one address.
    pub(crate) fn at(address: u64) -> Self {
        Self {
            queue: address,
            devices: address,
            collections: address,
            configuration: address,
            pending: address,
        }
    }
}

/// Fills a range of a layout's RAM.
pub(crate) fn fill(address: u64, bytes: u64, byte: u8) {
    let start = core::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    // SAFETY: this RAM is beyond the image and the heap, so no references to it exist.
    unsafe { start.write_bytes(byte, bytes as usize) };
}

/// Writes the words of a command.
pub(crate) fn store(address: u64, words: [u64; 4]) {
    let start = core::ptr::with_exposed_provenance_mut::<[u64; 4]>(address as usize);
    // SAFETY: as above.
    unsafe { start.write_volatile(words) };
}

/// Writes the low `bytes` bytes of a value. The access may cause an exception.
pub(crate) fn write(address: u64, bytes: u8, value: u64) {
    // SAFETY: accesses a device register or an unmapped address; exceptions are skipped.
    unsafe {
        match bytes {
            1 => asm!("strb {:w}, [{}]", in(reg) value, in(reg) address),
            2 => asm!("strh {:w}, [{}]", in(reg) value, in(reg) address),
            4 => asm!("str {:w}, [{}]", in(reg) value, in(reg) address),
            _ => asm!("str {}, [{}]", in(reg) value, in(reg) address),
        }
    }
}

/// Reads `bytes` bytes. The access may cause an exception.
pub(crate) fn read(address: u64, bytes: u8) -> u64 {
    let mut value = 0;
    // SAFETY: as above.
    unsafe {
        match bytes {
            1 => asm!("ldrb {:w}, [{}]", inout(reg) value, in(reg) address),
            2 => asm!("ldrsh {}, [{}]", inout(reg) value, in(reg) address),
            4 => asm!("ldrsw {}, [{}]", inout(reg) value, in(reg) address),
            _ => asm!("ldr {}, [{}]", inout(reg) value, in(reg) address),
        }
    }
    value
}

/// Enables the distributor, this vCPU's redistributor (except its LPIs), and its CPU interface. The
/// redistributor must be awake: firmware wakes it before it starts a CPU (TF-A does in
/// `gicv3_rdistif_mark_core_awake`).
pub(crate) fn enable_interrupts() {
    // Enables Group 1 and affinity routing (IHI 0069, GICD_CTLR).
    write(GICD + u64::from(gicd::CTLR.offset()), 4, 0x12);
    let frame = redistributor();
    let bits = |at: u32| frame + u64::from(gicr::SGI_BASE + at);
    write(bits(0x80), 4, 0xffff_ffff);
    write(bits(0x100), 4, 0xffff_ffff);
    // SAFETY: interrupts stay masked.
    unsafe {
        asm!(
            "msr icc_pmr_el1, {mask}",
            "msr icc_igrpen1_el1, {one}",
            "isb",
            mask = in(reg) 0xff_u64,
            one = in(reg) 1_u64,
            options(nostack, preserves_flags),
        );
    }
}

/// Returns the address of this vCPU's redistributor.
pub(crate) fn redistributor() -> u64 {
    GICR + image_rt::cpu::mpidr() * gicr::STRIDE_V3
}

/// Acknowledges and ends an interrupt, if one is pending.
pub(crate) fn take() {
    end(acknowledge());
}

/// INTID of a spurious interrupt: no interrupt is pending.
pub(crate) const NONE: u64 = 1023;

/// Acknowledges an interrupt. Returns its INTID, or [`NONE`].
pub(crate) fn acknowledge() -> u64 {
    read_register!("icc_iar1_el1")
}

/// Ends an acknowledged interrupt.
pub(crate) fn end(intid: u64) {
    // SAFETY: the write has no effect if no interrupt is active.
    unsafe { asm!("msr icc_eoir1_el1, {}", in(reg) intid, options(nostack, preserves_flags)) };
}

/// Sets the LPI tables of this vCPU, and enables or disables its LPIs.
pub(crate) fn set_lpis(layout: Layout, are_enabled: bool) {
    let frame = redistributor();
    let pending = layout.pending + image_rt::cpu::mpidr() * 0x1_0000;
    write(frame + u64::from(gicr::PROPBASER.offset()), 8, layout.configuration | 15);
    write(frame + u64::from(gicr::PENDBASER.offset()), 8, pending);
    write(frame + u64::from(gicr::CTLR.offset()), 4, are_enabled.into());
}

/// Sets the ITS's tables and its queue of `queue_bytes` bytes, and enables the ITS.
pub(crate) fn set_its(layout: Layout, queue_bytes: u64) {
    const VALID: u64 = 1 << 63;
    /// Page size of 64 KiB in `GITS_BASER<n>`.
    const LARGE_PAGES: u64 = 2 << 8;
    write_its(gits::CTLR.offset(), 0);
    let baser = gits::BASER.get(0).map_or(0, Reg::offset);
    write_its(baser, VALID | LARGE_PAGES | layout.devices | 7);
    write_its(baser + 8, VALID | LARGE_PAGES | layout.collections);
    write_its(gits::CBASER.offset(), VALID | layout.queue | (queue_bytes / 0x1000 - 1));
    write_its(gits::CTLR.offset(), 1);
}

/// Writes 8 bytes to a register of the ITS.
pub(crate) fn write_its(offset: u32, value: u64) {
    write(ITS + u64::from(offset), 8, value);
}

/// Reads 8 bytes from a register of the ITS.
pub(crate) fn read_its(offset: u32) -> u64 {
    read(ITS + u64::from(offset), 8)
}

/// `ICC_SGI1R_EL1.IRM`: the SGI targets all other PEs.
pub(crate) const OTHERS: u64 = 1 << 40;

/// Sends an SGI to the targets.
pub(crate) fn send(sgi: u64, target: u64) {
    // SAFETY: the vCPUs' interrupts are masked.
    unsafe {
        asm!("msr icc_sgi1r_el1, {}", in(reg) sgi << 24 | target);
    }
}
