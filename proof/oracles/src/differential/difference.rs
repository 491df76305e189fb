//! The permitted differences between the two machines, each with its reason. All other differences
//! are faults.

use super::address_map::{CPUS, GICD, GICR, GICR_STRIDE, ITS};
use super::step::Width;

/// Register bits that the comparison ignores.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// Name.
    pub name: &'static str,
    /// Registers that may differ.
    pub registers: Registers,
    /// The bits in which these registers may differ.
    pub bits: u64,
    /// Condition under which these bits may differ.
    pub when: When,
    /// The machines whose values are right.
    pub verdict: Verdict,
    /// Section of IHI 0069H.b that settles whether the difference is permitted.
    pub section: &'static str,
    /// The section's statement in short.
    pub because: &'static str,
}

/// The machines whose values are right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Both machines.
    Allowed,
    /// Doorbell only: QEMU has a bug.
    QemuBug,
}

/// The condition under which bits are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Always.
    Always,
    /// The bits are ignored until software writes the register.
    AfterReset,
    /// The bits are ignored while this bit of the accessed value is one on both machines.
    BothHave(u32),
    /// The bits are ignored if these bits have these values on both machines.
    Exactly {
        /// Value on Doorbell.
        ours: u64,
        /// Value on QEMU.
        theirs: u64,
    },
}

/// The values read from both machines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    pub(super) ours: u64,
    pub(super) theirs: u64,
}

/// Time of a comparison relative to the first register write after reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    /// Registers have their reset values.
    AfterReset,
    /// Software may have written registers.
    Later,
}

impl When {
    fn applies(self, bits: u64, moment: Moment, values: Values) -> bool {
        match self {
            Self::Always => true,
            Self::AfterReset => moment == Moment::AfterReset,
            Self::BothHave(bit) => (values.ours & values.theirs) >> bit & 1 == 1,
            Self::Exactly { ours, theirs } => {
                (values.ours & bits, values.theirs & bits) == (ours, theirs)
            }
        }
    }
}

/// A register array.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    frame: Frame,
    offset: u64,
    bytes: u64,
    count: u64,
}

#[derive(Clone, Copy, Debug)]
enum Frame {
    Distributor,
    /// Registers in the redistributor frames. Each CPU has its own frame.
    Redistributor,
    Its,
}

impl Registers {
    const fn one(frame: Frame, offset: u64, bytes: u64) -> Self {
        Self { frame, offset, bytes, count: 1 }
    }

    /// Returns the offset of a byte within its register, or `None` if the byte doesn't belong to
    /// these registers.
    fn byte_of(self, address: u64) -> Option<u64> {
        let offset = match self.frame {
            Frame::Distributor => address.checked_sub(GICD).filter(|offset| *offset < 0x1_0000)?,
            Frame::Its => address.checked_sub(ITS).filter(|offset| *offset < 0x2_0000)?,
            Frame::Redistributor => {
                let offset = address.checked_sub(GICR)?;
                (offset < GICR_STRIDE * u64::from(CPUS)).then_some(offset % GICR_STRIDE)?
            }
        };
        let within = offset.checked_sub(self.offset).filter(|at| *at < self.bytes * self.count)?;
        Some(within % self.bytes)
    }
}

const RES0: &str = "Glossary, RES0";
const RESERVED: &str = "a RES0 bit may hold what was written: QEMU's does";

