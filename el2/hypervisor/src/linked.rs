//! Physical interrupts that lines of guests are linked to: the virtual timers, and the UART of a
//! guest that has the machine's.

use crate::irqchip;
use crate::layout::{UART_SPI, Uart, VIRTUAL_TIMER};
use crate::scheduler::{self, VcpuId};
use alloc::sync::Arc;
use gic_arch::IntId;
use gic_driver::{Interrupt, RawMmio};
use msi_types::{Cpu, Level, Line, SetLine};
use vgic::{PhysicalInterrupts, Vgic};

/// Links a guest's timers, and its UART if that is the machine's, to the machine's.
pub(crate) fn link(guest: usize, vgic: &Vgic, uart: Uart) {
    vgic.serve_physical(Arc::new(Physical { guest })).expect("it is the first");
    for cpu in (0..vgic.config().cpus.len() as u32).map(Cpu::new) {
        vgic.link(timer_line(cpu), VIRTUAL_TIMER).expect("the guest has a timer");
    }
    if uart == Uart::Own {
        vgic.link(Line::Spi(UART_SPI), IntId::new(UART_SPI)).expect("the guest has a UART");
    }
}

/// Lowers the linked lines of a guest that was restored: those that are high fire again.
pub(crate) fn lower(vgic: &Vgic, uart: Uart) {
    let timers = (0..vgic.config().cpus.len() as u32).map(|cpu| timer_line(Cpu::new(cpu)));
    let uart = (uart == Uart::Own).then_some(Line::Spi(UART_SPI));
    for line in timers.chain(uart) {
        vgic.set_line(line, Level::Low);
    }
}

/// The line of a vCPU's virtual timer.
pub(crate) fn timer_line(cpu: Cpu) -> Line {
    Line::Ppi { cpu, intid: VIRTUAL_TIMER.get() }
}

/// The machine's side of the links of one guest.
struct Physical {
    guest: usize,
}

impl Physical {
    /// The physical interrupt of a line: of a PPI, at the CPU that has its vCPU.
    fn interrupt(&self, line: Line, physical: IntId) -> Option<Interrupt<'static, RawMmio>> {
        match line {
            Line::Ppi { cpu, .. } => {
                let cpu = scheduler::loaded_at(VcpuId { guest: self.guest, cpu })?;
                irqchip::gic().redistributor_frames(cpu).ok()?.interrupt(physical).ok()
            }
            Line::Spi(_) => irqchip::gic().distributor().interrupt(physical).ok(),
        }
    }
}

impl PhysicalInterrupts for Physical {
    /// A level-sensitive interrupt is pending as long as its input is high (IHI 0069,
    /// `GICD_ISPENDR<n>`). The input of a vCPU that is on no CPU cannot be read, so its line keeps
    /// its state.
    fn level(&self, line: Line, physical: IntId) -> Level {
        let interrupt = self.interrupt(line, physical);
        if interrupt.is_none_or(|it| it.is_pending()) { Level::High } else { Level::Low }
    }

    fn deactivate(&self, line: Line, physical: IntId) {
        if let Some(interrupt) = self.interrupt(line, physical) {
            interrupt.deactivate();
        }
    }
}
