//! Handles the machine's interrupts, and hands them over to guests.
//!
//! Interrupts are masked at EL2. We acknowledge them after the exits that they cause, and while a
//! vCPU waits, and drop their priority immediately. Interrupts that are linked to a guest's
//! interrupt stay active until the guest deactivates its interrupt; all others are deactivated
//! here. The interrupts of a vCPU's timers move with the vCPU from CPU to CPU.

use crate::guest::{Guest, guests};
use crate::irqchip::{self, KICK};
use crate::linked::timer_line;
use crate::scheduler::{self, VcpuId};
use crate::timers::{PHYSICAL_TIMER, TIMERS, VIRTUAL_TIMER};
use crate::{direct, hypervisor_timer};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use gic_arch::{IntId, IntIdClass};
use gic_driver::cpu_interface::Acknowledged;
use gic_driver::{Interrupt, RawMmio};
use image_rt::cpu;
use irq_domain::{Dispatched, IrqContext, IrqHandle, PerCpuHandle, WiredRequest};
use msi_types::{Cpu, HwIrq, Level, Line, SetLine, Trigger};
use spin::Once;

/// PPIs of the virtual interface's maintenance interrupt and of EL2's timer (DEN 0094).
const MAINTENANCE: IntId = IntId::ppi(9).expect("16 PPIs exist");
const HYPERVISOR_TIMER: IntId = IntId::ppi(10).expect("16 PPIs exist");

static HANDLERS: Once<Handlers> = Once::new();

/// Handles of the interrupts that are handled while the machine runs.
struct Handlers {
    per_cpu: [PerCpuHandle; 5],
    _wired: Vec<IrqHandle>,
}

/// Bitmap of the SPIs that are linked to a guest's, where bit 0 is INTID 32.
static LINKED: AtomicU64 = AtomicU64::new(0);
const FIRST_SPI: u32 = 32;

/// Enables this CPU's interface, and its private interrupts that have handlers.
pub(crate) fn bring_up_cpu() {
    irqchip::bring_up_cpu();
    for handle in HANDLERS.get().iter().flat_map(|handlers| &handlers.per_cpu) {
        handle.enable_here();
    }
}

/// Requests and enables the machine's interrupts.
pub(crate) fn serve() {
    let interrupts = irqchip::get().interrupts();
    let per_cpu = |intid: IntId, name, handler: fn(&IrqContext<'_>)| {
        let handle = interrupts.request_per_cpu(intid.hwirq(), Trigger::Level, name, handler);
        handle.expect("a private interrupt could not be requested")
    };
    let virtual_timer = |_: &IrqContext<'_>| raise_timer(VIRTUAL_TIMER);
    let physical_timer = |_: &IrqContext<'_>| raise_timer(PHYSICAL_TIMER);
    let mut requested = Vec::new();
    for (guest, &spi) in guests().iter().flat_map(|it| it.linked().iter().map(move |spi| (it, spi)))
    {
        LINKED.fetch_or(1 << (spi - FIRST_SPI), Relaxed);
        let wired = WiredRequest::new(HwIrq::new(spi), Trigger::Level, "guest's device");
        requested.push(interrupts.request_wired(wired, move |_| {
            guest.vgic().set_line(Line::Spi(spi), Level::High);
        }));
    }
    let wired = requested.into_iter().map(|it| it.expect("an SPI could not be requested"));
    let kick = interrupts.request_per_cpu(KICK.intid().hwirq(), Trigger::Edge, "kick", |_| ());
    let handlers = Handlers {
        per_cpu: [
            kick.expect("the SGI for kicks could not be requested"),
            per_cpu(MAINTENANCE, "virtual interface", |_| ()),
            per_cpu(VIRTUAL_TIMER, "virtual timer", virtual_timer),
            per_cpu(PHYSICAL_TIMER, "physical timer", physical_timer),
            per_cpu(HYPERVISOR_TIMER, "hypervisor's timer", on_own_timer),
        ],
        _wired: wired.collect(),
    };
    let handlers = HANDLERS.call_once(|| handlers);
    handlers.per_cpu.iter().for_each(PerCpuHandle::enable_here);
}

