//! A kernel with one CPU requests a wired interrupt, and its trap loop dispatches it.

use irq_domain::{Config, Dispatched, Host, Interrupts, WiredRequest};
use msi_types::{
    Cpu, HwIrq, IrqState, LocalCpu, MsiError, Pending, TaskContext, Trigger, WiredParent,
};
use std::{error::Error, num::NonZeroU16, sync::Arc};

/// A kernel with a single thread.
struct Kernel;

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn yield_now(&self) {
        self.relax(); // A kernel with a scheduler yields.
    }
}

impl TaskContext for Kernel {
    fn may_wait(&self) -> bool {
        true
    }
}

impl Host for Kernel {
    fn current_cpu(&self) -> Option<Cpu> {
        None
    }
}

/// A stand-in for a driver such as `gic_driver::Gic`.
struct Controller;

#[rustfmt::skip]
impl WiredParent for Controller {
    fn claim(&self, _: HwIrq, _: NonZeroU16) -> Result<(), MsiError> { Ok(()) }
    fn release(&self, _: HwIrq, _: NonZeroU16) {}
    fn set_trigger(&self, _: HwIrq, _: Trigger) -> Result<(), MsiError> { Ok(()) }
    fn set_target(&self, _: HwIrq, _: Cpu) -> Result<(), MsiError> { Ok(()) }
    fn mask(&self, hwirq: HwIrq) { println!("{hwirq} is off"); }
    fn unmask(&self, hwirq: HwIrq) { println!("{hwirq} is on"); }
    fn set_pending(&self, _: HwIrq, _: Pending) {}
    fn is_pending(&self, _: HwIrq) -> bool { false }
}

fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::new(NonZeroU16::MIN, Arc::new(Kernel)).with_wired(Arc::new(Controller));
    let interrupts = Interrupts::new(config)?;
    let request = WiredRequest::new(HwIrq::new(33), Trigger::Level, "uart");
    let uart = interrupts.request_wired(request, |context| {
        println!("the UART's handler runs on CPU {}", context.cpu());
    })?;
    // The trap loop passes the acknowledged interrupt to the core:
    assert_eq!(interrupts.dispatch(Cpu::new(0), uart.hwirq()), Dispatched::Handled);
    assert_eq!(uart.count(), 1);
    Ok(())
}
