//! Links guests' lines to physical interrupts: the timers', and the SPIs that only one guest's
//! devices use, which are INTx lines and the machine's UART if a guest owns it.

use crate::irqchip;
use crate::scheduler::{self, VcpuId};
use crate::timers::TIMERS;
use alloc::sync::Arc;
use gic_arch::IntId;
use gic_driver::{Interrupt, RawMmio};
use msi_types::{Cpu, Level, Line, SetLine};
use vgic::{PhysicalInterrupts, Vgic};

/// Links the interrupts of a guest's timers to the physical timer interrupts, and SPIs to those of
/// the same number.
pub(crate) fn link(guest: usize, vgic: &Vgic, spis: &[u32]) {
    vgic.serve_physical(Arc::new(Physical { guest }))
        .expect("no other physical interrupts were set");
    for (cpu, timer) in timers(vgic) {
        vgic.link(timer_line(cpu, timer), timer).expect("the guest's GIC has the timers' PPIs");
    }
    for &spi in spis {
        vgic.link(Line::Spi(spi), IntId::new(spi)).expect("the guest's GIC has the devices' SPIs");
    }
}

/// Deasserts the linked lines of a guest after it was restored. Interrupts whose physical lines are
/// still asserted are signaled again.
pub(crate) fn lower(vgic: &Vgic, spis: &[u32]) {
    let timers = timers(vgic).map(|(cpu, timer)| timer_line(cpu, timer));
    for line in timers.chain(spis.iter().copied().map(Line::Spi)) {
        vgic.set_line(line, Level::Low);
    }
}

/// Returns each vCPU with the PPI of each of its timers.
fn timers(vgic: &Vgic) -> impl Iterator<Item = (Cpu, IntId)> {
    let cpus = (0..vgic.config().cpus.len() as u32).map(Cpu::new);
    cpus.flat_map(|cpu| TIMERS.map(|timer| (cpu, timer)))
}

/// Returns the line of a vCPU's timer, given the timer's PPI.
pub(crate) fn timer_line(cpu: Cpu, timer: IntId) -> Line {
    Line::Ppi { cpu, intid: timer.get() }
}

/// Physical interrupts behind the links of one guest.
struct Physical {
    guest: usize,
}

impl Physical {
    /// Returns a line's physical interrupt. A PPI belongs to the CPU on which the vCPU is loaded.
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
    /// A level-sensitive interrupt is pending while its input is asserted (IHI 0069,
    /// `GICD_ISPENDR<n>`). If a vCPU isn't loaded, we can't read its input, so its line keeps its
    /// state.
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
