//! The parts that kernels with PCI share: the start of a machine with the lines that the project's
//! README shows, and QEMU's `edu`. It is a module of each of them, and not of the library, so that
//! the kernels to measure are compiled without it.

#[expect(unreachable_pub, reason = "a reader makes a module of it where it is reachable")]
#[path = "../../../sim/machine/src/readme/kernel.rs"]
pub(crate) mod kernel;

use alloc::sync::Arc;
use gic_bringup::Irqchip;
use image_rt::platform::{Kernel, registers};
use image_rt::{Boot, cpu, exceptions, start};
use irq_domain::Unhandled;
use msi_types::{Cpu, HwIrq};
use spin::Once;

/// Vendor and device of QEMU's `edu`.
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
    // SAFETY: the caller's contract.
    let around = unsafe { start::start(boot) };
    let new = || kernel::boot(Arc::new(Kernel), around.devicetree, &registers());
    let irqchip = IRQCHIP.call_once(|| new().expect("the interrupt controllers"));
    exceptions::set_irq_handler(|| {
        let irqchip = IRQCHIP.get().expect("interrupts come after it");
        kernel::take_interrupts(irqchip, Cpu::new(0), &registers(), stray);
    });
    cpu::irq_enable();
    irqchip
}

fn stray(vector: HwIrq, why: Unhandled) {
    panic!("interrupt {vector}: {why:?}");
}