/// All permitted differences.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "SGIs beyond Aff0 = 15",
        registers: Registers::one(Frame::Distributor, 0x0004, 4),
        bits: 1 << 26,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: "§12.9 GICD_TYPER.RSS",
        because: "which target lists there are is the implementation's choice",
    },
    Difference {
        name: "the number of SPIs on QEMU 7.2",
        registers: Registers::one(Frame::Distributor, 0x0004, 4),
        bits: 0x1f,
        when: When::Exactly { ours: 8, theirs: 7 },
        verdict: Verdict::QemuBug,
        section: "§12.9 GICD_TYPER.ITLinesNumber",
        because: "the last 32 SPIs are there and can be used, but are not counted",
    },
    Difference {
        name: "sharing of LPI tables",
        registers: Registers::one(Frame::Redistributor, 0x0008, 8),
        bits: 0b11 << 24,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: "§12.11 GICR_TYPER.CommonLPIAff",
        because: "which redistributors share configuration tables is the implementation's choice",
    },
    Difference {
        name: "size of a translation table entry",
        registers: Registers::one(Frame::Its, 0x0008, 8),
        bits: 0xf << 4,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: "§12.19 GITS_TYPER.ITT_entry_size",
        because: "each has its own format",
    },
    Difference {
        name: "bits of a collection number",
        registers: Registers::one(Frame::Its, 0x0008, 8),
        bits: 0x1f << 32,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: "§12.19 GITS_TYPER.CIL",
        because: "CIL = 0, and CIL = 1 with CIDbits = 15, both say 16 bits",
    },
    Difference {
        name: "page size before software chooses one",
        registers: Registers { count: 2, ..Registers::one(Frame::Its, 0x0100, 8) },
        bits: 0b11 << 8,
        when: When::AfterReset,
        verdict: Verdict::Allowed,
        section: "§12.19 GITS_BASER<n>.Page_Size",
        because: "the field resets to an UNKNOWN value",
    },
    Difference {
        name: "reserved bits of a route",
        registers: Registers { count: 1020, ..Registers::one(Frame::Distributor, 0x6000, 8) },
        bits: !0xff_80ff_ffff,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: RES0,
        because: RESERVED,
    },
    Difference {
        name: "1 of N where it is not supported",
        registers: Registers { count: 1020, ..Registers::one(Frame::Distributor, 0x6000, 8) },
        bits: 1 << 31,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: "§12.9 GICD_IROUTER<n>.Interrupt_Routing_Mode",
        because: "GICD_TYPER.No1N makes the bit reserved, and QEMU's holds what was written",
    },
    Difference {
        name: "GICR_PENDBASER.PTZ reads back",
        registers: Registers::one(Frame::Redistributor, 0x0078, 8),
        bits: 1 << 62,
        when: When::Always,
        verdict: Verdict::QemuBug,
        section: "§12.11 GICR_PENDBASER.PTZ",
        because: "the bit is write-only and reads as zero",
    },
    Difference {
        name: "reserved bits of GICR_PROPBASER",
        registers: Registers::one(Frame::Redistributor, 0x0070, 8),
        bits: 0xf8f0_0000_0000_0060,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: RES0,
        because: RESERVED,
    },
    Difference {
        name: "reserved bits of GICR_PENDBASER",
        registers: Registers::one(Frame::Redistributor, 0x0078, 8),
        bits: 0xb8f0_0000_0000_f07f,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: RES0,
        because: RESERVED,
    },
    Difference {
        name: "reserved bits of GITS_CBASER",
        registers: Registers::one(Frame::Its, 0x0080, 8),
        bits: 0x4710_0000_0000_0300,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: RES0,
        because: RESERVED,
    },
    Difference {
        name: "a command queue that is not aligned to 64 KiB",
        registers: Registers::one(Frame::Its, 0x0080, 8),
        bits: 0xf000,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: "§12.19 GITS_CBASER.Physical_Address",
        because: "bits 15:12 of the address are reserved: Doorbell's are zero, QEMU's hold what \
                  was written",
    },
    Difference {
        name: "reserved bits of GITS_CWRITER",
        registers: Registers::one(Frame::Its, 0x0088, 8),
        bits: !0xf_ffe1,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: RES0,
        because: RESERVED,
    },
    Difference {
        name: "whether 1 of N wakes sleeping CPUs",
        registers: Registers::one(Frame::Distributor, 0x0000, 4),
        bits: 1 << 7,
        when: When::Always,
        verdict: Verdict::Allowed,
        section: "§12.9 GICD_CTLR.E1NWF",
        because: "whether the bit can be written is the implementation's choice",
    },
    Difference {
        name: "quiescence of an enabled ITS",
        registers: Registers::one(Frame::Its, 0x0000, 4),
        bits: 1 << 31,
        when: When::BothHave(0),
        verdict: Verdict::Allowed,
        section: "§12.19 GITS_CTLR.Quiescent",
        because: "the bit is UNKNOWN while the ITS is enabled",
    },
];

