//! The machine's interrupts: found, taken, and handed to the guest.
//!
//! Interrupts are masked at EL2. They are taken after the exits that they cause and while a vCPU
//! waits: each drops its priority at once. Those that are linked to the guest's stay active until
//! the guest deactivates its own; all others are deactivated here. A virtual timer's goes with its
//! vCPU from CPU to CPU.

use alloc::sync::Arc;
use gic_arch::{IntId, IntIdClass, SgiId};
use gic_bringup::{Irqchip, Options};
use gic_driver::cpu_interface::{Acknowledged, SplitEoi};
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{CpuInterface, Gic, GicError, GicPlatform, Interrupt, RawMmio};
use gic_firmware::Description;
use image_rt::platform::{Kernel, registers};
use image_rt::{console, cpu, println};
use irq_domain::{IrqContext, IrqHandle, PerCpuHandle, WiredRequest};
use msi_types::{Cpu, HwIrq, Level, Line, SetLine, Trigger};
use spin::Once;
use vgic::{PhysicalInterrupts, Vgic};

use crate::exits;
use crate::guest::{Guest, UART_SPI, Uart, guests};
use crate::scheduler::{self, VcpuId};

/// PPIs of the virtual interface, the virtual timer and EL2's physical timer, on `virt` as in the
/// Base System Architecture (DEN 0094).
const MAINTENANCE: IntId = IntId::ppi(9).expect("there are 16");
pub(crate) const VIRTUAL_TIMER: IntId = IntId::ppi(11).expect("there are 16");
const HYPERVISOR_TIMER: IntId = IntId::ppi(10).expect("there are 16");
/// The SGI that makes a CPU leave its guest, or WFI.
const KICK: SgiId = SgiId::new(0).expect("there are 16");

static IRQCHIP: Once<Irqchip<Kernel, SplitEoi>> = Once::new();
static HANDLERS: Once<Handlers> = Once::new();

/// The interrupts that are handled as long as the machine runs.
struct Handlers {
    per_cpu: [PerCpuHandle; 4],
    _uart: IrqHandle,
}

/// Brings the machine's controllers up, and this CPU's interface.
pub(crate) fn bring_up(description: Description) {
    let options = Options::default().with_max_cpus(cpu::MAX_CPUS);
    let kernel = || Arc::new(Kernel);
    let irqchip = Irqchip::split(kernel(), kernel(), description, &options);
    IRQCHIP.call_once(|| irqchip.expect("the interrupt controllers"));
    bring_up_cpu();
}

/// Brings this CPU's interface up.
pub(crate) fn bring_up_cpu() {
    irqchip().cpu_on(here(), &registers(), |_| ()).expect("the CPU's interface");
    for handle in HANDLERS.get().iter().flat_map(|handlers| &handlers.per_cpu) {
        handle.enable_here();
    }
}

/// Links a guest's timers, and its UART if that is the machine's, to the machine's.
pub(crate) fn link(number: usize, vgic: &Vgic, uart: Uart) {
    vgic.serve_physical(Arc::new(Machine { guest: number })).expect("it is the first");
    for cpu in (0..vgic.config().cpus.len() as u32).map(Cpu::new) {
        vgic.link(timer_line(cpu), VIRTUAL_TIMER).expect("the guest has a timer");
    }
    if uart == Uart::Own {
        vgic.link(Line::Spi(UART_SPI), IntId::new(UART_SPI)).expect("the guest has a UART");
    }
}

/// The levels of linked lines of a guest that was restored: those that are high fire again.
pub(crate) fn lower_linked(vgic: &Vgic, uart: Uart) {
    let timers = (0..vgic.config().cpus.len() as u32).map(|cpu| timer_line(Cpu::new(cpu)));
    let uart = (uart == Uart::Own).then_some(Line::Spi(UART_SPI));
    for line in timers.chain(uart) {
        vgic.set_line(line, Level::Low);
    }
}

/// Lets the machine's interrupts through.
pub(crate) fn serve() {
    let interrupts = irqchip().interrupts();
    let per_cpu = |intid: IntId, name, handler: fn(&IrqContext<'_>)| {
        let handle = interrupts.request_per_cpu(intid.hwirq(), Trigger::Level, name, handler);
        handle.expect("it is free")
    };
    let virtual_timer = |_: &IrqContext<'_>| {
        let Some(VcpuId { guest, cpu }) = scheduler::loaded() else { return };
        if let Some(guest) = guests().get(guest) {
            guest.vgic().set_line(timer_line(cpu), Level::High);
        }
    };
    let uart = |_: &IrqContext<'_>| {
        if let Some(guest) = uart_owner() {
            guest.vgic().set_line(Line::Spi(UART_SPI), Level::High);
            return;
        }
        while let Some(byte) = console::read() {
            for guest in guests() {
                guest.type_in(byte);
            }
        }
    };
    if uart_owner().is_none() {
        console::enable_input_interrupt();
    }
    let request = WiredRequest::new(HwIrq::new(UART_SPI), Trigger::Level, "uart");
    let uart = interrupts.request_wired(request, uart);
    let kick = interrupts.request_per_cpu(KICK.intid().hwirq(), Trigger::Edge, "kick", |_| ());
    let handlers = Handlers {
        per_cpu: [
            kick.expect("it is free"),
            per_cpu(MAINTENANCE, "virtual interface", |_| ()),
            per_cpu(VIRTUAL_TIMER, "virtual timer", virtual_timer),
            per_cpu(HYPERVISOR_TIMER, "hypervisor's timer", |_| scheduler::on_timer()),
        ],
        _uart: uart.expect("the UART's interrupt is free"),
    };
    let handlers = HANDLERS.call_once(|| handlers);
    handlers.per_cpu.iter().for_each(PerCpuHandle::enable_here);
}

