//! Faults of a device's vector. Each fault is planted in a register, must be named by the
//! explanation, and is then repaired. No message is sent in the meantime.

use crate::controller::registers;
use crate::machine::Machine;
use crate::platform::Kernel;
use crate::report::{Outcome, Verdict, check};
use crate::rig::Rig;
use gic_arch::gits::{self, Ctlr};
use gic_arch::icc::{self, Igrpen};
use gic_driver::{GicPlatform, MmioExt, PhysicalRegion, Platform, SystemRegisters};
use image_rt::cpu;
use image_rt::pci::Function;
use irq_domain::IrqHandle;
use msi_types::Cpu;
use msi_types::explain::{Group, Obstacle};

/// Command register: Bus Master Enable.
const COMMAND: u16 = 4;
const MASTER: u16 = 1 << 2;

/// Plants faults of the function and its driver, then faults of the ITS and the CPU.
pub(super) fn faults(machine: &Machine, rig: &Rig, function: &Function) -> Outcome {
    let handle = rig.handles.first().ok_or(Verdict::Failed("no vectors".into()))?;
    let here = GicPlatform::cpu(&Kernel);
    handle.set_affinity(here)?;
    let found = Found { machine, handle, here };
    let works = found.obstacle();
    let idle = Obstacle::NotPending { interrupt: handle.hwirq() };
    // A controller of LPIs cannot read whether an LPI is pending.
    let lpi = handle.hwirq().get() >= 8192;
    check!(works == (!lpi).then_some(idle), "of a working vector: {works:?}");
    let command = function.config.read16(COMMAND);
    found.planted(
        || function.config.write16(COMMAND, command & !MASTER),
        || function.config.write16(COMMAND, command),
        Obstacle::BusMasterDisabled,
    )?;
    found.planted(|| handle.disable(), || handle.enable(), Obstacle::DisabledByDriver)?;
    if lpi {
        return of_cpu(&found);
    }
    Ok(())
}

/// Plants faults at the ITS and at the interface of this CPU.
fn of_cpu(found: &Found<'_>) -> Outcome {
    let Found { machine, here: cpu, .. } = *found;
    if let Some(its) = &machine.its {
        let region = PhysicalRegion { base: its.base(), bytes: gits::SIZE };
        let frame = Kernel.map(region).ok_or(Verdict::Failed("the ITS is not mapped".into()))?;
        let enable = |enabled| frame.write(gits::CTLR, Ctlr::new().with_enabled(enabled));
        let disabled = Obstacle::ItsDisabled { its: its.base() };
        found.planted(|| enable(false), || enable(true), disabled)?;
    }
    let own = registers();
    let (mask, priority) = (own.read(icc::PMR), 0xa0);
    let masked = Obstacle::PriorityMasked { priority, mask: 0, cpu };
    found.planted(|| own.write(icc::PMR, 0), || own.write(icc::PMR, mask), masked)?;
    let group = |enable| own.write(icc::IGRPEN1, Igrpen::new().with_enable(enable));
    let disabled = Obstacle::InterfaceGroupDisabled { group: Group::One, cpu };
    found.planted(|| group(false), || group(true), disabled)?;
    let state = cpu::irq_save();
    let obstacle = found.obstacle();
    cpu::irq_restore(state);
    let masked = Obstacle::ExceptionsMasked { cpu };
    check!(obstacle == Some(masked), "with exceptions masked: {obstacle:?}");
    Ok(())
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