/// Handles this CPU's own timer.
fn on_own_timer(_: &IrqContext<'_>) {
    if hypervisor_timer::take_poll() {
        for guest in guests() {
            guest.devices.poll();
        }
    }
    scheduler::on_timer();
}

/// Asserts the timer line of the vCPU that is loaded here.
fn raise_timer(timer: IntId) {
    let Some(VcpuId { guest, cpu }) = scheduler::loaded() else { return };
    if let Some(guest) = guests().get(guest) {
        guest.vgic().set_line(timer_line(cpu, timer), Level::High);
    }
}

/// Handles all interrupts that are pending at this CPU.
#[inline]
pub(crate) fn take() {
    let interface = irqchip::interface();
    while let Some(interrupt) = interface.acknowledge() {
        serve_one(interrupt);
    }
}

/// Ends an interrupt that is an LPI, which has no active state.
#[inline]
pub(crate) fn end_lpi(interrupt: Acknowledged) {
    irqchip::gic().end(&irqchip::interface(), interrupt).hand_over();
}

#[inline]
pub(crate) fn serve_one(interrupt: Acknowledged) {
    if interrupt.intid() == KICK.intid() {
        // A kick only has to cause an exit, so no handler is needed.
        let interface = irqchip::interface();
        interface.deactivate(interface.end(interrupt));
    } else {
        handle(interrupt);
    }
}

#[inline(never)]
fn handle(interrupt: Acknowledged) {
    let interface = irqchip::interface();
    let ended = irqchip::gic().end(&interface, interrupt);
    let intid = ended.intid();
    let dispatched = irqchip::get().interrupts().dispatch(irqchip::here(), intid.hwirq());
    if let Dispatched::Unhandled(_) = dispatched {
        direct::ring(intid);
    }
    // LPIs have no active state.
    if intid.class() == IntIdClass::Lpi || is_handed_over(intid) {
        ended.hand_over();
    } else {
        irqchip::gic().deactivate(&interface, ended);
    }
}

/// Assigns this CPU's timers to the vCPU. The timers must be off; the vCPU's timer interrupts may
/// be active.
pub(crate) fn load_timers(guest: &Guest, cpu: Cpu) {
    for intid in TIMERS {
        load_timer(guest, cpu, intid);
    }
}

fn load_timer(guest: &Guest, cpu: Cpu, intid: IntId) {
    let is_active = || guest.vgic().is_physical_active(timer_line(cpu, intid));
    let Some(timer) = timer_here(intid) else { return };
    // The timer cannot signal this vCPU while the physical interrupt is active.
    assert!(!timer.is_active(), "the timer interrupt of the previous vCPU is active");
    if !is_active() {
        return;
    }
    timer.activate();
    // Another vCPU may have deactivated the interrupt before it was active here.
    if !is_active() {
        timer.deactivate();
    }
}

/// Stops this CPU's timers, which the vCPU no longer uses. Always deactivates the timers'
/// interrupts, because another vCPU that deactivates a virtual interrupt may find this vCPU already
/// unloaded.
pub(crate) fn put_timers() {
    cpu::stop_virtual_timer();
    cpu::stop_physical_timer();
    for timer in TIMERS.into_iter().filter_map(timer_here) {
        timer.deactivate();
    }
}

fn timer_here(intid: IntId) -> Option<Interrupt<'static, RawMmio>> {
    irqchip::gic().redistributor_frames(irqchip::here()).ok()?.interrupt(intid).ok()
}

/// Returns `true` if the interrupt stays active until the guest deactivates the linked interrupt.
fn is_handed_over(intid: IntId) -> bool {
    match intid {
        VIRTUAL_TIMER | PHYSICAL_TIMER => scheduler::loaded().is_some(),
        _ => {
            let linked = LINKED.load(Relaxed);
            linked.checked_shr(intid.get().wrapping_sub(FIRST_SPI)).is_some_and(|it| it & 1 != 0)
        }
    }
}
