//! What a CPU does that acknowledges whatever is pending: a program for QEMU's CPUs, and the same for the model's.
//!
//! It unmasks all priorities and groups, lets `ICC_EOIR<n>_EL1` drop the priority alone, and then reads
//! `ICC_IAR1_EL1`, and where that says nothing `ICC_IAR0_EL1`, until both say nothing. What has an active state stays active, so that a level that is still high is not seen twice.

use super::places::CPUS;
use anyhow::Result;
use gic_arch::icc::SysRegEncoding;
use std::fmt::Write as _;
use vgic::Vcpu;

/// Most acknowledgements in one go.
const MOST: usize = 256;
/// What `ICC_IAR<n>_EL1` says when nothing is pending.
const NOTHING: u64 = 1023;

/// Where QEMU's CPUs execute.
pub(super) const PROGRAM_BASE: u64 = 0x4700_0000;

/// Where a CPU is told to begin: a word that is not zero. It is zero when the CPU is done; the word after it is the
/// number of acknowledgements, which [`LIST`] bytes further begin.
pub(super) const fn mailbox(cpu: u16) -> u64 {
    0x4701_0000 + cpu as u64 * 0x1000
}

/// From the mailbox to pairs of words: INTID, and the running priority after its acknowledgement.
pub(super) const LIST: u64 = 16;

/// An interrupt that a CPU has acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Acknowledged {
    /// The running priority that it brought.
    pub priority: u32,
    /// Its INTID.
    pub intid: u32,
}

/// The program of QEMU's CPUs, of which only the first starts by itself.
pub(super) const PROGRAM: [u32; 50] = [
    // PSCI_CPU_ON of CPUs 1 and 2, by HVC; they begin where MPIDR_EL1 is read.
    0xd2800060, // movz x0, #0x0003
    0xf2b88000, // movk x0, #0xC400, lsl #16
    0xd2800021, // mov x1, #1
    0x100000e2, // adr x2, mpidr
    0xd4000002, // hvc #0
    0xd2800060, // movz x0, #0x0003
    0xf2b88000, // movk x0, #0xC400, lsl #16
    0xd2800041, // mov x1, #2
    0x10000042, // adr x2, mpidr
    0xd4000002, // hvc #0
    // Its own mailbox, in x19.
    0xd53800a0, // mpidr: mrs x0, mpidr_el1
    0x92401c00, // and x0, x0, #0xff
    0xd2a8e033, // movz x19, #0x4701, lsl #16
    0x8b003273, // add x19, x19, x0, lsl #12
    0xd503203f, // wait: yield
    0xb9400261, // ldr w1, [x19]
    0x34ffffc1, // cbz w1, wait
    0xd2801fe0, // mov x0, #0xff
    0xd5184600, // msr icc_pmr_el1, x0
    0xd2800040, // mov x0, #2
    0xd518cc80, // msr icc_ctlr_el1, x0
    0xd2800020, // mov x0, #1
    0xd518ccc0, // msr icc_igrpen0_el1, x0
    0xd518cce0, // msr icc_igrpen1_el1, x0
    0xd5033fdf, // isb
    0xd2800002, // mov x2, #0
    0x91004263, // add x3, x19, #16
    0xd538cc00, // next: mrs x0, icc_iar1_el1
    0x710ffc1f, // cmp w0, #1023
    0x540000e1, // b.ne group1
    0xd538c800, // mrs x0, icc_iar0_el1
    0x710ffc1f, // cmp w0, #1023
    0x54000160, // b.eq done
    0xd538cb61, // mrs x1, icc_rpr_el1
    0xd518c820, // msr icc_eoir0_el1, x0
    0x14000003, // b count
    0xd538cb61, // group1: mrs x1, icc_rpr_el1
    0xd518cc20, // msr icc_eoir1_el1, x0
    0xd5033fdf, // count: isb
    0x28810460, // stp w0, w1, [x3], #8
    0x91000442, // add x2, x2, #1
    0xf104005f, // cmp x2, #256
    0x54fffe2b, // b.lt next
    0xd518ccdf, // done: msr icc_igrpen0_el1, xzr
    0xd518ccff, // msr icc_igrpen1_el1, xzr
    0xd5033fdf, // isb
    0xb9000662, // str w2, [x19, #4]
    0xd5033fbf, // dmb sy
    0xb900027f, // str wzr, [x19]
    0x17ffffdd, // b wait
];

const _: () = assert!(CPUS == 3, "the program starts two CPUs beside the first");

/// The same for a CPU of the model.
pub(super) fn acknowledge(vcpu: &mut Vcpu) -> Result<Vec<Acknowledged>> {
    let register = |crm, op2| SysRegEncoding::new(3, 0, 12, crm, op2);
    // The CRm of the registers of both groups: Group 1 is asked first.
    let groups = [12, 8].map(|crm| (register(crm, 0), register(crm, 1)));
    let [ctlr, igrpen0, igrpen1] = [4, 6, 7].map(|op2| register(12, op2));
    let (pmr, rpr) = (SysRegEncoding::new(3, 0, 4, 6, 0), register(11, 3));
    for (register, value) in [(pmr, 0xff), (ctlr, 2), (igrpen0, 1), (igrpen1, 1)] {
        vcpu.write_sysreg(register, value)?;
    }
    let mut acknowledged = Vec::new();
    while acknowledged.len() < MOST {
        let mut taken = None;
        for (iar, eoir) in groups {
            let intid = vcpu.read_sysreg(iar)?;
            if intid != NOTHING {
                taken = Some((intid, eoir));
                break;
            }
        }
        let Some((intid, eoir)) = taken else { break };
        let priority = u32::try_from(vcpu.read_sysreg(rpr)?)?;
        acknowledged.push(Acknowledged { priority, intid: u32::try_from(intid)? });
        vcpu.write_sysreg(eoir, intid)?;
    }
    for register in [igrpen0, igrpen1] {
        vcpu.write_sysreg(register, 0)?;
    }
    Ok(acknowledged)
}

/// In words that are the same where the order is, apart from that of equal priorities, which is anybody's choice.
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