/// An input that cases must not send.
#[derive(Clone, Copy, Debug)]
pub struct NotSent {
    /// The input.
    pub what: &'static str,
    /// The reason for not sending the input.
    pub verdict: Verdict,
    /// Section of IHI 0069H.b that defines the input's effect, or leaves it open.
    pub section: &'static str,
}

const fn open(what: &'static str, section: &'static str) -> NotSent {
    NotSent { what, verdict: Verdict::Allowed, section }
}

/// All inputs that cases must not send.
pub const NOT_SENT: &[NotSent] = &[
    NotSent {
        what: "a write of GITS_CREADR, which QEMU performs",
        verdict: Verdict::QemuBug,
        section: "§12.19 GITS_CREADR",
    },
    NotSent {
        what: "a write of GICR_WAKER by Non-secure software, which QEMU performs",
        verdict: Verdict::QemuBug,
        section: "§12.11 GICR_WAKER",
    },
    open(
        "a 64-bit access to a 32-bit register, or a 16-bit access to a register that is not a \
         doorbell",
        "§12.1.3",
    ),
    open(
        "a write of GICR_PROPBASER or GICR_PENDBASER while LPIs are enabled",
        "§12.11 GICR_PROPBASER",
    ),
    open("GICR_PENDBASER.PTZ with a table that is not zero", "§12.11 GICR_PENDBASER.PTZ"),
    open(
        "a read of GITS_CWRITER after a write of GITS_CBASER and before a write of GITS_CWRITER",
        "§12.19 GITS_CBASER",
    ),
    open("a read of GITS_CWRITER while it points beyond the queue", "§12.19 GITS_CWRITER"),
    open("tables or a queue outside of memory", "§5.1, §5.2"),
    open("a translation table that is not zero when it is mapped, or mapped twice", "§5.3 MAPD"),
    open("MAPD of a device that has mapped events", "§5.3 MAPD"),
    open("MAPC of a mapped collection with pending LPIs", "§5.3 MAPC"),
    open("MAPTI or MAPI of a mapped event", "§5.3 MAPTI"),
    open("two events with one INTID", "§5.3 MAPTI"),
    open("DISCARD of an event whose collection is not mapped", "§5.3 DISCARD"),
    open(
        "a change of the trigger of an interrupt that is enabled, before a CPU acknowledges",
        "§12.9 GICD_ICFGR<n>",
    ),
    open("sleep of a redistributor whose CPU acknowledges", "§12.11 GICR_WAKER"),
    open("an LPI configuration change without INV or INVALL, before a CPU acknowledges", "§5.1"),
    open("MOVI or MOVALL to a redistributor whose LPIs are disabled", "§5.3 MOVALL"),
];

/// Returns `true` if two values of a register agree, ignoring bits that may differ.
pub(super) fn agree(at: u64, width: Width, moment: Moment, values: Values) -> bool {
    let left_out = (0..width.bytes())
        .map(|index| u64::from(left_out_of_byte(at + index, moment, values)) << (8 * index))
        .fold(0, |bits, byte| bits | byte);
    (values.ours ^ values.theirs) & !left_out == 0
}

fn left_out_of_byte(address: u64, moment: Moment, values: Values) -> u8 {
    let applying = DIFFERENCES
        .iter()
        .filter(|difference| difference.when.applies(difference.bits, moment, values));
    let left_out = applying.filter_map(|difference| {
        let byte = difference.registers.byte_of(address)?;
        let [low, ..] = (difference.bits >> (8 * byte)).to_le_bytes();
        Some(low)
    });
    left_out.fold(0, |bits, byte| bits | byte)
}
