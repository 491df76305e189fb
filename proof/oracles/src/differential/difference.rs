//! The permitted differences between the two machines, each with its reason. All other differences
//! are faults.

use super::access::Width;
use super::address_map::{CPUS, GICD, GICR, GICR_STRIDE, ITS};

/// Register bits that the comparison ignores. `docs/differential.md` names the machine whose value
/// is right.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// Name.
    pub name: &'static str,
    registers: Registers,
    bits: u64,
    when: When,
    /// Section of IHI 0069H.b that settles whether the difference is permitted.
    pub section: &'static str,
}

impl Difference {
    const fn new(
        name: &'static str,
        registers: Registers,
        bits: u64,
        section: &'static str,
    ) -> Self {
        Self { name, registers, bits, when: When::Always, section }
    }

    const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }
}

/// The condition under which bits are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    Always,
    /// The bits are ignored until software writes the register.
    AfterReset,
    /// The bits are ignored while this bit of the accessed value is one on both machines.
    BothHave(u32),
    /// The bits are ignored if they have these values on Doorbell and on QEMU.
    Exactly {
        ours: u64,
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
struct Registers {
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

const GICD_TYPER: Registers = Registers::one(Frame::Distributor, 0x0004, 4);
const GICD_IROUTER: Registers =
    Registers { count: 1020, ..Registers::one(Frame::Distributor, 0x6000, 8) };
const GICR_PENDBASER: Registers = Registers::one(Frame::Redistributor, 0x0078, 8);
const GITS_TYPER: Registers = Registers::one(Frame::Its, 0x0008, 8);
const GITS_CBASER: Registers = Registers::one(Frame::Its, 0x0080, 8);
const RES0: &str = "Glossary, RES0";

/// All permitted differences. QEMU's RES0 bits hold what was written.
pub const DIFFERENCES: &[Difference] = &[
    // Which target lists there are is the implementation's choice.
    Difference::new("SGIs beyond Aff0 = 15", GICD_TYPER, 1 << 26, "§12.9 GICD_TYPER.RSS"),
    // The last 32 SPIs are there and can be used, but are not counted.
    Difference::new(
        "the number of SPIs on QEMU 7.2",
        GICD_TYPER,
        0x1f,
        "§12.9 GICD_TYPER.ITLinesNumber",
    )
    .when(When::Exactly { ours: 8, theirs: 7 }),
    // Which redistributors share configuration tables is the implementation's choice.
    Difference::new(
        "sharing of LPI tables",
        Registers::one(Frame::Redistributor, 0x0008, 8),
        0b11 << 24,
        "§12.11 GICR_TYPER.CommonLPIAff",
    ),
    // Each machine has its own format.
    Difference::new(
        "size of a translation table entry",
        GITS_TYPER,
        0xf << 4,
        "§12.19 GITS_TYPER.ITT_entry_size",
    ),
    // CIL = 0, and CIL = 1 with CIDbits = 15, both say 16 bits.
    Difference::new("bits of a collection number", GITS_TYPER, 0x1f << 32, "§12.19 GITS_TYPER.CIL"),
    // The field resets to an UNKNOWN value.
    Difference::new(
        "page size before software chooses one",
        Registers { count: 2, ..Registers::one(Frame::Its, 0x0100, 8) },
        0b11 << 8,
        "§12.19 GITS_BASER<n>.Page_Size",
    )
    .when(When::AfterReset),
    Difference::new("reserved bits of a route", GICD_IROUTER, !0xff_80ff_ffff, RES0),
    // GICD_TYPER.No1N makes the bit reserved.
    Difference::new(
        "1 of N where it is not supported",
        GICD_IROUTER,
        1 << 31,
        "§12.9 GICD_IROUTER<n>.Interrupt_Routing_Mode",
    ),
    // The bit is write-only and reads as zero.
    Difference::new(
        "GICR_PENDBASER.PTZ reads back",
        GICR_PENDBASER,
        1 << 62,
        "§12.11 GICR_PENDBASER.PTZ",
    ),
    Difference::new(
        "reserved bits of GICR_PROPBASER",
        Registers::one(Frame::Redistributor, 0x0070, 8),
        0xf8f0_0000_0000_0060,
        RES0,
    ),
    Difference::new("reserved bits of GICR_PENDBASER", GICR_PENDBASER, 0xb8f0_0000_0000_f07f, RES0),
    Difference::new("reserved bits of GITS_CBASER", GITS_CBASER, 0x4710_0000_0000_0300, RES0),
    // Bits 15:12 of the address are reserved: Doorbell's are zero, QEMU's hold what was written.
    Difference::new(
        "a command queue that is not aligned to 64 KiB",
        GITS_CBASER,
        0xf000,
        "§12.19 GITS_CBASER.Physical_Address",
    ),
    Difference::new(
        "reserved bits of GITS_CWRITER",
        Registers::one(Frame::Its, 0x0088, 8),
        !0xf_ffe1,
        RES0,
    ),
    // Whether the bit can be written is the implementation's choice.
    Difference::new(
        "whether 1 of N wakes sleeping CPUs",
        Registers::one(Frame::Distributor, 0x0000, 4),
        1 << 7,
        "§12.9 GICD_CTLR.E1NWF",
    ),
    // The bit is UNKNOWN while the ITS is enabled.
    Difference::new(
        "quiescence of an enabled ITS",
        Registers::one(Frame::Its, 0x0000, 4),
        1 << 31,
        "§12.19 GITS_CTLR.Quiescent",
    )
    .when(When::BothHave(0)),
];

/// Returns `true` if two values of a register agree, ignoring bits that may differ.
pub(super) fn agree(at: u64, width: Width, moment: Moment, values: Values) -> bool {
    let left_out = (0..u64::from(width.bytes()))
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
