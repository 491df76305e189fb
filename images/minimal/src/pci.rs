//! Code that kernels with PCI share: bring-up with the lines that the project's README shows, and
//! constants of QEMU's `edu`. It is a module of each kernel instead of a part of the library, so
//! that the kernels whose size is measured are compiled without it.

#[expect(unreachable_pub, reason = "the file is public example code, and private in this module")]
#[path = "../../../sim/machine/src/readme/kernel.rs"]
pub(crate) mod kernel;

use alloc::sync::Arc;
use gic_bringup::Irqchip;
use image_rt::platform::{Kernel, registers};
use image_rt::{Boot, cpu, exceptions, start};
use irq_domain::Unhandled;
use msi_types::{Cpu, HwIrq};
use spin::Once;

/// Vendor and device ID of QEMU's `edu`.
pub(crate) const EDU: (u16, u16) = (0x1234, 0x11e8);
/// Register of an `edu` that raises its interrupt.
pub(crate) const RAISE: u64 = 0x60;
/// Register of an `edu` that acknowledges its interrupt.
pub(crate) const ACKNOWLEDGE: u64 = 0x64;

static IRQCHIP: Once<Irqchip<Kernel>> = Once::new();

/// Starts the runtime, brings up the interrupt controllers that firmware describes, and takes
/// interrupts on this CPU.
///
/// `boot` must be the unchanged argument of the image's `main`, and nothing may use RAM behind the
/// image yet.
pub(crate) fn bring_up(boot: Boot) -> &'static Irqchip<Kernel> {
    // SAFETY: the caller guarantees this.
    let around = unsafe { start::start(boot) };
    let new = || kernel::boot(Arc::new(Kernel), around.devicetree, &registers());
    let irqchip =
        IRQCHIP.call_once(|| new().expect("the interrupt controllers could not be brought up"));
    exceptions::set_irq_handler(|| {
        let irqchip = IRQCHIP.get().expect("interrupts are unmasked after it is stored");
        kernel::take_interrupts(irqchip, Cpu::new(0), &registers(), stray);
    });
    cpu::irq_enable();
    irqchip
}

fn stray(vector: HwIrq, why: Unhandled) {
    panic!("interrupt {vector}: {why:?}");
}
