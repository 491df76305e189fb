//! A CPU on the model that acknowledges all pending interrupts, like the program on QEMU's CPUs.

use super::program::MOST;
use super::world::World;
use anyhow::Result;
use gic_arch::icc::SysRegEncoding;
use std::fmt::Write as _;
use vgic::Vcpu;

/// The value that `ICC_IAR<n>_EL1` returns if no interrupt is pending.
const NOTHING: u64 = 1023;

/// An interrupt that was acknowledged by a CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Acknowledged {
    /// The running priority after the acknowledgment.
    pub priority: u32,
    /// INTID of the interrupt.
    pub intid: u32,
}

const fn register(crm: u16, op2: u16) -> SysRegEncoding {
    SysRegEncoding::new(3, 0, 12, crm, op2)
}

/// `ICC_IAR<n>_EL1` and `ICC_EOIR<n>_EL1` for Group 1 (acknowledged first) and Group 0.
const GROUPS: [(SysRegEncoding, SysRegEncoding); 2] =
    [(register(12, 0), register(12, 1)), (register(8, 0), register(8, 1))];

/// Returns the interrupt groups that software can use in this world.
fn groups(world: World) -> &'static [(SysRegEncoding, SysRegEncoding)] {
    match world {
        World::Stopped => &[],
        World::Running => &GROUPS,
        World::NonSecure => &GROUPS[..1],
    }
}

/// Enables interrupts of all groups and priorities on the CPU.
pub(super) fn listen(vcpu: &mut Vcpu, world: World) -> Result<()> {
    let groups = groups(world).len();
    if groups == 0 {
        return Ok(());
    }
    let (pmr, ctlr) = (SysRegEncoding::new(3, 0, 4, 6, 0), register(12, 4));
    let [igrpen1, igrpen0] = [7, 6].map(|op2| register(12, op2));
    vcpu.write_sysreg(pmr, 0xff)?;
    vcpu.write_sysreg(ctlr, 2)?;
    [igrpen1, igrpen0]
        .into_iter()
        .take(groups)
        .try_for_each(|enable| vcpu.write_sysreg(enable, 1))?;
    Ok(())
}

/// Acknowledges interrupts on the CPU until no interrupt is pending.
pub(super) fn acknowledge(vcpu: &mut Vcpu, world: World) -> Result<Vec<Acknowledged>> {
    let running_priority = register(11, 3);
    let mut acknowledged = Vec::new();
    while acknowledged.len() < MOST {
        let mut taken = None;
        for (iar, eoir) in groups(world) {
            let intid = vcpu.read_sysreg(*iar)?;
            if intid != NOTHING {
                taken = Some((intid, *eoir));
                break;
            }
        }
        let Some((intid, eoir)) = taken else { break };
        let priority = u32::try_from(vcpu.read_sysreg(running_priority)?)?;
        acknowledged.push(Acknowledged { priority, intid: u32::try_from(intid)? });
        vcpu.write_sysreg(eoir, intid)?;
    }
    Ok(acknowledged)
}

/// Formats a list of acknowledgments as text. The order of the acknowledgments matters, except
/// among equal priorities, whose order is undefined.
pub(super) fn tell(acknowledged: &[Acknowledged]) -> String {
    let mut told = String::from("acknowledged");
    for group in acknowledged.chunk_by(|one, other| one.priority == other.priority) {
        let mut intids: Vec<u32> = group.iter().map(|each| each.intid).collect();
        intids.sort_unstable();
        if let Some(first) = group.first() {
            // Writing to a string cannot fail.
            _ = write!(told, " {:#x}:{intids:?}", first.priority);
        }
    }
    told
}
