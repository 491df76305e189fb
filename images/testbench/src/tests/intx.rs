//! Tests of two functions on one wire: firmware's `interrupt-map` routes their pins to the same
//! level-triggered interrupt.

use crate::devices::DeviceKind;
use crate::devices::{ACKNOWLEDGE, RAISE, STATUS};
use crate::machine::Machine;
use crate::report::{Outcome, Report, Verdict, check, skip};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use gic_firmware::{IntxPin, NoIntx, WiredInterrupt};
use image_rt::pci::{self, Function, MappedRegion};
use image_rt::{cpu, println};
use irq_domain::pci::TableMemory;
use irq_domain::{IrqHandle, IrqReturn, Sharing, WiredRequest};
use msi_types::{RequesterId, Trigger};

const COMMAND: u16 = 0x04;
/// Command register bit that disables a function's pin (PCI Local Bus 3.0 §6.2.2).
const INTERRUPT_DISABLE: u16 = 1 << 10;
const INTERRUPT_PIN: u16 = 0x3d;

pub(super) fn run(machine: &'static Machine, report: &mut Report) {
    let mut found = None;
    report.case("firmware routes the pins of two functions to one level", || {
        quieten(machine);
        found = Some(pair(machine)?);
        Ok(())
    });
    let Some((functions, wire)) = found else { return };
    let mut made = None;
    report.case("two functions share the level", || {
        let [first, second] = functions.map(|function| Sharer::new(machine, function, wire));
        made = Some((first?, second?));
        Ok(())
    });
    let Some((first, second)) = made else { return };
    report.case("the level serves whichever function asserts it, on each CPU", || {
        for cpu in machine.online_cpus() {
            first.handle.set_affinity(cpu)?;
            check!(second.handle.effective_affinity() == cpu, "the targets differ");
            alone(&first, &second)?;
            alone(&second, &first)?;
        }
        Ok(())
    });
    report
        .case("both functions assert the level while it is disabled", || together(&first, &second));
    report.case("the level outlives one of its handlers", || {
        let Sharer { handle, served, unserved, .. } = first;
        drop(handle);
        let counts = || (served.load(Ordering::Acquire), unserved.load(Ordering::Acquire));
        let before = counts();
        second.raise();
        second.expect_served()?;
        check!(before == counts(), "a dropped handler ran");
        let irq = second.handle.irq();
        drop(second);
        check!(machine.interrupts.effective_affinity(irq).is_none(), "the level was not freed");
        Ok(())
    });
}

/// Disables the pins of all functions, because drivers of earlier tests left some asserted.
fn quieten(machine: &Machine) {
    for function in &machine.functions {
        let command = function.config().read16(COMMAND);
        function.config().write16(COMMAND, command | INTERRUPT_DISABLE);
    }
}

/// Returns two functions on the same wire. If the machine has bridges, the second is behind one.
fn pair(machine: &Machine) -> Result<([&Function; 2], WiredInterrupt), Verdict> {
    let mut wires: Vec<(&Function, WiredInterrupt)> = Vec::new();
    let edus = || machine.functions.iter().filter(|found| DeviceKind::is(found, "edu"));
    if edus().count() < 2 {
        skip!("no second edu");
    }
    for function in edus() {
        let wire = wire(machine, function)?;
        println!("note - {} asserts INTID {}", function.requester().function, wire.intid);
        check!(wire.trigger == Trigger::Level, "{:?}", wire.trigger);
        if let Some((other, _)) = wires.iter().find(|(_, other)| *other == wire) {
            let has_bridges = machine.functions.iter().any(Function::is_bridge);
            let is_below = function.requester().function.pci_bus() != 0;
            check!(is_below || !has_bridges, "the function is not behind a bridge");
            return Ok(([other, function], wire));
        }
        wires.push((function, wire));
    }
    Err(Verdict::Failed("no two functions share a wire".into()))
}

