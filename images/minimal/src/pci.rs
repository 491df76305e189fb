//! Bring-up shared by kernels with PCI; `gic-bringup`'s README shows the same code. Each kernel
//! includes it as a module. If it were in the library, the kernels whose size we measure would be
//! compiled with it.

#[expect(unreachable_pub, reason = "the file is public example code, and private in this module")]
#[path = "../../../sim/machine/src/readme/kernel.rs"]
pub(crate) mod kernel;

use alloc::sync::Arc;
use gic_bringup::Irqchip;
use gic_driver::GicPlatform;
use image_rt::platform::{Kernel, registers};
use image_rt::{Boot, cpu, exceptions, start};
use irq_domain::Unhandled;
use msi_types::HwIrq;
use spin::Once;

static IRQCHIP: Once<Irqchip<Kernel>> = Once::new();

/// Starts the runtime, brings up the interrupt controllers that firmware describes, and takes
/// interrupts on this CPU.
///
/// `boot` must be the unchanged argument of the image's `main`, and RAM beyond the image must not
/// be in use yet.
pub(crate) fn bring_up(boot: Boot) -> &'static Irqchip<Kernel> {
    // SAFETY: the caller guarantees this.
    let around = unsafe { start::start(boot) };
    let new = || kernel::boot(Arc::new(Kernel), around.devicetree, &registers());
    IRQCHIP.call_once(|| new().expect("the interrupt controllers could not be brought up"));
    exceptions::set_irq_handler(take_interrupts);
    cpu::irq_enable();
    irqchip()
}

/// Handles an IRQ exception on any CPU.
fn take_interrupts() {
    kernel::take_interrupts(irqchip(), Kernel.cpu(), &registers(), stray);
}

/// Returns the interrupt controllers that [`bring_up`] brought up.
pub(crate) fn irqchip() -> &'static Irqchip<Kernel> {
    IRQCHIP.get().expect("interrupts are unmasked after it is stored")
}

fn stray(vector: HwIrq, why: Unhandled) {
    panic!("interrupt {vector}: {why:?}");
}