/// Takes everything that is pending at this CPU.
#[inline]
pub(crate) fn take() {
    let interface = interface();
    while let Some(interrupt) = interface.acknowledge() {
        exits::acknowledged(interrupt.intid());
        if interrupt.intid() == KICK.intid() {
            // It has done what it is for.
            interface.deactivate(interface.end(interrupt));
        } else {
            handle(interrupt);
        }
    }
}

#[inline(never)]
fn handle(interrupt: Acknowledged) {
    let interface = interface();
    let ended = gic().end(&interface, interrupt);
    let intid = ended.intid();
    let _ = irqchip().interrupts().dispatch(here(), intid.hwirq());
    // LPIs have no active state.
    if is_handed_over(intid) || intid.class() == IntIdClass::Lpi {
        ended.hand_over();
    } else {
        gic().deactivate(&interface, ended);
    }
}

/// Makes this CPU's virtual timer the vCPU's, whose interrupt may be active. The timer is off.
pub(crate) fn load_timer(guest: &Guest, cpu: Cpu) {
    let is_active = || guest.vgic().is_physical_active(timer_line(cpu));
    let Some(timer) = timer_here() else { return };
    // Else it would not fire for this vCPU.
    assert!(!timer.is_active(), "the timer of the vCPU before is active");
    if !is_active() {
        return;
    }
    timer.activate();
    // Another vCPU may have deactivated it meanwhile, before it was active here.
    if !is_active() {
        timer.deactivate();
    }
}

/// Stops this CPU's virtual timer, which was a vCPU's. Its interrupt is deactivated in any case:
/// another vCPU that has just ended it may find the vCPU at no CPU any more.
pub(crate) fn put_timer() {
    cpu::stop_virtual_timer();
    if let Some(timer) = timer_here() {
        timer.deactivate();
    }
}

fn timer_here() -> Option<Interrupt<'static, RawMmio>> {
    gic().redistributor_frames(here()).ok()?.interrupt(VIRTUAL_TIMER).ok()
}

/// Makes a CPU leave its guest, or WFI.
pub(crate) fn kick(cpu: Cpu) {
    let affinity = gic().affinity(cpu).ok_or(GicError::UnknownCpu(cpu));
    if let Err(error) = affinity.and_then(|affinity| interface().send(KICK, affinity)) {
        println!("hypervisor: {cpu} cannot be kicked: {error}");
    }
}

/// Does the interrupt stay active until the guest deactivates its own?
fn is_handed_over(intid: IntId) -> bool {
    match intid {
        VIRTUAL_TIMER => scheduler::loaded().is_some(),
        _ => intid.get() == UART_SPI && uart_owner().is_some(),
    }
}

/// The guest that has the machine's UART to itself.
fn uart_owner() -> Option<&'static Guest> {
    guests().iter().find(|guest| guest.uart.is_none())
}

fn timer_line(cpu: Cpu) -> Line {
    Line::Ppi { cpu, intid: VIRTUAL_TIMER.get() }
}

/// The number of this CPU.
pub(crate) fn here() -> Cpu {
    GicPlatform::cpu(&Kernel)
}

/// The machine's controllers.
pub(crate) fn irqchip() -> &'static Irqchip<Kernel, SplitEoi> {
    IRQCHIP.get().expect("the controllers are brought up first")
}

fn gic() -> &'static Gic<Kernel> {
    irqchip().gic().v3().expect("a GICv3: it has list registers by system registers")
}

fn interface() -> CpuInterface<CpuRegisters, SplitEoi> {
    CpuInterface::new(registers())
}

/// The machine's side of interrupts that a guest's are linked to.
struct Machine {
    guest: usize,
}

impl Machine {
    /// The physical interrupt of a line: of a PPI, at the CPU that has its vCPU.
    fn interrupt(&self, line: Line, physical: IntId) -> Option<Interrupt<'static, RawMmio>> {
        match line {
            Line::Ppi { cpu, .. } => {
                let cpu = guests().get(self.guest)?.loaded_at(cpu)?;
                gic().redistributor_frames(cpu).ok()?.interrupt(physical).ok()
            }
            Line::Spi(_) => gic().distributor().interrupt(physical).ok(),
        }
    }
}

impl PhysicalInterrupts for Machine {
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