fn wire(machine: &Machine, function: &Function) -> Result<WiredInterrupt, Verdict> {
    let pin = IntxPin::from_register(function.config().read8(INTERRUPT_PIN));
    let pin = pin.ok_or(Verdict::Failed("the function has no pin".into()))?;
    let host = machine.host().ok_or(Verdict::Failed("no PCI".into()))?;
    match host.route_intx(&path(machine, function.requester().function), pin) {
        Err(NoIntx::NotDescribed) => skip!("firmware routes no pins"),
        routed => Ok(routed?),
    }
}

/// Returns the path from the function through the bridges above it to the root bus.
fn path(machine: &Machine, function: RequesterId) -> Vec<RequesterId> {
    let mut path = vec![function];
    let above = |bus| machine.functions.iter().find(|one| one.secondary_bus() == Some(bus));
    while let Some(bridge) = path.last().and_then(|below| above(below.pci_bus())) {
        path.push(bridge.requester().function);
    }
    path
}

/// A function that shares the level-triggered interrupt.
struct Sharer {
    registers: MappedRegion,
    handle: IrqHandle,
    /// Number of handler runs that found the function asserting the level, and number of other
    /// runs.
    served: Arc<AtomicU32>,
    unserved: Arc<AtomicU32>,
}

impl Sharer {
    fn new(machine: &Machine, function: &Function, wire: WiredInterrupt) -> Result<Self, Verdict> {
        let registers = pci::bar(function, 0);
        let command = function.config().read16(COMMAND);
        function.config().write16(COMMAND, command & !INTERRUPT_DISABLE);
        let (served, unserved) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let counts = (served.clone(), unserved.clone());
        let request = WiredRequest::new(wire.intid.hwirq(), wire.trigger, "edu");
        let handle =
            machine.interrupts.request_wired(request.with_sharing(Sharing::Shared), move |_| {
                let status = registers.read32(STATUS);
                if status == 0 {
                    counts.1.fetch_add(1, Ordering::Release);
                    return IrqReturn::None;
                }
                // The function deasserts the level.
                registers.write32(ACKNOWLEDGE, status);
                counts.0.fetch_add(1, Ordering::Release);
                IrqReturn::Handled
            })?;
        Ok(Self { registers, handle, served, unserved })
    }

    fn forget_runs(&self) {
        self.served.store(0, Ordering::Release);
        self.unserved.store(0, Ordering::Release);
    }

    fn raise(&self) {
        self.forget_runs();
        self.registers.write32(RAISE, 1);
    }

    /// Checks that the handler ran once for its function, and that the level is deasserted.
    fn expect_served(&self) -> Outcome {
        cpu::wait_until(2000, || self.served.load(Ordering::Acquire) > 0);
        // If the level were still asserted, it would be signaled again.
        cpu::wait_until(3, || self.served.load(Ordering::Acquire) > 1);
        let served = self.served.load(Ordering::Acquire);
        check!(served == 1, "the handler found its function asserting {served} times");
        check!(self.registers.read32(STATUS) == 0, "the function still asserts the level");
        self.expect_pending(false)
    }

    /// Checks that the level becomes pending or idle. A hypervisor may observe it on another CPU,
    /// which the host may run late.
    fn expect_pending(&self, is_pending: bool) -> Outcome {
        let is_right = cpu::wait_until(2000, || self.handle.is_pending() == Some(is_pending));
        check!(is_right, "the level is pending: {}", !is_pending);
        Ok(())
    }
}

/// Makes one function assert the level, and checks that the other function's handler finds nothing
/// to do.
fn alone(asserting: &Sharer, other: &Sharer) -> Outcome {
    other.forget_runs();
    asserting.raise();
    asserting.expect_served()?;
    let (served, unserved) =
        (other.served.load(Ordering::Acquire), other.unserved.load(Ordering::Acquire));
    check!(
        served == 0 && unserved > 0,
        "handler of the other function: {served} runs served, {unserved} did not"
    );
    Ok(())
}

fn together(first: &Sharer, second: &Sharer) -> Outcome {
    first.handle.disable();
    first.raise();
    second.raise();
    let early = cpu::wait_until(5, || {
        [first, second].iter().any(|one| one.served.load(Ordering::Acquire) > 0)
    });
    check!(!early, "a handler ran while the level was disabled");
    second.expect_pending(true)?;
    first.handle.enable();
    first.expect_served()?;
    second.expect_served()
}
