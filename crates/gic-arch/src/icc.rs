//! The system registers of the CPU interface, `ICC_*` (IHI 0069 §12.2), in AArch64 state.

use crate::reg::register_values;
use crate::{Affinity, IntId, ReadOnly, ReadWrite, WriteOnly};
use bitfield_struct::bitfield;
use core::marker::PhantomData;

/// Encoding of a system register in `MRS` and `MSR`: op0, op1, CRn, CRm and op2, packed as in KVM's
/// device attributes (2, 3, 4, 4 and 3 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SysRegEncoding(u16);

impl SysRegEncoding {
    /// Creates an encoding from the five fields. Bits that do not fit in a field are dropped.
    pub const fn new(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> Self {
        Self((op0 & 3) << 14 | (op1 & 7) << 11 | (crn & 15) << 7 | (crm & 15) << 3 | (op2 & 7))
    }

    /// Creates an encoding from its packed form.
    pub const fn from_packed(packed: u16) -> Self {
        Self(packed)
    }

    /// Returns the packed form.
    pub const fn packed(self) -> u16 {
        self.0
    }
}

/// A system register, with its encoding, value type and access rights.
pub struct SysReg<V, A = ReadWrite> {
    encoding: SysRegEncoding,
    kind: PhantomData<fn() -> (V, A)>,
}

impl<V, A> Clone for SysReg<V, A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<V, A> Copy for SysReg<V, A> {}

impl<V, A> core::fmt::Debug for SysReg<V, A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SysReg({:#06x})", self.encoding.packed())
    }
}

impl<V, A> SysReg<V, A> {
    /// Creates the register with this encoding.
    pub const fn at(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> Self {
        Self { encoding: SysRegEncoding::new(op0, op1, crn, crm, op2), kind: PhantomData }
    }

    /// Returns the encoding.
    pub const fn encoding(self) -> SysRegEncoding {
        self.encoding
    }
}

/// Declares system registers, and a table of their names and encodings.
macro_rules! system_registers {
    (
        $(#[$table_doc:meta])* $table:ident;
        $($(#[$doc:meta])* $name:ident: $kind:ty = $value:expr;)*
    ) => {
        $( $(#[$doc])* pub const $name: $kind = $value; )*
        $(#[$table_doc])*
        pub const $table: &[(&str, $crate::icc::SysRegEncoding)] =
            &[$( (stringify!($name), $name.encoding()) ),*];
    };
}
pub(crate) use system_registers;

system_registers! {
    /// Name (without `ICC_` and the exception level) and encoding of each register.
    REGISTERS;
    /// Priority mask: only interrupts with a higher priority are signaled.
    PMR: SysReg<u64> = SysReg::at(3, 0, 4, 6, 0);
    /// Acknowledges a Group 0 interrupt.
    IAR0: SysReg<IntIdValue, ReadOnly> = SysReg::at(3, 0, 12, 8, 0);
    /// Ends a Group 0 interrupt.
    EOIR0: SysReg<IntIdValue, WriteOnly> = SysReg::at(3, 0, 12, 8, 1);
    /// INTID of the highest-priority pending Group 0 interrupt.
    HPPIR0: SysReg<IntIdValue, ReadOnly> = SysReg::at(3, 0, 12, 8, 2);
    /// Binary point of Group 0.
    BPR0: SysReg<u64> = SysReg::at(3, 0, 12, 8, 3);
    /// Active priorities of Group 0, first register.
    AP0R0: SysReg<u64> = SysReg::at(3, 0, 12, 8, 4);
    /// Active priorities of Group 0, second register.
    AP0R1: SysReg<u64> = SysReg::at(3, 0, 12, 8, 5);
    /// Active priorities of Group 0, third register.
    AP0R2: SysReg<u64> = SysReg::at(3, 0, 12, 8, 6);
    /// Active priorities of Group 0, fourth register.
    AP0R3: SysReg<u64> = SysReg::at(3, 0, 12, 8, 7);
    /// Active priorities of Group 1, first register.
    AP1R0: SysReg<u64> = SysReg::at(3, 0, 12, 9, 0);
    /// Active priorities of Group 1, second register.
    AP1R1: SysReg<u64> = SysReg::at(3, 0, 12, 9, 1);
    /// Active priorities of Group 1, third register.
    AP1R2: SysReg<u64> = SysReg::at(3, 0, 12, 9, 2);
    /// Active priorities of Group 1, fourth register.
    AP1R3: SysReg<u64> = SysReg::at(3, 0, 12, 9, 3);
    /// Deactivates an interrupt.
    DIR: SysReg<IntIdValue, WriteOnly> = SysReg::at(3, 0, 12, 11, 1);
    /// Running priority.
    RPR: SysReg<u64, ReadOnly> = SysReg::at(3, 0, 12, 11, 3);
    /// Generates Group 1 SGIs.
    SGI1R: SysReg<Sgi, WriteOnly> = SysReg::at(3, 0, 12, 11, 5);
    /// Generates Group 1 SGIs in the other security state.
    ASGI1R: SysReg<Sgi, WriteOnly> = SysReg::at(3, 0, 12, 11, 6);
    /// Generates Group 0 SGIs.
    SGI0R: SysReg<Sgi, WriteOnly> = SysReg::at(3, 0, 12, 11, 7);
    /// Acknowledges a Group 1 interrupt.
    IAR1: SysReg<IntIdValue, ReadOnly> = SysReg::at(3, 0, 12, 12, 0);
    /// Ends a Group 1 interrupt.
    EOIR1: SysReg<IntIdValue, WriteOnly> = SysReg::at(3, 0, 12, 12, 1);
    /// INTID of the highest-priority pending Group 1 interrupt.
    HPPIR1: SysReg<IntIdValue, ReadOnly> = SysReg::at(3, 0, 12, 12, 2);
    /// Binary point of Group 1.
    BPR1: SysReg<u64> = SysReg::at(3, 0, 12, 12, 3);
    /// Control register.
    CTLR: SysReg<Ctlr> = SysReg::at(3, 0, 12, 12, 4);
    /// System register enable.
    SRE: SysReg<Sre> = SysReg::at(3, 0, 12, 12, 5);
    /// Enable bit of Group 0.
    IGRPEN0: SysReg<Igrpen> = SysReg::at(3, 0, 12, 12, 6);
    /// Enable bit of Group 1.
    IGRPEN1: SysReg<Igrpen> = SysReg::at(3, 0, 12, 12, 7);
}

/// System register enable for EL2 and below, `ICC_SRE_EL2`. The register is not part of
/// [`REGISTERS`], because a kernel at EL1 cannot access it.
pub const SRE_EL2: SysReg<SreEl2> = SysReg::at(3, 4, 12, 9, 5);

/// Active priority registers for Group 0.
pub const AP0R: [SysReg<u64>; 4] = [AP0R0, AP0R1, AP0R2, AP0R3];
/// Active priority registers for Group 1.
pub const AP1R: [SysReg<u64>; 4] = [AP1R0, AP1R1, AP1R2, AP1R3];

/// INTID in the format of `IAR`, `EOIR`, `HPPIR` and `DIR` (bits 23:0).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IntIdValue {
    /// Number of the interrupt.
    #[bits(24)]
    pub number: u32,
    #[bits(40)]
    __: u64,
}

impl IntIdValue {
    /// Returns the register value for an INTID. Bits above 23 are dropped.
    pub const fn of(intid: IntId) -> Self {
        Self::from_bits(intid.get() as u64 & 0xff_ffff)
    }

    /// Returns the INTID.
    pub const fn intid(self) -> IntId {
        IntId::new(self.number())
    }
}

/// Value of `ICC_CTLR_EL1`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Ctlr {
    /// `BPR0` applies to both groups.
    pub cbpr: bool,
    /// `EOIR` only drops the priority; `DIR` deactivates the interrupt.
    pub eoi_mode: bool,
    #[bits(4)]
    __: u8,
    /// The priority mask is used as a hint by the distributor.
    pub pmhe: bool,
    __: bool,
    /// Number of priority bits, minus one. Read-only.
    #[bits(3)]
    pub pri_bits_minus_one: u8,
    /// Number of INTID bits. 0: 16 bits; 1: 24 bits. Read-only.
    #[bits(3)]
    pub id_bits_code: u8,
    /// The CPU interface can generate SErrors. Read-only.
    pub seis: bool,
    /// Non-zero values of Aff3 in SGIs are supported. Read-only.
    pub a3v: bool,
    #[bits(2)]
    __: u8,
    /// SGIs can target Aff0 values up to 255. Read-only.
    pub rss: bool,
    /// INTIDs of the extended ranges are supported. Read-only.
    pub ext_range: bool,
    #[bits(44)]
    __: u64,
}

/// Value of `ICC_SRE_EL1`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Sre {
    /// The system registers are enabled.
    pub sre: bool,
    /// FIQ bypass is disabled.
    pub dfb: bool,
    /// IRQ bypass is disabled.
    pub dib: bool,
    #[bits(61)]
    __: u64,
}

/// Value of `ICC_SRE_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SreEl2 {
    /// The system registers are enabled at EL2.
    pub sre: bool,
    /// FIQ bypass is disabled.
    pub dfb: bool,
    /// IRQ bypass is disabled.
    pub dib: bool,
    /// EL1 may access `ICC_SRE_EL1`.
    pub enable: bool,
    #[bits(60)]
    __: u64,
}

/// Value of `ICC_IGRPEN0_EL1` and `ICC_IGRPEN1_EL1`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Igrpen {
    /// Interrupts of the group are signaled to this PE.
    pub enable: bool,
    #[bits(63)]
    __: u64,
}

/// Value of `ICC_SGI1R_EL1` and the other SGI registers, which sends an SGI to PEs that share
/// Aff3.Aff2.Aff1.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Sgi {
    /// Targets. Bit n selects Aff0 = 16 × [`range_selector`](Self::range_selector) + n.
    pub target_list: u16,
    /// Aff1 of the targets.
    pub aff1: u8,
    /// Number of the SGI.
    #[bits(4)]
    pub intid: u8,
    #[bits(4)]
    __: u8,
    /// Aff2 of the targets.
    pub aff2: u8,
    /// The SGI is sent to all PEs except the sender; the affinities are ignored.
    pub all_but_self: bool,
    #[bits(3)]
    __: u8,
    /// Range of sixteen Aff0 values that the target list covers.
    #[bits(4)]
    pub range_selector: u8,
    /// Aff3 of the targets.
    pub aff3: u8,
    __: u8,
}

impl Sgi {
    /// Returns the value that sends the SGI `intid` (0–15) to one PE.
    pub const fn to(intid: u8, target: Affinity) -> Self {
        let [aff3, aff2, aff1, aff0] = target.levels();
        Self::new()
            .with_intid(intid & 0xf)
            .with_target_list(1 << (aff0 % 16))
            .with_range_selector(aff0 / 16)
            .with_aff1(aff1)
            .with_aff2(aff2)
            .with_aff3(aff3)
    }

    /// Returns `true` if the affinities select `target`. [`all_but_self`](Self::all_but_self) is
    /// ignored.
    pub const fn names(self, target: Affinity) -> bool {
        let [aff3, aff2, aff1, aff0] = target.levels();
        self.aff3() == aff3
            && self.aff2() == aff2
            && self.aff1() == aff1
            && self.range_selector() == aff0 / 16
            && self.target_list() & (1 << (aff0 % 16)) != 0
    }
}

register_values!(u64: IntIdValue, Ctlr, Sre, SreEl2, Igrpen, Sgi);
