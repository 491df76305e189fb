//! Tests of explanations. Each test plants faults on the path of a device's vector, checks that the
//! explanation names each fault, and repairs it. The device sends no message while a fault is
//! planted.

use crate::controller::{its_frame, registers};
use crate::machine::Machine;
use crate::report::{Outcome, Verdict, check};
use crate::rig::Rig;
use gic_arch::gits::{self, Ctlr};
use gic_arch::icc::{self, Igrpen};
use gic_arch::{Lpi, gicd, gicr};
use gic_driver::{Gic, GicPlatform, Its, MmioExt, SystemRegisters};
use image_rt::cpu;
use image_rt::pci::{self, Function, MappedRegion};
use image_rt::platform::Kernel;
use irq_domain::pci::{FunctionStore, TableMemory};
use irq_domain::{IrqHandle, MsiDevice, MsiDeviceConfig};
use msi_types::explain::{Group, Obstacle};
use msi_types::pci::msix::{self, Control};
use msi_types::{Cpu, DeviceId, MsiMessage, Pending, RequesterId};

/// Command register: Bus Master Enable.
const COMMAND: u16 = 4;
const MASTER: u16 = 1 << 2;
const PRIORITY: u8 = 0xa0;

/// Checks that the explanation detects a function that is attached with a requester ID other than
/// its own.
pub(super) fn wrong_requester(machine: &Machine, function: &Function) -> Outcome {
    // Without an ITS, messages have no DeviceID. Behind an SMMU, a function that does not exist has
    // no address space.
    if machine.its.is_none() || machine.smmu.is_some() || function.requester().alias.is_some() {
        return Ok(());
    }
    let parent = machine.parent_of(function).ok_or(Verdict::Failed("no parent".into()))?;
    let own = function.requester().at_host();
    let wrong = RequesterId::new(own.get() | 7);
    let FunctionStore { store, shape } = pci::store(function)?;
    let device = MsiDevice::attach(
        &machine.interrupts,
        MsiDeviceConfig::new("wrong", wrong, parent, store),
    )?;
    device.allocate(shape, 1..=1)?;
    let handle = device.request(0, "wrong", |_| {})?;
    let found = Found { machine, handle: &handle, here: GicPlatform::cpu(&Kernel) }.obstacle();
    drop(handle);
    device.tear_down()?;
    let id = |requester: RequesterId| DeviceId::new(requester.get());
    let (expected, actual) = (id(wrong), id(own));
    check!(found == Some(Obstacle::WrongDevice { expected, actual }), "{found:?}");
    Ok(())
}

/// Plants faults in the function and its driver, then faults in the GIC and the CPU.
pub(super) fn faults(machine: &Machine, rig: &Rig, function: &Function) -> Outcome {
    let handle = rig.handles.first().ok_or(Verdict::Failed("no vectors".into()))?;
    let here = GicPlatform::cpu(&Kernel);
    machine.route(handle, here)?;
    let found = Found { machine, handle, here };
    let works = found.obstacle();
    check!(works.is_none(), "of a working vector: {works:?}");
    let lpi = Lpi::try_from(handle.hwirq().get()).ok();
    of_bus(&found, function)?;
    if let Some(capability) = pci::capability(function, msix::CAPABILITY_ID) {
        of_table(&found, function, capability)?;
    }
    found.planted(|| handle.disable(), || handle.enable(), Obstacle::DisabledByDriver)?;
    if let (Some(its), Some(lpi)) = (&machine.its, lpi) {
        of_its(&found, its, lpi)?;
    }
    if let Some(gic) = machine.gic().v3().filter(|_| lpi.is_some()) {
        of_redistributor(&found, gic)?;
    }
    of_cpu(&found)
}

/// Clears Bus Master Enable of the function, then of the bridge upstream of it.
fn of_bus(found: &Found<'_>, function: &Function) -> Outcome {
    let clear_master = |function: &Function, wanted| {
        let command = function.config().read16(COMMAND);
        found.planted(
            || function.config().write16(COMMAND, command & !MASTER),
            || function.config().write16(COMMAND, command),
            wanted,
        )
    };
    clear_master(function, Obstacle::BusMasterDisabled)?;
    let bus = function.requester().function.pci_bus();
    let mut all = found.machine.functions.iter();
    match all.find(|bridge| bridge.secondary_bus() == Some(bus)) {
        Some(upstream) => {
            let bridge = upstream.requester().function;
            clear_master(upstream, Obstacle::BridgeDisabled { bridge })
        }
        None => Ok(()),
    }
}

/// Plants faults in the MSI-X capability, then in the table entry of vector 0.
fn of_table(found: &Found<'_>, function: &Function, capability: u16) -> Outcome {
    let config = function.config();
    let at = capability + msix::CONTROL;
    let right = config.read16(at);
    let set = |control: Control| move || config.write16(at, control.into());
    let on = Control::from(right);
    let repair = || config.write16(at, right);
    found.planted(set(on.with_enable(false)), repair, Obstacle::MessagesDisabled)?;
    found.planted(set(on.with_function_mask(true)), repair, Obstacle::FunctionMasked)?;
    let place = config.read32(capability + msix::TABLE);
    let (bar, table) = (pci::bar(function, (place & 7) as u8), u64::from(place & !7));
    let masked = Obstacle::VectorMasked { vector: 0, pending: false };
    in_entry(found, (bar, table + msix::ENTRY_CONTROL), 1, |_| masked)?;
    let word = |register| bar.read32(table + register);
    let expected = MsiMessage {
        address: u64::from(word(msix::ENTRY_ADDRESS_HIGH)) << 32
            | u64::from(word(msix::ENTRY_ADDRESS_LOW)),
        data: word(msix::ENTRY_DATA),
    };
    in_entry(found, (bar, table + msix::ENTRY_ADDRESS_LOW), 1 << 16, |low| {
        let stored = MsiMessage { address: expected.address ^ low, ..expected };
        Obstacle::MessageDiffers { stored, expected }
    })?;
    in_entry(found, (bar, table + msix::ENTRY_DATA), 0x4d, |_| {
        let stored = MsiMessage { data: expected.data ^ 0x4d, ..expected };
        Obstacle::MessageDiffers { stored, expected }
    })
}

/// Flips bits in a register of the table entry.
fn in_entry(
    found: &Found<'_>,
    (bar, register): (MappedRegion, u64),
    flipped: u32,
    wanted: impl FnOnce(u64) -> Obstacle,
) -> Outcome {
    let right = bar.read32(register);
    found.planted(
        || bar.write32(register, right ^ flipped),
        || bar.write32(register, right),
        wanted(flipped.into()),
    )
}

/// Disables the ITS, then the LPI in its configuration byte.
fn of_its(found: &Found<'_>, its: &Its<Kernel>, lpi: Lpi) -> Outcome {
    let frame = its_frame(its)?;
    let enable = |enabled| frame.write(gits::CTLR, Ctlr::new().with_enabled(enabled));
    let disabled = Obstacle::ItsDisabled { its: its.base() };
    found.planted(|| enable(false), || enable(true), disabled)?;
    let disabled = Obstacle::Disabled { interrupt: lpi.intid().hwirq() };
    let set = |result: Result<(), _>| result.expect("the LPI's configuration cannot be changed");
    found.planted(|| set(its.mask(lpi)), || set(its.unmask(lpi)), disabled)
}

/// Disables LPIs at the redistributor, then puts the redistributor to sleep.
fn of_redistributor(found: &Found<'_>, gic: &Gic<Kernel>) -> Outcome {
    let Found { here: cpu, .. } = *found;
    let redistributor = gic.redistributor_frames(cpu)?;
    let frame = redistributor.mmio();
    if redistributor.can_disable_lpis() {
        let right = frame.read(gicr::CTLR);
        let off = Obstacle::LpisDisabled { cpu };
        let stop = || frame.write(gicr::CTLR, right.with_enable_lpis(false));
        found.planted(stop, || frame.write(gicr::CTLR, right), off)?;
    }
    // In the Non-secure view, the register ignores writes and reads as zero.
    frame.write(gicr::WAKER, gicr::Waker::new().with_processor_sleep(true));
    let sleeps = frame.read(gicr::WAKER).processor_sleep();
    let obstacle = found.obstacle();
    frame.write(gicr::WAKER, gicr::Waker::new());
    check!(!sleeps || obstacle == Some(Obstacle::Asleep { cpu }), "asleep: {obstacle:?}");
    Ok(())
}

/// Plants faults between the pending state and the CPU, after making the interrupt pending with
/// exceptions masked.
fn of_cpu(found: &Found<'_>) -> Outcome {
    let state = cpu::irq_save();
    found.handle.set_pending(Pending::Set);
    let outcome = of_interface(found);
    found.handle.set_pending(Pending::Clear);
    cpu::irq_restore(state);
    outcome
}

fn of_interface(found: &Found<'_>) -> Outcome {
    let Found { machine, here: cpu, .. } = *found;
    let obstacle = found.obstacle();
    check!(obstacle == Some(Obstacle::ExceptionsMasked { cpu }), "with DAIF.I: {obstacle:?}");
    let Some(gic) = machine.gic().v3() else { return Ok(()) };
    let distributor = gic.distributor().mmio();
    let right = distributor.read(gicd::CTLR);
    let groups = right.with_enable_grp0(false).with_enable_grp1(false);
    distributor.write(gicd::CTLR, groups);
    // RWP reads as 1 until the write has taken effect in the distributor.
    let is_written = || !distributor.read(gicd::CTLR).rwp();
    check!(cpu::wait_until(1000, is_written), "RWP stays 1");
    let (ctlr, obstacle) = (distributor.read(gicd::CTLR).into(), found.obstacle());
    distributor.write(gicd::CTLR, right);
    check!(cpu::wait_until(1000, is_written), "RWP stays 1");
    let withheld = Obstacle::GroupDisabled { group: Group::One, ctlr };
    check!(obstacle == Some(withheld), "{obstacle:?} instead of {withheld:?}");
    let own = registers();
    let mask = own.read(icc::PMR);
    let masked = Obstacle::PriorityMasked { priority: PRIORITY, mask: 0, cpu };
    found.planted(|| own.write(icc::PMR, 0), || own.write(icc::PMR, mask), masked)?;
    let group = |enable| own.write(icc::IGRPEN1, Igrpen::new().with_enable(enable));
    let disabled = Obstacle::InterfaceGroupDisabled { group: Group::One, cpu };
    found.planted(|| group(false), || group(true), disabled)
}

/// A vector that is routed to this CPU.
struct Found<'a> {
    machine: &'a Machine,
    handle: &'a IrqHandle,
    here: Cpu,
}

impl Found<'_> {
    fn obstacle(&self) -> Option<Obstacle> {
        let explanation = self.machine.irqchip.explain(self.handle.irq(), self.here, &registers());
        explanation.and_then(|explanation| explanation.obstacle())
    }

    /// Plants a fault, checks the obstacle, and repairs the fault.
    fn planted(&self, fault: impl FnOnce(), repair: impl FnOnce(), wanted: Obstacle) -> Outcome {
        let before = self.obstacle();
        fault();
        let obstacle = self.obstacle();
        repair();
        check!(obstacle == Some(wanted), "{obstacle:?} instead of {wanted:?}");
        let after = self.obstacle();
        check!(after == before, "{after:?} remains of {wanted:?}");
        Ok(())
    }
}
